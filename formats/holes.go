package formats

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"glanced/backends/stored"
)

// What a source knows of its holes (stored.Extenter) is read as any other table is:
// in parts, as they are needed, and kept within the engine's bounds. An image that is
// all small holes costs no more than another, nor does the opening of a large one.
const (
	holeBlock  = 4 << 10                   // bytes of the source; a hole that fills no block is told as data
	holeTable  = 4 << 10                   // bytes of one table, a bit for each block: 1 = it is a hole
	holeWindow = holeTable * 8 * holeBlock // bytes of the source that one table is about
	wordBlocks = 64                        // blocks in a word of a table
	wordBytes  = wordBlocks / 8
)

// holeTables are the tables of one source, one behind the other, as stored bytes.
// The bits of a table are those of little-endian words, the lowest first.
type holeTables struct {
	stored.Extenter
	size int64 // of the source, bytes
}

var _ stored.Bytes = holeTables{}

// Size is that of all tables.
func (h holeTables) Size() int64 { return (h.size + holeWindow - 1) / holeWindow * holeTable }

// Identity implements stored.Bytes: the tables are nothing that is stored.
func (h holeTables) Identity() stored.Identity { return "" }

// Close implements stored.Bytes. The source stays open.
func (h holeTables) Close() error { return nil }

// ReadAt makes tables. p and off are whole tables.
func (h holeTables) ReadAt(ctx context.Context, p []byte, off int64) error {
	clear(p)
	first := off / holeTable * holeWindow
	next, end := first, min(first+int64(len(p))/holeTable*holeWindow, h.size)
	var bad error
	err := h.Extents(ctx, first, end-first, func(at, n int64, hole bool) bool {
		if at != next || n <= 0 || n > end-at {
			bad = fmt.Errorf("it says that a run of %d bytes is at %d, where %d of %d was next", n, at, next, end)
			return false
		}
		next = at + n
		if hole {
			from, to := (at-first+holeBlock-1)/holeBlock, (next-first)/holeBlock
			if next == h.size {
				to = (next - first + holeBlock - 1) / holeBlock
			}
			setBits(p, from, to)
		}
		return true
	})
	if err == nil {
		err = bad
	}
	if err != nil {
		return fmt.Errorf("ask the source for its holes: %w", err)
	}
	return nil
}

// setBits sets bits [from, to).
func setBits(p []byte, from, to int64) {
	for from < to {
		word := p[from/wordBlocks*wordBytes:]
		n := min(to-from, wordBlocks-from%wordBlocks)
		mask := ^uint64(0) >> (wordBlocks - n) << (from % wordBlocks)
		binary.LittleEndian.PutUint64(word, binary.LittleEndian.Uint64(word)|mask)
		from += n
	}
}

// equalBits is how many bits of [from, to), from at least one on, are as the first is,
// and whether that is set.
func equalBits(p []byte, from, to int64) (n int64, set bool) {
	word := func(at int64) uint64 {
		return binary.LittleEndian.Uint64(p[at/wordBlocks*wordBytes:]) >> (at % wordBlocks)
	}
	set = word(from)&1 != 0
	for at := from; at < to; {
		w := word(at)
		if set {
			w = ^w
		}
		left := wordBlocks - at%wordBlocks
		if same := int64(bits.TrailingZeros64(w)); same < left {
			return min(at+same, to) - from, set
		}
		at += left
	}
	return to - from, set
}
