package vhdx

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sort"

	"glanced/backends/stored"
	"glanced/formats"
)

const (
	batEntry    = 8        // bytes
	batSlice    = 64 * kib // bytes of the BAT that are read at a time
	bitmapBlock = 1 * mib  // bytes of a sector bitmap block
	stateMask   = 0x7      // of a BAT entry, "BAT Entry" (2.5.1)
	offsetMask  = ^uint64(mib - 1)
	logSource   = 1 // the Src of what the log wrote
)

// States of a payload block, "Payload BAT Entry States" (2.5.1.1).
const (
	blockNotPresent       = 0
	blockUndefined        = 1
	blockZero             = 2
	blockUnmapped         = 3
	blockFullyPresent     = 6
	blockPartiallyPresent = 7
)

// bitmapPresent is the state of a sector bitmap block that is there (2.5.1.2).
const bitmapPresent = 6

// layout maps one file. Nothing in it changes after open.
type layout struct {
	*image
	tables formats.Tables
	table  formats.LongTable // the BAT: what the disk needs of a region that may be longer
}

// Size is the virtual size in bytes.
func (l *layout) Size() int64 { return l.params.size }

// Info is what Inspect says.
func (l *layout) Info() formats.Info { return l.info }

// Sources is what the log wrote, where it wrote anything (formats.Sourcer): a log
// may hold blocks of the disk.
func (l *layout) Sources() []stored.Bytes {
	if len(l.view.pages) == 0 {
		return nil
	}
	return []stored.Bytes{l.view.pages}
}

// Close lets go of the cached tables.
func (l *layout) Close() error {
	l.tables.Close()
	return nil
}

// Map reads the BAT and the sector bitmaps of the range, and nothing of the
// blocks.
func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	run, err := formats.NewRun(l.Size(), off, n, yield)
	if err != nil || n == 0 {
		return err
	}
	p := &l.params
	bat := batReader{l: l, until: p.batIndex((run.End()-1)>>p.blockShift) + 1}
	for b, same := off>>p.blockShift, int64(0); b<<p.blockShift < run.End() && !run.Stopped(); b += same {
		entry, err := bat.entry(ctx, p.batIndex(b))
		if err != nil {
			return err
		}
		same = 1
		x := formats.Extent{Off: b << p.blockShift}
		x.Len = min(p.blockSize, l.Size()-x.Off)
		if entry&^(stateMask|offsetMask) != 0 {
			return fmt.Errorf("%w: the vhdx BAT entry of block %d has reserved bits (%#x)", formats.ErrCorrupt, b, entry)
		}
		switch entry & stateMask {
		case blockNotPresent, blockUndefined, blockZero, blockUnmapped:
			if entry&stateMask != blockNotPresent {
				// What is undefined or unmapped may read as anything that the disk
				// once held here, or as zeros; the parent is not asked.
				x.Kind = formats.Zero
			}
			wanted := (run.End()-x.Off-1)>>p.blockShift + 1
			same = bat.same(p.batIndex(b), min(wanted, p.chunkRatio-b%p.chunkRatio)) // up to a sector bitmap's entry
			x.Len = min(same<<p.blockShift, l.Size()-x.Off)
			run.Add(x)
		case blockFullyPresent:
			if x.Pos, err = l.place(entry, p.blockSize, x.Len, "block", b); err != nil {
				return err
			}
			l.add(&run, x)
		case blockPartiallyPresent:
			if err := l.partial(ctx, &bat, &run, off, b, entry, x); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: vhdx block %d has the reserved state %d", formats.ErrCorrupt, b, entry&stateMask)
		}
	}
	run.Flush()
	return nil
}

