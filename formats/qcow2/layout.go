package qcow2

import (
	"context"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// sliceSize is how much of an L2 table is read at once, in bytes: it maps 128 MiB of
// a guest disk with 64 KiB clusters.
const sliceSize = 16 << 10

// aheadBytes is how much of an L2 table is read ahead at once.
const aheadBytes = formats.MaxAhead

// layout is an open image. Nothing in it changes after open; tables has a lock of
// its own.
type layout struct {
	*header
	disk     table // which of the image's disks this is
	opened   formats.Info
	image    stored.Bytes
	dataFile stored.Bytes // external data file; nil = clusters lie in the image
	tables   formats.Tables
	l1       formats.LongTable // of this disk
}

// Size is the virtual size in bytes.
func (l *layout) Size() int64 { return l.disk.size }

// Info is what Inspect says, with the size of a snapshot where one was opened.
func (l *layout) Info() formats.Info { return l.opened }

// Sources is the external data file, if the image has one (formats.Sourcer).
func (l *layout) Sources() []stored.Bytes {
	if l.dataFile == nil {
		return nil
	}
	return []stored.Bytes{l.dataFile}
}

// Close drops the layout's tables from the cache.
func (l *layout) Close() error {
	l.tables.Close()
	return nil
}

// clusters is the source in which uncompressed clusters lie, and its Src.
func (l *layout) clusters() (stored.Bytes, int) {
	if l.dataFile != nil {
		return l.dataFile, 1
	}
	return l.image, 0
}

// Map yields where guest range [off, off+n) lies, neighbours that continue each
// other merged. The L2 tables of a large range are read ahead.
func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	r, err := formats.NewRun(l.disk.size, off, n, yield)
	if err != nil {
		return err
	}
	perTable := l.bytesPerTable()
	until := (r.End() + perTable - 1) / perTable // L1 entries
	ahead := int64(0)
	for at := off; at < r.End() && !r.Stopped(); {
		index := at / perTable
		next := min((index+1)*perTable, l.disk.size)
		if r.End()-at > perTable {
			ahead = l.readAhead(ctx, ahead, index, until)
		}
		l2, none, err := l.l2Table(ctx, index, until)
		if err != nil {
			return err
		}
		if l2 == 0 {
			next = min((index+none)*perTable, l.disk.size)
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

// l2Slice is how many bytes of an L2 table are read at once.
func (l *layout) l2Slice() int64 { return min(sliceSize, l.clusterSize()) }

// mapTable maps from guest offset at up to the end of the L2 table at host offset
// l2, which maps the disk from guest offset base on, or of the run.
func (l *layout) mapTable(ctx context.Context, r *formats.Run, l2, base, at int64) error {
	size := l.entrySize()
	perSlice := l.l2Slice() / size
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
		for i < first+perSlice && at < end && !r.Stopped() {
			guest := base + i<<l.clusterBits
			n, err := l.mapCluster(r, guest, b, int(i-first))
			if err != nil {
				return fmt.Errorf("cluster at guest offset %d: %w", guest, err)
			}
			i += n
			at = base + i<<l.clusterBits
		}
	}
	return nil
}
