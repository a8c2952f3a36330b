package vhd

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"glanced/formats"
)

// layout maps a dynamic or differencing disk.
type layout struct {
	info formats.Info
	bat  *bat
}

func newLayout(img *image, tables formats.Tables) *layout {
	return &layout{info: img.info, bat: newBAT(img, tables)}
}

func (l *layout) Size() int64        { return l.info.VirtualSize }
func (l *layout) Info() formats.Info { return l.info }

// Close lets go of the cached tables.
func (l *layout) Close() error {
	l.bat.tables.Close()
	return nil
}

// Map reads the slices of the BAT and the sector bitmaps of the range, and
// nothing of the data.
func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	run, err := formats.NewRun(l.Size(), off, n, yield)
	if err != nil {
		return err
	}
	size := l.bat.block
	for off < run.End() && !run.Stopped() {
		if err := ctx.Err(); err != nil {
			return err
		}
		slice := off / size / sliceEntries
		table, err := l.bat.slice(ctx, slice, (run.End()+size-1)/size)
		if err != nil {
			return err
		}
		sliceEnd := min((slice+1)*sliceEntries*size, run.End())
		for off < sliceEnd && !run.Stopped() {
			block := off / size
			end := min((block+1)*size, run.End())
			i := int(block - slice*sliceEntries)
			switch e := entry(table, i); e {
			case unallocated:
				end = min((block+formats.Same(table, 4, i, (run.End()-1)/size-block+1))*size, run.End())
				run.Add(formats.Extent{Off: off, Len: end - off, Kind: formats.Absent})
			default:
				if err := l.mapBlock(ctx, &run, int64(e)*sector, off, end); err != nil {
					return err
				}
			}
			off = end
		}
	}
	run.Flush()
	return nil
}

// mapBlock adds guest range [off, end) of the block whose bitmap lies at pos.
//
// A sector whose bit is set is in the file; one whose bit is not was never
// written here ("Data Blocks"): it is the parent's in a differencing disk, and
// zeros in a dynamic one, whatever the file has in its place. qemu, which sets
// all bits of the blocks that it writes, does not look at them.
func (l *layout) mapBlock(ctx context.Context, run *formats.Run, pos, off, end int64) error {
	bitmap, err := l.bat.tables.Read(ctx, pos, int(l.bat.bitmap))
	if err != nil {
		return fmt.Errorf("vhd sector bitmap: %w", err)
	}
	begin := off - off%l.bat.block
	data := pos + l.bat.bitmap
	last := (end - begin + sector - 1) / sector
	for s := (off - begin) / sector; s < last && !run.Stopped(); {
		here, n := sectorRun(bitmap, s, last)
		x := formats.Extent{Off: begin + s*sector, Len: n * sector, Kind: formats.Absent}
		if here {
			x.Kind, x.Pos = formats.Data, data+s*sector
		}
		run.Add(x)
		s += n
	}
	return nil
}

// sectorRun is the bit of sector s, the most significant bit of a byte being the
// first, and for how many sectors it stays the same, up to last.
func sectorRun(bitmap []byte, s, last int64) (here bool, n int64) {
	here = bitmap[s/8]<<(s%8)&0x80 != 0
	for at := s; at < last; {
		w := binary.BigEndian.Uint64(bitmap[at/64*8:])
		if here {
			w = ^w // so that the run is of zeros
		}
		left := 64 - at%64 // of this word
		same := min(int64(bits.LeadingZeros64(w<<(at%64))), left)
		at += same
		if same < left {
			return here, min(at, last) - s
		}
	}
	return here, last - s
}
