package vmdk

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"glanced/formats"
)

// directory is the grain directory of one extent, and where the metadata lies.
// It is not changed after readDirectory.
type directory struct {
	tables []uint32 // for each grain table its sector, 0 = all its grains are absent
	sorted []uint32 // the sectors of the tables there are, ascending
	fixed  []span   // header, descriptor, directories; ascending
	span   int64    // sectors that one grain table takes
}

// span is a range of sectors of the file.
type span struct{ begin, end int64 }

// readDirectory reads the grain directory ("Grain Directory") and checks that no
// table lies outside the file, in other metadata, or in another table: a table
// used twice would show one grain at many places.
func readDirectory(ctx context.Context, src formats.Source, h *header) (directory, error) {
	off := h.gdOff
	if off == 0 && h.has(flagRedundant) {
		off = h.rgdOff // an extent whose first directory was never written
	}
	n := h.tables() * 4
	if off == 0 || off > uint64(src.Size()/sector) || n > src.Size()-int64(off)*sector {
		return directory{}, fmt.Errorf("%w: the vmdk grain directory (%d bytes at sector %d) is not within the file (%d bytes)", formats.ErrCorrupt, n, off, src.Size())
	}
	d := directory{
		tables: make([]uint32, h.tables()),
		span:   sectors(int64(h.tableLen) * 4),
		fixed: []span{
			{0, 1},
			{int64(h.descriptorOff), int64(h.descriptorOff + h.descriptorSize)}, // bounded when it was read
		},
	}
	gd := span{int64(off), int64(off) + sectors(n)}
	if !d.free(gd) {
		return directory{}, fmt.Errorf("%w: the vmdk grain directory at sector %d overlaps the header or the descriptor", formats.ErrCorrupt, off)
	}
	d.fixed = append(d.fixed, gd)
	if h.has(flagRedundant) && h.rgdOff != off && h.rgdOff > 0 && h.rgdOff <= uint64(src.Size()/sector) {
		d.fixed = append(d.fixed, span{int64(h.rgdOff), int64(h.rgdOff) + sectors(n)})
	}
	slices.SortFunc(d.fixed, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })

	b := make([]byte, n)
	if err := src.ReadAt(ctx, b, int64(off)*sector); err != nil {
		return directory{}, fmt.Errorf("read the vmdk grain directory: %w", err)
	}
	for i := range d.tables {
		at := binary.LittleEndian.Uint32(b[4*i:])
		if d.tables[i] = at; at != 0 {
			d.sorted = append(d.sorted, at)
		}
	}
	slices.Sort(d.sorted)
	return d, d.check(src.Size(), int64(h.tableLen)*4)
}

// check refuses tables of n bytes each that lie where they cannot.
func (d *directory) check(fileSize, n int64) error {
	for i, at := range d.sorted {
		begin := int64(at)
		switch {
		case begin*sector > fileSize-n:
			return fmt.Errorf("%w: a vmdk grain table at sector %d passes the end of the file (%d bytes)", formats.ErrCorrupt, at, fileSize)
		case !d.free(span{begin, begin + d.span}):
			return fmt.Errorf("%w: a vmdk grain table at sector %d overlaps the header, the descriptor or the grain directory", formats.ErrCorrupt, at)
		case i > 0 && begin-int64(d.sorted[i-1]) < d.span:
			return fmt.Errorf("%w: vmdk grain tables at sectors %d and %d overlap", formats.ErrCorrupt, d.sorted[i-1], at)
		}
	}
	return nil
}

// free reports whether s touches none of the fixed metadata.
func (d *directory) free(s span) bool {
	for _, f := range d.fixed {
		if s.begin < f.end && f.begin < s.end {
			return false
		}
	}
	return true
}

// room is how many sectors from at on hold no metadata: 0 where at lies in some,
// math.MaxInt64 where none follows.
func (d *directory) room(at int64) int64 {
	next := int64(math.MaxInt64)
	for _, f := range d.fixed {
		if f.begin <= at && at < f.end {
			return 0
		}
		if f.begin > at {
			next = f.begin
			break
		}
	}
	// The first table that ends after at.
	i, _ := slices.BinarySearchFunc(d.sorted, at, func(table uint32, at int64) int {
		return cmp.Compare(int64(table)+d.span, at+1)
	})
	if i < len(d.sorted) {
		next = min(next, int64(d.sorted[i]))
	}
	if next == math.MaxInt64 {
		return next
	}
	return max(0, next-at)
}

// sectors is how many hold n bytes.
func sectors(n int64) int64 { return (n + sector - 1) / sector }
