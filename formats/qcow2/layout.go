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
	opened   formats.Info
	image    formats.Source
	dataFile formats.Source // external data file; nil = clusters lie in the image
	parent   *formats.Disk  // backing file; nil = none
	tables   *formats.TableReader
}

// Size is the virtual size in bytes.
func (l *layout) Size() int64 { return l.disk.size }

// Info is what Inspect says.
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
// other merged. Each L2 table that an image holds is visited once at most: one
// call looks at no more entries than the image has room for.
func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if off < 0 || n < 0 || off > l.disk.size-n {
		return fmt.Errorf("%w: %d bytes at %d of a disk of %d", formats.ErrRange, n, off, l.disk.size)
	}
	r := &run{from: off, to: off + n, yield: yield}
	perTable := l.bytesPerTable()
	room := l.image.Size() / l.clusterSize() // how many L2 tables the image can hold
	for at := off; at < r.to && !r.stopped; {
		index := at / perTable
		next := min((index+1)*perTable, l.disk.size)
		l2, err := l.l2Table(ctx, index)
		if err != nil {
			return err
		}
		if l2 == 0 {
			r.add(formats.Extent{Off: at, Len: next - at, Kind: formats.Absent})
			at = next
			continue
		}
		if room--; room < 0 {
			return corruptf("L1 entries point to more L2 tables than the image can hold: some are used twice")
		}
		if err := l.mapTable(ctx, r, l2, index*perTable, at); err != nil {
			return err
		}
		at = next
	}
	r.flush()
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
func (l *layout) mapTable(ctx context.Context, r *run, l2, base, at int64) error {
	size := l.entrySize()
	perSlice := min(sliceSize, l.clusterSize()) / size
	end := min(r.to, base+l.bytesPerTable())
	for at < end && !r.stopped {
		if err := ctx.Err(); err != nil {
			return err
		}
		i := (at - base) >> l.clusterBits
		first := i / perSlice * perSlice
		b, err := l.tables.Read(ctx, l2+first*size, int(perSlice*size))
		if err != nil {
			return fmt.Errorf("L2 table: %w", err)
		}
		for ; i < first+perSlice && at < end && !r.stopped; i++ {
			guest := base + i<<l.clusterBits
			if err := l.mapCluster(r, guest, b[(i-first)*size:]); err != nil {
				return fmt.Errorf("cluster at guest offset %d: %w", guest, err)
			}
			at = guest + l.clusterSize()
		}
	}
	return nil
}

// run collects the extents of one Map call: it clips them to the request, and
// joins those that continue each other.
type run struct {
	from, to int64 // guest range asked for
	yield    func(formats.Extent) bool
	last     formats.Extent // not yet yielded; Len 0 = none
	stopped  bool
}

// add takes the next extent, which may reach beyond what was asked for.
func (r *run) add(x formats.Extent) {
	from, to := max(x.Off, r.from), min(x.End(), r.to)
	if from >= to || r.stopped {
		return
	}
	switch x.Kind {
	case formats.Data:
		x.Pos += from - x.Off
		x.N = to - from
	case formats.Compressed:
		x.Skip += from - x.Off
	}
	x.Off, x.Len = from, to-from
	if r.last.Len > 0 && r.last.Kind == x.Kind {
		switch {
		case x.Kind == formats.Absent, x.Kind == formats.Zero:
			r.last.Len += x.Len
			return
		case x.Kind == formats.Data && r.last.Src == x.Src && r.last.Pos+r.last.N == x.Pos:
			r.last.Len += x.Len
			r.last.N += x.N
			return
		}
	}
	r.flush()
	r.last = x
}

// flush yields what is collected.
func (r *run) flush() {
	if r.last.Len > 0 && !r.stopped {
		r.stopped = !r.yield(r.last)
	}
	r.last = formats.Extent{}
}
