package check

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"glanced/formats"
	"glanced/formats/engine"
)

// overlaps finds parts of a guest disk that lie at one place of a file, which no
// format has for uncompressed data. Compressed clusters share sectors, and how
// long they are is not always known: of them, only the beginning is looked at,
// which must not lie in uncompressed data.
//
// It marks the blocks of the files in a bitmap. Where that would be too large,
// the map is walked several times, each time for another part of the files; so
// the memory is overlapBytes at most, for files of any size.
type overlaps struct {
	disk    *engine.Disk
	files   []fileOfChain
	offsets int64 // all host offsets or-ed: what they are all multiples of shows in the lowest bit
	coded   bool  // there are compressed clusters
}

// fileOfChain is a source of a disk of the chain.
type fileOfChain struct {
	depth, src int
	end        int64 // how far data reaches in it, bytes
	first      int64 // number of its first block among those of all files
}

const overlapBytes = 32 << 20 // of the bitmap

func newOverlaps(d *engine.Disk) *overlaps { return &overlaps{disk: d} }

// file is where the extent lies.
func (o *overlaps) file(x *formats.Extent) *fileOfChain {
	for i := range o.files {
		if f := &o.files[i]; f.depth == x.Depth && f.src == x.Src {
			return f
		}
	}
	o.files = append(o.files, fileOfChain{depth: x.Depth, src: x.Src})
	return &o.files[len(o.files)-1]
}

// learn sees each extent once, before find.
func (o *overlaps) learn(x *formats.Extent) {
	switch x.Kind {
	case formats.Data:
		f := o.file(x)
		f.end = max(f.end, x.Pos+x.N)
		o.offsets |= x.Pos
	case formats.Compressed:
		o.coded = true
	}
}

var errShared = errors.New("it lies where another part of the disk does")

// find walks the map for what learn saw.
func (o *overlaps) find(ctx context.Context) (found Faults, err error) {
	const sector = 512
	// A block is as long as what all data is aligned to, so that two ranges that do
	// not overlap share none; a cluster at most, for what is beside compressed ones.
	block := int64(1) << min(bits.TrailingZeros64(uint64(o.offsets)), 40)
	block = max(min(block, largestPower(unitOf(o.disk))), sector)
	var total int64
	for i := range o.files {
		f := &o.files[i]
		f.first = total
		total += (f.end + block - 1) / block
	}
	const most = overlapBytes * 8
	marks := make([]uint64, (min(total, most)+63)/64)
	for from := int64(0); from < total; from += most {
		clear(marks)
		w := window{marks: marks, from: from, to: min(total, from+most), block: block}
		err := Walk(ctx, o.disk, func(batch []formats.Extent) error {
			for i := range batch {
				if x := &batch[i]; x.Kind == formats.Data {
					w.mark(o.file(x).first, x, &found)
				}
			}
			return nil
		}, skip)
		if err == nil && o.coded {
			err = Walk(ctx, o.disk, func(batch []formats.Extent) error {
				for i := range batch {
					if x := &batch[i]; x.Kind == formats.Compressed {
						w.test(o.file(x), x, &found)
					}
				}
				return nil
			}, skip)
		}
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

// largestPower is the largest power of two that n is a multiple of.
func largestPower(n int64) int64 { return n & -n }

// window is the blocks [from, to) of all files.
type window struct {
	marks    []uint64
	from, to int64
	block    int64 // bytes
}

// mark marks the blocks of data extent x, in the file whose first block is first,
// and adds to found those that are marked already. Parts of blocks at either end
// of unaligned data are left out.
func (w *window) mark(first int64, x *formats.Extent, found *Faults) {
	from, to := x.Pos/w.block, (x.Pos+x.N+w.block-1)/w.block
	if x.Pos%w.block != 0 {
		from, to = from+1, (x.Pos+x.N)/w.block
	}
	base := first - w.from // of the file, in the window
	from, to = max(from+base, 0), min(to+base, w.to-w.from)
	for from < to {
		i, bit := from/64, from%64
		n := min(64-bit, to-from)
		mask := (^uint64(0) >> (64 - n)) << bit
		for twice := w.marks[i] & mask; twice != 0; {
			at := int64(bits.TrailingZeros64(twice))
			run := int64(bits.TrailingZeros64(^(twice >> at)))
			host := (i*64 + at - base) * w.block
			off := max(x.Off+host-x.Pos, x.Off)
			end := min(x.Off+host-x.Pos+run*w.block, x.End())
			found.add(off, end-off, fmt.Errorf("%w: %d bytes at %d of the file", errShared, end-off, host))
			twice &^= (^uint64(0) >> (64 - run)) << at
		}
		w.marks[i] |= mask
		from += n
	}
}

// test adds x, a compressed cluster, to found if it begins in marked data.
func (w *window) test(f *fileOfChain, x *formats.Extent, found *Faults) {
	if x.Pos >= f.end {
		return
	}
	if at := f.first + x.Pos/w.block - w.from; at >= 0 && at < w.to-w.from && w.marks[at/64]>>(at%64)&1 != 0 {
		found.add(x.Off, x.Len, fmt.Errorf("%w: a compressed cluster at %d of the file, in uncompressed data", errShared, x.Pos))
	}
}
