package vdi

import (
	"context"
	"encoding/binary"
	"fmt"

	"glanced/formats"
)

// Entries of the block map that are no number of a block.
const (
	freeBlock = 0xffffffff // never written: the parent's, or zeros where there is none
	zeroBlock = 0xfffffffe // zeros, also above a parent: discarded, or written as zeros
)

// sliceBytes is how much of the block map is read at once: with blocks of 1 MiB,
// it maps 16 GiB.
const sliceBytes = 64 << 10

// layout maps one vdi file. Nothing in it changes after open.
type layout struct {
	*image
	blocks  formats.LongTable // the block map
	srcSize int64
}

func (l *layout) Size() int64        { return l.info.VirtualSize }
func (l *layout) Info() formats.Info { return l.info }

// Close lets go of the cached parts of the block map.
func (l *layout) Close() error {
	l.blocks.Tables.Close()
	return nil
}

// Map reads the parts of the block map that the range lies in.
func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	run, err := formats.NewRun(l.Size(), off, n, yield)
	if err != nil {
		return err
	}
	const entries = sliceBytes / 4
	size := int64(l.h.blockSize)
	for block := off / size; block*size < run.End() && !run.Stopped(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		first := block / entries * entries
		slice, err := l.blocks.Slice(ctx, block/entries, l.blocks.Pos+(run.End()+size-1)/size*4)
		if err != nil {
			return fmt.Errorf("vdi block map: %w", err)
		}
		for block < first+int64(len(slice)/4) && block*size < run.End() && !run.Stopped() {
			x, err := l.block(block, binary.LittleEndian.Uint32(slice[4*(block-first):]))
			if err != nil {
				return err
			}
			same := int64(1)
			if !x.Kind.Stored() {
				same = formats.Same(slice, 4, int(block-first), (run.End()-x.Off-1)/size+1)
				x.Len = min(same*size, l.Size()-x.Off)
			}
			run.Add(x)
			block += same
		}
	}
	run.Flush()
	return nil
}

// block is the extent of a block of the guest disk from its entry in the map. Of
// the last one only what the disk has of it must be in the file.
func (l *layout) block(block int64, entry uint32) (formats.Extent, error) {
	begin := block * int64(l.h.blockSize)
	x := formats.Extent{Off: begin, Len: min(int64(l.h.blockSize), l.Size()-begin)}
	switch {
	case entry == freeBlock:
		x.Kind = formats.Absent
	case entry == zeroBlock:
		x.Kind = formats.Zero
	case entry >= l.h.blocks:
		return x, fmt.Errorf("%w: the vdi block of guest offset %d is said to be number %d of %d", formats.ErrCorrupt, begin, entry, l.h.blocks)
	default:
		x.Kind = formats.Data
		x.Pos = int64(l.h.dataOff) + int64(entry)*l.h.stride() + int64(l.h.blockExtra)
		x.N = x.Len
		if x.Pos > l.srcSize-x.N {
			return x, fmt.Errorf("%w: the vdi block of guest offset %d is said to be number %d, at %d, past the end of the file (%d bytes)", formats.ErrCorrupt, begin, entry, x.Pos, l.srcSize)
		}
	}
	return x, nil
}
