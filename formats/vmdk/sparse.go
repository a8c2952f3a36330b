package vmdk

import (
	"context"
	"encoding/binary"
	"fmt"

	"glanced/formats"
)

// markerBytes is the length of a grain marker: u64 guest sector, u32 size of
// the compressed data that follows ("Compressed Grain").
const markerBytes = 12

// zeroGrain is the grain table entry of a grain of zeros, where flagZeroGrains is set.
const zeroGrain = 1

// sparse is one hosted sparse extent: all of a disk, or a piece of it. Nothing in
// it changes after open. Guest offsets are those within the extent.
type sparse struct {
	h        header
	dir      *directory
	fileSize int64 // bytes
	tables   formats.Tables
}

// open says how the tables are read.
func (s *sparse) open(t formats.Tables) { s.tables, s.dir.entries.Tables = t, t }

// mapRange adds guest range [off, end) of the extent to run, the guest offset
// base further on, and as bytes of source src.
func (s *sparse) mapRange(ctx context.Context, run *formats.Run, off, end, base int64, src int) error {
	until := (end + s.h.tableSpan() - 1) / s.h.tableSpan() // grain tables
	ahead := int64(0)
	for off < end && !run.Stopped() {
		if err := ctx.Err(); err != nil {
			return err
		}
		t := off / s.h.tableSpan()
		tableEnd := min((t+1)*s.h.tableSpan(), end)
		if end-off > s.h.tableSpan() {
			ahead = s.readAhead(ctx, ahead, t, until)
		}
		at, same, err := s.dir.table(ctx, t, until)
		if err != nil {
			return err
		}
		if at == 0 {
			tableEnd = min((t+same)*s.h.tableSpan(), end)
			run.Add(formats.Extent{Off: base + off, Len: tableEnd - off, Kind: formats.Absent})
			off = tableEnd
			continue
		}
		table, err := s.tables.Read(ctx, at*sector, s.h.tableBytes())
		if err != nil {
			return fmt.Errorf("vmdk grain table %d: %w", t, err)
		}
		for off < tableEnd && !run.Stopped() {
			x, err := s.grain(table, at, off, tableEnd)
			if err != nil {
				return err
			}
			if !x.Kind.Stored() {
				i, last := s.inTable(off), s.inTable(tableEnd-1)
				x.Len = min(t*s.h.tableSpan()+(i+formats.Same(table, 4, int(i), last-i+1))*s.h.grain(), tableEnd) - off
			}
			off = x.End()
			run.Add(moved(x, base, src))
		}
	}
	return nil
}

// inTable is the entry, in its grain table, of the grain that holds guest offset off.
func (s *sparse) inTable(off int64) int64 { return off % s.h.tableSpan() / s.h.grain() }

// tablesAhead is how many grain tables a walk over a large range has read ahead.
const tablesAhead = 128

// readAhead has the grain tables read that a walk which is at table t, and goes up
// to the table until, will want next, those that lie one after the other at once;
// from is the first that was not asked for yet. It returns the next from.
func (s *sparse) readAhead(ctx context.Context, from, t, until int64) int64 {
	each := s.h.tableBytes()
	stop := min(until, t+tablesAhead)
	for from = max(from, t); from < stop; {
		at, n, err := s.dir.table(ctx, from, until)
		if err != nil {
			break // told when the walk gets there
		}
		for ; at != 0 && from+n < stop && (n+1)*int64(each) <= formats.MaxAhead; n++ {
			if next, _, err := s.dir.table(ctx, from+n, until); err != nil || next*sector != at*sector+n*int64(each) {
				break
			}
		}
		if at != 0 && !s.tables.Ahead(at*sector, int(n)*each, each) {
			break
		}
		from += n
	}
	return from
}

// grain is the extent of the grain that holds guest offset off, from there up to
// end at most. table is the grain table of the guest range that off lies in, and
// lies at sector tableAt.
func (s *sparse) grain(table []byte, tableAt, off, end int64) (formats.Extent, error) {
	size := s.h.grain()
	skip := off % size
	begin := off - skip
	x := formats.Extent{Off: off, Len: min(size-skip, end-off)}
	i := int(begin % s.h.tableSpan() / size)
	entry := binary.LittleEndian.Uint32(table[4*i:])
	switch {
	case entry == 0:
		x.Kind = formats.Absent
		return x, nil
	case entry == zeroGrain && s.h.has(flagZeroGrains):
		x.Kind = formats.Zero
		return x, nil
	}
	at := int64(entry)
	visible := min(size, s.h.size()-begin) // the last grain may be longer than the disk, and cut off there
	room := s.dir.room(at, tableAt)
	if room == 0 {
		return x, fmt.Errorf("%w: the vmdk grain of guest offset %d is said to be at sector %d, among the metadata", formats.ErrCorrupt, begin, at)
	}
	if s.h.has(flagCompressed) {
		x.Kind, x.Codec = formats.Compressed, formats.VMDKGrain
		if visible < size {
			x.Codec = formats.VMDKLastGrain
		}
		x.Pos, x.Skip, x.Full = at*sector, skip, visible
		x.N = min(codedBound(size), s.fileSize-x.Pos)
		if next := following(table, i); next > at {
			room = min(room, next-at)
		}
		if room < sectors(x.N) {
			x.N = room * sector
		}
		if x.N <= markerBytes {
			return x, fmt.Errorf("%w: the vmdk grain of guest offset %d is said to be at sector %d, past the end of the file (%d bytes)", formats.ErrCorrupt, begin, at, s.fileSize)
		}
		return x, nil
	}
	switch {
	case at*sector > s.fileSize-visible:
		return x, fmt.Errorf("%w: the vmdk grain of guest offset %d is said to be at sector %d, past the end of the file (%d bytes)", formats.ErrCorrupt, begin, at, s.fileSize)
	case room < sectors(visible):
		return x, fmt.Errorf("%w: the vmdk grain of guest offset %d, at sector %d, overlaps metadata", formats.ErrCorrupt, begin, at)
	}
	x.Kind = formats.Data
	x.Pos, x.N = at*sector+skip, x.Len
	return x, nil
}

// following is the sector of the next grain of table after entry i, 0 if there
// is none. Writers of compressed grains append, so that it bounds grain i. Where
// it is smaller than entry i's, it says nothing.
func following(table []byte, i int) int64 {
	for i++; 4*i < len(table); i++ {
		if e := binary.LittleEndian.Uint32(table[4*i:]); e > zeroGrain {
			return int64(e)
		}
	}
	return 0
}

// codedBound is the most bytes that a grain of size bytes takes in the file, its
// marker and sector padding included. It is zlib's deflateBound for any window
// and memory setting: nine bits for each byte where nothing compresses.
func codedBound(size int64) int64 {
	return sectors(markerBytes+size+(size+7)/8+(size+63)/64+11) * sector
}
