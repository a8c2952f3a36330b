package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"

	"glanced/formats"
)

const (
	l1Slice = 16 << 10 // bytes of the L1 table that are read at once
	// l2Ahead is how many L2 tables a walk over a large range has read ahead.
	l2Ahead = 32
)

// l1Entry is the index-th entry of the L1 table, of a walk up to the entry until; and
// how many from there on are none, where this one is.
func (l *layout) l1Entry(ctx context.Context, index, until int64) (entry uint64, none int64, err error) {
	const perSlice = l1Slice / 8
	b, err := l.l1.Slice(ctx, index/perSlice, l.l1.Pos+until*8)
	if err != nil {
		return 0, 0, fmt.Errorf("L1 table: %w", err)
	}
	if entry = binary.BigEndian.Uint64(b[index%perSlice*8:]); entry == 0 {
		none = formats.Same(b, 8, int(index%perSlice), until-index)
	}
	return entry, none, nil
}

// l2Table is the host offset of the index-th L2 table, 0 = there is none, for so many
// L1 entries from index on.
func (l *layout) l2Table(ctx context.Context, index, until int64) (off, none int64, err error) {
	entry, none, err := l.l1Entry(ctx, index, until)
	if err != nil {
		return 0, 0, err
	}
	if entry&l1Reserved != 0 {
		return 0, 0, corruptf("L1 entry %d is %#x: reserved bits are set", index, entry)
	}
	off = int64(entry & offsetMask)
	if off%l.clusterSize() != 0 || off > l.image.Size()-l.clusterSize() && off != 0 {
		return 0, 0, corruptf("L1 entry %d points to %d: not a cluster of the image (%d bytes)", index, off, l.image.Size())
	}
	return off, max(none, 1), nil
}

// readAhead has the L2 tables read that a walk which is at L1 entry index, and goes
// up to the entry until, will want next; from is the first that was not asked for
// yet. It returns the next from.
func (l *layout) readAhead(ctx context.Context, from, index, until int64) int64 {
	from = max(from, index)
	for n := int64(1); from < min(until, index+l2Ahead); from += n {
		var off int64
		var err error
		if off, n, err = l.l2Table(ctx, from, until); err != nil {
			break // told when the walk gets there
		}
		for at := int64(0); off != 0 && at < l.clusterSize(); at += aheadBytes {
			if !l.tables.Ahead(off+at, int(min(aheadBytes, l.clusterSize()-at)), int(l.l2Slice())) {
				return from
			}
		}
	}
	return from
}

// Check refuses a disk of which two L1 entries lead to one L2 table
// (formats.Checker). What else may be wrong with an entry is told when it is used.
func (l *layout) Check(ctx context.Context) error {
	n := l.l1Entries(l.disk.size)
	err := formats.Unshared(ctx, n, l.image.Size()>>l.clusterBits, func(ctx context.Context, i int64) (at, none int64, err error) {
		entry, none, err := l.l1Entry(ctx, i, n)
		if err != nil || entry&offsetMask == 0 {
			return 0, max(none, 1), err
		}
		return int64(entry&offsetMask) >> l.clusterBits, 0, nil
	})
	if err != nil {
		return fmt.Errorf("L1 table: %w", err)
	}
	return nil
}
