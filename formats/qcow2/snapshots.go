package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"glanced/formats"
)

// snapshot is one internal snapshot: a disk with an L1 table of its own.
type snapshot struct {
	id, name string
	disk     table
}

const (
	maxSnapshots      = 65536   // QEMU's own limit
	maxSnapshotTable  = 4 << 20 // bytes
	maxSnapshotExtra  = 1024    // bytes; QEMU's own limit
	snapshotFixed     = 40      // bytes in front of the extra data
	snapshotReadAhead = 64 << 10
)

// readSnapshots reads the snapshot table.
func (h *header) readSnapshots(ctx context.Context, src formats.Source) error {
	if h.snapshotCount == 0 {
		return nil
	}
	if h.snapshotCount > maxSnapshots {
		return fmt.Errorf("%w: %d snapshots, at most %d", formats.ErrLimit, h.snapshotCount, maxSnapshots)
	}
	if h.snapshotsOff < h.clusterSize() || h.snapshotsOff%h.clusterSize() != 0 {
		return corruptf("a snapshot table at %d: not a cluster of its own", h.snapshotsOff)
	}
	c := cursor{src: src, at: h.snapshotsOff}
	for range h.snapshotCount {
		s, err := h.readSnapshot(ctx, &c)
		if err != nil {
			return err
		}
		h.snapshots = append(h.snapshots, s)
		if c.at-h.snapshotsOff > maxSnapshotTable {
			return fmt.Errorf("%w: a snapshot table of more than %d bytes", formats.ErrLimit, maxSnapshotTable)
		}
	}
	return nil
}

func (h *header) readSnapshot(ctx context.Context, c *cursor) (snapshot, error) {
	b, err := c.next(ctx, snapshotFixed)
	if err != nil {
		return snapshot{}, err
	}
	l1 := binary.BigEndian.Uint64(b)
	l1N := int64(binary.BigEndian.Uint32(b[8:]))
	idLen, nameLen := int(binary.BigEndian.Uint16(b[12:])), int(binary.BigEndian.Uint16(b[14:]))
	extraLen := binary.BigEndian.Uint32(b[36:])
	if extraLen > maxSnapshotExtra {
		return snapshot{}, fmt.Errorf("%w: a snapshot with %d bytes of extra data, at most %d", formats.ErrLimit, extraLen, maxSnapshotExtra)
	}
	s := snapshot{disk: table{size: h.disk.size, l1N: l1N}}
	if l1 > math.MaxInt64 {
		return snapshot{}, corruptf("a snapshot's L1 table at %d", l1)
	}
	s.disk.l1 = int64(l1)
	length := int(extraLen) + idLen + nameLen
	if b, err = c.next(ctx, length); err != nil {
		return snapshot{}, err
	}
	extra, b := b[:extraLen], b[extraLen:]
	if len(extra) >= 16 { // older images do not say: the disk never changed size
		size := binary.BigEndian.Uint64(extra[8:])
		if size > math.MaxInt64 {
			return snapshot{}, corruptf("a snapshot of %d bytes", size)
		}
		s.disk.size = int64(size)
	}
	s.id, s.name = text(b[:idLen]), text(b[idLen:idLen+nameLen])
	c.skip(-(snapshotFixed + length) & 7)
	return s, nil
}

// cursor reads forward from at, in pieces that are larger than what is asked for.
type cursor struct {
	src formats.Source
	at  int64 // host offset of the next byte
	buf []byte
}

// skip passes over n bytes, of which there may be fewer: QEMU does not write the
// padding after the last snapshot where the file ends there.
func (c *cursor) skip(n int) {
	c.buf = c.buf[min(n, len(c.buf)):]
	c.at += int64(n)
}

// next is the next n bytes, valid until the next call.
func (c *cursor) next(ctx context.Context, n int) ([]byte, error) {
	if n > len(c.buf) {
		left := c.src.Size() - c.at
		if int64(n) > left {
			return nil, corruptf("the snapshot table passes the end of the image (%d bytes)", c.src.Size())
		}
		c.buf = make([]byte, min(left, int64(max(n, snapshotReadAhead))))
		if err := c.src.ReadAt(ctx, c.buf, c.at); err != nil {
			return nil, fmt.Errorf("read the snapshot table: %w", err)
		}
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	c.at += int64(n)
	return b, nil
}