// partial adds the extents of block b, x, of which some sectors are in this file
// and the others in the parent; off is the guest offset that was asked for.
func (l *layout) partial(ctx context.Context, bat *batReader, run *formats.Run, off, b int64, entry uint64, x formats.Extent) error {
	p := &l.params
	if !p.hasParent {
		return fmt.Errorf("%w: vhdx block %d is partially present, and the disk has no parent", formats.ErrCorrupt, b)
	}
	pos, err := l.place(entry, p.blockSize, x.Len, "block", b)
	if err != nil {
		return err
	}
	chunk := b / p.chunkRatio
	entry, err = bat.entry(ctx, chunk*(p.chunkRatio+1)+p.chunkRatio)
	if err != nil {
		return err
	}
	if entry&^(stateMask|offsetMask) != 0 || entry&stateMask != bitmapPresent {
		return fmt.Errorf("%w: vhdx block %d is partially present, and its sector bitmap is not there (BAT entry %#x)", formats.ErrCorrupt, b, entry)
	}
	at, err := l.place(entry, bitmapBlock, bitmapBlock, "sector bitmap", chunk)
	if err != nil {
		return err
	}
	bytes := p.blockSize / p.sectorSize / 8
	bitmap, err := l.tables.Read(ctx, at+b%p.chunkRatio*bytes, int(bytes))
	if err != nil {
		return fmt.Errorf("vhdx sector bitmap %d: %w", chunk, err)
	}
	begin := x.Off
	sectors := int(x.Len / p.sectorSize)
	for i := int(max(off-begin, 0) / p.sectorSize); i < sectors && !run.Stopped(); {
		end := sameBits(bitmap, i, sectors)
		x := formats.Extent{Off: begin + int64(i)*p.sectorSize, Len: int64(end-i) * p.sectorSize}
		if x.Off >= run.End() {
			break
		}
		if bitmap[i/8]>>(i%8)&1 != 0 {
			x.Pos = pos + x.Off - begin
			l.add(run, x)
		} else {
			run.Add(x)
		}
		i = end
	}
	return nil
}

// sameBits is the first bit after i, end at most, that is not as bit i is.
func sameBits(bitmap []byte, i, end int) int {
	bit := bitmap[i/8] >> (i % 8) & 1
	for i++; i < end; {
		if i%8 == 0 && bitmap[i/8] == -bit {
			i = min(i+8, end)
			continue
		}
		if bitmap[i/8]>>(i%8)&1 != bit {
			break
		}
		i++
	}
	return i
}

// add adds x, whose bytes lie at x.Pos of the view.
func (l *layout) add(run *formats.Run, x formats.Extent) {
	l.view.parts(x.Pos, x.Len, func(from origin, off, n, pos int64) bool {
		part := formats.Extent{Off: x.Off + off - x.Pos, Len: n}
		switch from {
		case fromFile:
			part.Kind, part.Pos = formats.Data, pos
		case fromLog:
			part.Kind, part.Pos, part.Src = formats.Data, pos, logSource
		case zeros:
			part.Kind = formats.Zero
		}
		run.Add(part)
		return !run.Stopped()
	})
}

// place is where entry says that what, number i, lies: size bytes that overlap
// nothing else, of which the first visible are within the file. (The last block
// may be cut off where the disk ends.)
func (l *layout) place(entry uint64, size, visible int64, what string, i int64) (int64, error) {
	at := entry & offsetMask
	if at > math.MaxInt64-256*mib || int64(at) > l.view.Size()-visible {
		return 0, fmt.Errorf("%w: vhdx %s %d is said to be at %d, past the end of the file (%d bytes)", formats.ErrCorrupt, what, i, at, l.view.Size())
	}
	s := span{int64(at), int64(at) + size}
	next := sort.Search(len(l.fixed), func(i int) bool { return l.fixed[i].end > s.begin })
	if next < len(l.fixed) && l.fixed[next].overlaps(s) {
		return 0, fmt.Errorf("%w: vhdx %s %d is said to be at %d, over the headers, the log or a region", formats.ErrCorrupt, what, i, at)
	}
	return s.begin, nil
}

// batReader reads entries of the BAT for one call of Map.
type batReader struct {
	l     *layout
	until int64  // entries that are wanted, at most
	slice []byte // of the BAT, from byte at on
	at    int64
}

// entry is entry i of the BAT.
func (r *batReader) entry(ctx context.Context, i int64) (uint64, error) {
	at := i * batEntry
	if r.slice == nil || at < r.at || at >= r.at+int64(len(r.slice)) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		begin := at / batSlice * batSlice
		slice, err := r.l.table.Slice(ctx, at/batSlice, r.l.table.Pos+r.until*batEntry)
		if err != nil {
			return 0, fmt.Errorf("vhdx BAT: %w", err)
		}
		r.slice, r.at = slice, begin
	}
	return binary.LittleEndian.Uint64(r.slice[at-r.at:]), nil
}

// same is how many entries are equal to entry i, which was read last, from there to the
// end of its slice, up to most.
func (r *batReader) same(i, most int64) int64 {
	return formats.Same(r.slice, batEntry, int(i*batEntry-r.at)/batEntry, most)
}
