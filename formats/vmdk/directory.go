package vmdk

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"glanced/backends/stored"
	"glanced/formats"
)

// directorySlice is how many bytes of a grain directory are read at once: as grain
// tables of 512 entries, they map 512 GiB of a disk with grains of 64 KiB.
const directorySlice = 64 << 10

// directory is the grain directory of one extent, read in slices, and where the
// metadata lies that is known without reading it.
type directory struct {
	entries  formats.LongTable // for each grain table its sector, 0 = all its grains are absent
	n        int64             // of them
	fixed    []span            // header, descriptor, directories; ascending
	span     int64             // sectors that one grain table takes
	fileSize int64             // bytes
}

// span is a range of sectors of the file.
type span struct{ begin, end int64 }

// findDirectory finds the grain directory ("Grain Directory"). A file that has the
// redundant one alone is refused: VMware's readers take that one, and qemu takes
// sector 0 for the directory, and shows another disk.
func findDirectory(src stored.Bytes, h *header) (*directory, error) {
	off := h.gdOff
	if off == 0 && h.has(flagRedundant) {
		return nil, fmt.Errorf("%w: the vmdk has no grain directory but the redundant one, at sector %d, and what it holds depends on who reads it", formats.ErrCorrupt, h.rgdOff)
	}
	n := h.tables() * 4
	if off == 0 || off > uint64(src.Size()/sector) || n > src.Size()-int64(off)*sector {
		return nil, fmt.Errorf("%w: the vmdk grain directory (%d bytes at sector %d) is not within the file (%d bytes)", formats.ErrCorrupt, n, off, src.Size())
	}
	d := &directory{
		entries:  formats.LongTable{Pos: int64(off) * sector, End: int64(off)*sector + n, Each: directorySlice},
		n:        h.tables(),
		span:     sectors(int64(h.tableLen) * 4),
		fileSize: src.Size(),
		fixed: []span{
			{0, 1},
			{int64(h.descriptorOff), int64(h.descriptorOff + h.descriptorSize)}, // bounded when it was read
		},
	}
	gd := span{int64(off), int64(off) + sectors(n)}
	if !d.free(gd) {
		return nil, fmt.Errorf("%w: the vmdk grain directory at sector %d overlaps the header or the descriptor", formats.ErrCorrupt, off)
	}
	d.fixed = append(d.fixed, gd)
	if h.has(flagRedundant) && h.rgdOff != off && h.rgdOff > 0 && h.rgdOff <= uint64(src.Size()/sector) {
		d.fixed = append(d.fixed, span{int64(h.rgdOff), int64(h.rgdOff) + sectors(n)})
	}
	slices.SortFunc(d.fixed, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })
	return d, nil
}

// table is the sector of grain table i, 0 = there is none, of a walk up to the table
// until, and for how many from i on that holds. It fails with ErrCorrupt for one that
// cannot lie there.
func (d *directory) table(ctx context.Context, i, until int64) (at, same int64, err error) {
	const perSlice = directorySlice / 4
	b, err := d.entries.Slice(ctx, i/perSlice, d.entries.Pos+4*until)
	if err != nil {
		return 0, 0, fmt.Errorf("vmdk grain directory: %w", err)
	}
	at = int64(binary.LittleEndian.Uint32(b[i%perSlice*4:]))
	switch {
	case at == 0:
		return 0, formats.Same(b, 4, int(i%perSlice), until-i), nil
	case at*sector > d.fileSize-d.span*sector:
		return 0, 0, fmt.Errorf("%w: vmdk grain table %d, at sector %d, passes the end of the file (%d bytes)", formats.ErrCorrupt, i, at, d.fileSize)
	case !d.free(span{at, at + d.span}):
		return 0, 0, fmt.Errorf("%w: vmdk grain table %d, at sector %d, overlaps the header, the descriptor or the grain directory", formats.ErrCorrupt, i, at)
	}
	return at, 1, nil
}

// check refuses a table that is used twice, and so would show one grain at many
// places (formats.Checker). Tables that begin less than a table's length apart
// overlap; those in one piece of the file of that length are seen.
func (d *directory) check(ctx context.Context) error {
	err := formats.Unshared(ctx, d.n, d.fileSize/sector/d.span+1, func(ctx context.Context, i int64) (at, none int64, err error) {
		at, same, err := d.table(ctx, i, d.n)
		if err != nil || at == 0 {
			return 0, same, err
		}
		return at / d.span, 0, nil
	})
	if err != nil {
		return fmt.Errorf("vmdk grain directory: %w", err)
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

// room is how many sectors from at on hold no metadata that is known: none of the
// fixed, nor the grain table at sector table. It is 0 where at lies in some,
// math.MaxInt64 where none follows.
func (d *directory) room(at, table int64) int64 {
	room := int64(math.MaxInt64)
	until := func(f span) {
		if f.begin > at {
			room = min(room, f.begin-at)
		} else if at < f.end {
			room = 0
		}
	}
	until(span{table, table + d.span})
	for _, f := range d.fixed {
		until(f)
	}
	return room
}

// sectors is how many hold n bytes.
func sectors(n int64) int64 { return (n + sector - 1) / sector }
