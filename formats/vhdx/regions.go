package vhdx

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"glanced/formats"
)

// The region table, "Region Table" (2.2.3).
const (
	regionSignature  = "regi"
	regionTableBytes = 64 * kib
	maxTableEntries  = 2047 // of the region table, and of the metadata table
	batRegion        = guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
	metadataRegion   = guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
)

// regions says where what the region table names lies.
type regions struct {
	bat, metadata span
	taken         []span // the header section, the log and every region: ascending, none overlapping another
}

// readRegions reads the region table: the first copy whose checksum is right,
// since both hold the same.
func readRegions(ctx context.Context, v *view, log span) (regions, error) {
	b := make([]byte, regionTableBytes)
	for _, at := range regionTablesAt() {
		if at > v.Size()-regionTableBytes {
			break
		}
		if err := v.ReadAt(ctx, b, at); err != nil {
			return regions{}, fmt.Errorf("read the vhdx region table at %d: %w", at, err)
		}
		if sealed(b, regionSignature) {
			return parseRegions(b, v.stored(), log)
		}
	}
	return regions{}, fmt.Errorf("%w: neither vhdx region table has its signature and a right checksum", formats.ErrCorrupt)
}

// parseRegions reads a table whose checksum is right; the regions lie within
// fileSize bytes, and overlap neither each other nor the log.
func parseRegions(b []byte, fileSize int64, log span) (regions, error) {
	le := binary.LittleEndian
	n := le.Uint32(b[8:])
	if n > maxTableEntries {
		return regions{}, fmt.Errorf("%w: a vhdx region table of %d entries (at most %d)", formats.ErrCorrupt, n, maxTableEntries)
	}
	r := regions{taken: []span{{0, headerSection}}}
	if log.len() > 0 {
		r.taken = append(r.taken, log) // readHeader put it behind the headers
	}
	seen := make(map[guid]bool, n)
	for i := range int(n) {
		e := b[16+32*i:][:32]
		id, off, length, flags := parseGUID(e), le.Uint64(e[16:]), int64(le.Uint32(e[24:])), le.Uint32(e[28:])
		if flags > 1 {
			return regions{}, fmt.Errorf("%w: vhdx region %s has reserved flags (%#x)", formats.ErrCorrupt, id, flags)
		}
		if seen[id] {
			return regions{}, fmt.Errorf("%w: vhdx region %s is listed twice", formats.ErrCorrupt, id)
		}
		seen[id] = true
		if off%mib != 0 || length%mib != 0 || length == 0 || off < headerSection || off > uint64(fileSize) || length > fileSize-int64(off) {
			return regions{}, fmt.Errorf("%w: vhdx region %s (%d bytes at %d) is not in whole MiB behind the headers and within the file (%d bytes)", formats.ErrCorrupt, id, length, off, fileSize)
		}
		s := span{int64(off), int64(off) + length}
		for _, other := range r.taken {
			if s.overlaps(other) {
				return regions{}, fmt.Errorf("%w: vhdx region %s (%d bytes at %d) overlaps the headers, the log or another region", formats.ErrCorrupt, id, length, off)
			}
		}
		r.taken = append(r.taken, s)
		switch {
		case id == batRegion:
			r.bat = s
		case id == metadataRegion:
			r.metadata = s
		case flags == 1:
			return regions{}, fmt.Errorf("%w: the vhdx region %s, which a reader must know", formats.ErrUnsupported, id)
		}
	}
	if r.bat.len() == 0 || r.metadata.len() == 0 {
		return regions{}, fmt.Errorf("%w: the vhdx region table names no BAT or no metadata region", formats.ErrCorrupt)
	}
	slices.SortFunc(r.taken, func(a, b span) int { return cmp.Compare(a.begin, b.begin) })
	return r, nil
}
