package vhd

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"glanced/formats"
)

const (
	unallocated  = 0xffffffff // BAT entry of a block that the file does not have
	sliceEntries = 1024       // entries of the BAT that are read at once: 2 GiB of the disk, with blocks of 2 MiB
)

// bat is the block allocation table of one file ("Block Allocation Table"), read
// in slices. A slice is checked once, when it is first read. Safe for concurrent
// use.
type bat struct {
	tables  formats.Tables
	entries formats.LongTable // of the disk's blocks; there may be more entries
	size    int64             // of the disk, bytes
	block   int64             // of a block's data, bytes
	bitmap  int64             // of a block's sector bitmap, bytes
	end     int64             // where the footer begins, bytes
	fixed   []span

	mu      sync.Mutex
	checked bitset // slices
	// starts has a bit for each piece of the file as long as a block and its
	// bitmap: set where a block begins. No two can begin in one piece without
	// overlapping, so all blocks together are no more than the file holds, however
	// often a hostile BAT names the same one.
	starts bitset
}

// bitset is a set of numbers from 0 on.
type bitset []uint64

func newBitset(n int64) bitset    { return make(bitset, (n+63)/64) }
func (b bitset) has(i int64) bool { return b[i/64]>>(i%64)&1 != 0 }
func (b bitset) flip(i int64)     { b[i/64] ^= 1 << (i % 64) }

// entry is entry i of a slice.
func entry(slice []byte, i int) uint32 { return binary.BigEndian.Uint32(slice[4*i:]) }

func newBAT(img *image, tables formats.Tables) *bat {
	h := &img.header
	begin, blocks := int64(h.tableOff), h.blocks(img.info.VirtualSize)
	t := &bat{
		tables:  tables,
		entries: formats.LongTable{Tables: tables, Pos: begin, End: begin + 4*blocks, Each: 4 * sliceEntries},
		size:    img.info.VirtualSize,
		block:   h.block,
		bitmap:  h.bitmap(),
		end:     img.end,
		fixed:   h.metadata(),
	}
	t.checked = newBitset((blocks + sliceEntries - 1) / sliceEntries)
	t.starts = newBitset(t.end/(t.block+t.bitmap) + 1)
	return t
}

// slice is the entries of blocks [n*sliceEntries, (n+1)*sliceEntries), fewer at
// the end, of a walk up to the block until. It fails with ErrCorrupt where one of
// them makes no sense.
func (t *bat) slice(ctx context.Context, n, until int64) ([]byte, error) {
	first := n * sliceEntries
	s, err := t.entries.Slice(ctx, n, t.entries.Pos+4*until)
	if err != nil {
		return nil, fmt.Errorf("vhd BAT: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.checked.has(n) {
		return s, nil
	}
	for i := range len(s) / 4 {
		if err := t.claim(first+int64(i), entry(s, i)); err != nil {
			for j := range i { // so that it fails the same when asked again
				if e := entry(s, j); e != unallocated {
					t.starts.flip(t.piece(e))
				}
			}
			return nil, err
		}
	}
	t.checked.flip(n)
	return s, nil
}

// piece is which bit of starts entry e sets.
func (t *bat) piece(e uint32) int64 { return int64(e) * sector / (t.block + t.bitmap) }

// claim checks the entry of a block, and takes its place in the file.
func (t *bat) claim(block int64, e uint32) error {
	if e == unallocated {
		return nil
	}
	at := int64(e) * sector
	// The last block may be longer than the disk, and cut off there.
	whole := span{at, at + t.bitmap + min(t.block, t.size-block*t.block)}
	if whole.end > t.end {
		return fmt.Errorf("%w: the vhd's block %d is said to be at sector %d, which passes the footer at the end (at byte %d)", formats.ErrCorrupt, block, e, t.end)
	}
	for _, s := range t.fixed {
		if whole.overlaps(s) {
			return fmt.Errorf("%w: the vhd's block %d is said to be at sector %d, among the headers and the BAT", formats.ErrCorrupt, block, e)
		}
	}
	if t.starts.has(t.piece(e)) {
		return fmt.Errorf("%w: the vhd's block %d is said to be at sector %d, where another block is", formats.ErrCorrupt, block, e)
	}
	t.starts.flip(t.piece(e))
	return nil
}
