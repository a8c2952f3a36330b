package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"

	"glanced/formats"
)

// sliceSize is how much of a table is read at once, in bytes: as L2 entries, it
// maps 128 MiB of a guest disk with 64 KiB clusters.
const sliceSize = 16 << 10

// layout is an open image. Nothing in it changes after open; tables has a lock of
// its own.
type layout struct {
	*header
	disk     table // which of the image's disks this is
	opened   formats.Info
	image    formats.Source
	dataFile formats.Source // external data file; nil = clusters lie in the image
	parent   *formats.Disk  // backing file; nil = none
	tables   *formats.TableReader
}

// Size is the virtual size in bytes.
func (l *layout) Size() int64 { return l.disk.size }

// Info is what Inspect says, with the size of a snapshot where one was opened.
func (l *layout) Info() formats.Info { return l.opened }

// Parent is the backing file's disk.
func (l *layout) Parent() *formats.Disk { return l.parent }

// Sources is the external data file, if the image has one (formats.Sourcer).
func (l *layout) Sources() []formats.Source {
	if l.dataFile == nil {
		return nil
	}
	return []formats.Source{l.dataFile}
}

// Close drops the layout's tables from the cache.
func (l *layout) Close() error {
	l.tables.Close()
	return nil
}

// clusters is the source in which uncompressed clusters lie, and its Src.
func (l *layout) clusters() (formats.Source, int) {
	if l.dataFile != nil {
		return l.dataFile, 1
	}
	return l.image, 0
}

// Map yields where guest range [off, off+n) lies, neighbours that continue each
// other merged. No L2 table is used twice (checkUnshared), so that one call looks at
// no more entries than the image has room for.
func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	r, err := formats.NewRun(l.disk.size, off, n, yield)
	if err != nil {
		return err
	}
	perTable := l.bytesPerTable()
	for at := off; at < r.End() && !r.Stopped(); {
		index := at / perTable
		next := min((index+1)*perTable, l.disk.size)
		l2, err := l.l2Table(ctx, index)
		if err != nil {
			return err
		}
		if l2 == 0 {
			r.Add(formats.Extent{Off: at, Len: next - at, Kind: formats.Absent})
			at = next
			continue
		}
		if err := l.mapTable(ctx, &r, l2, index*perTable, at); err != nil {
			return err
		}
		at = next
	}
	r.Flush()
	return nil
}

// l2Table is the host offset of the index-th L2 table, 0 = none.
func (l *layout) l2Table(ctx context.Context, index int64) (int64, error) {
	const perSlice = sliceSize / 8
	first := index / perSlice * perSlice
	n := min(perSlice, l.disk.l1N-first)
	b, err := l.tables.Read(ctx, l.disk.l1+first*8, int(n)*8)
	if err != nil {
		return 0, fmt.Errorf("L1 table: %w", err)
	}
	entry := binary.BigEndian.Uint64(b[(index-first)*8:])
	if entry&l1Reserved != 0 {
		return 0, corruptf("L1 entry %d is %#x: reserved bits are set", index, entry)
	}
	off := int64(entry & offsetMask)
	if off%l.clusterSize() != 0 || off > l.image.Size()-l.clusterSize() && off != 0 {
		return 0, corruptf("L1 entry %d points to %d: not a cluster of the image (%d bytes)", index, off, l.image.Size())
	}
	return off, nil
}

// mapTable maps from guest offset at up to the end of the L2 table at host offset
// l2, which maps the disk from guest offset base on, or of the run.
func (l *layout) mapTable(ctx context.Context, r *formats.Run, l2, base, at int64) error {
	size := l.entrySize()
	perSlice := min(sliceSize, l.clusterSize()) / size
	end := min(r.End(), base+l.bytesPerTable())
	for at < end && !r.Stopped() {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := (at - base) >> l.clusterBits
		first := i / perSlice * perSlice
		b, err := l.tables.Read(ctx, l2+first*size, int(perSlice*size))
		if err != nil {
			return fmt.Errorf("L2 table: %w", err)
		}
		for ; i < first+perSlice && at < end && !r.Stopped(); i++ {
			guest := base + i<<l.clusterBits
			if err := l.mapCluster(r, guest, b[(i-first)*size:]); err != nil {
				return fmt.Errorf("cluster at guest offset %d: %w", guest, err)
			}
			at = guest + l.clusterSize()
		}
	}
	return nil
}
