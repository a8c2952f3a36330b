package vhdx

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"glanced/formats"
)

// The metadata region, "Metadata Region" (2.6).
const (
	metadataSignature = "metadata"
	metadataTable     = 64 * kib // bytes; the items lie behind it
	maxItem           = 1 * mib  // bytes

	fileParameters = guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
	diskSize       = guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
	diskID         = guid("beca12ab-b2e6-4523-93ef-c309e000c746")
	logicalSector  = guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
	physicalSector = guid("cda348c7-445d-4471-9cc9-e9885251c556")
	parentLocator  = guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
)

// Flags of a metadata table entry (2.6.1.2).
const (
	itemIsUser = 1 << iota
	itemIsVirtualDisk
	itemIsRequired
	itemFlags = itemIsUser | itemIsVirtualDisk | itemIsRequired
)

// metadata is the metadata table: where the items of this specification lie.
type metadata struct {
	v     *view
	items map[guid]span
}

// readMetadata reads the metadata table in region.
func readMetadata(ctx context.Context, v *view, region span) (*metadata, error) {
	b := make([]byte, metadataTable) // a region has at least 1 MiB
	if err := v.ReadAt(ctx, b, region.begin); err != nil {
		return nil, fmt.Errorf("read the vhdx metadata table: %w", err)
	}
	le := binary.LittleEndian
	if string(b[:8]) != metadataSignature {
		return nil, fmt.Errorf("%w: the vhdx metadata table has no signature", formats.ErrCorrupt)
	}
	n := int(le.Uint16(b[10:]))
	if n > maxTableEntries {
		return nil, fmt.Errorf("%w: a vhdx metadata table of %d entries (at most %d)", formats.ErrCorrupt, n, maxTableEntries)
	}
	m := &metadata{v: v, items: make(map[guid]span)}
	for i := range n {
		e := b[32*(i+1):][:32]
		id, off, length, flags := parseGUID(e), int64(le.Uint32(e[16:])), int64(le.Uint32(e[20:])), le.Uint32(e[24:])
		if flags&^itemFlags != 0 {
			return nil, fmt.Errorf("%w: vhdx metadata item %s has reserved flags (%#x)", formats.ErrCorrupt, id, flags)
		}
		if flags&itemIsUser != 0 || !known(id) {
			if flags&itemIsRequired != 0 {
				return nil, fmt.Errorf("%w: the vhdx metadata item %s, which a reader must know", formats.ErrUnsupported, id)
			}
			continue
		}
		if _, twice := m.items[id]; twice {
			return nil, fmt.Errorf("%w: vhdx metadata item %s is listed twice", formats.ErrCorrupt, id)
		}
		if off < metadataTable || length > maxItem || off > region.len()-length {
			return nil, fmt.Errorf("%w: vhdx metadata item %s (%d bytes at %d) is not within its region, behind the table", formats.ErrCorrupt, id, length, off)
		}
		s := span{region.begin + off, region.begin + off + length}
		for other, t := range m.items {
			if s.overlaps(t) {
				return nil, fmt.Errorf("%w: vhdx metadata items %s and %s overlap", formats.ErrCorrupt, id, other)
			}
		}
		m.items[id] = s
	}
	return m, nil
}

func known(id guid) bool {
	switch id {
	case fileParameters, diskSize, diskID, logicalSector, physicalSector, parentLocator:
		return true
	}
	return false
}

// item reads a required item, which has at least atLeast bytes.
func (m *metadata) item(ctx context.Context, id guid, what string, atLeast int64) ([]byte, error) {
	s, ok := m.items[id]
	if !ok {
		return nil, fmt.Errorf("%w: the vhdx metadata has no %s (item %s)", formats.ErrCorrupt, what, id)
	}
	if s.len() < atLeast {
		return nil, fmt.Errorf("%w: the vhdx metadata's %s has %d bytes instead of %d", formats.ErrCorrupt, what, s.len(), atLeast)
	}
	b := make([]byte, s.len())
	if err := m.v.ReadAt(ctx, b, s.begin); err != nil {
		return nil, fmt.Errorf("read the vhdx metadata's %s: %w", what, err)
	}
	return b, nil
}

// maxDisk is the largest disk that the format has (2.6.2.2), bytes.
const maxDisk = 64 << 40

// params are the numbers that the map is made of, each checked.
type params struct {
	size       int64 // virtual size, bytes; a multiple of sectorSize
	sectorSize int64 // of the guest, 512 or 4096
	blockSize  int64 // bytes, a power of two from 1 to 256 MiB
	blockShift uint  // blockSize == 1<<blockShift
	chunkRatio int64 // blocks of one sector bitmap block
	hasParent  bool
	allocated  bool // "LeaveBlockAllocated": a fixed disk
}

// params reads the items that every file must have.
func (m *metadata) params(ctx context.Context) (params, error) {
	var p params
	le := binary.LittleEndian
	file, err := m.item(ctx, fileParameters, "file parameters", 8)
	if err != nil {
		return p, err
	}
	size, err := m.item(ctx, diskSize, "virtual disk size", 8)
	if err != nil {
		return p, err
	}
	if _, err := m.item(ctx, diskID, "virtual disk id", 16); err != nil {
		return p, err
	}
	logical, err := m.item(ctx, logicalSector, "logical sector size", 4)
	if err != nil {
		return p, err
	}
	physical, err := m.item(ctx, physicalSector, "physical sector size", 4)
	if err != nil {
		return p, err
	}
	for _, n := range []uint32{le.Uint32(logical), le.Uint32(physical)} {
		if n != 512 && n != 4096 {
			return p, fmt.Errorf("%w: vhdx sectors of %d bytes (512 and 4096 are known)", formats.ErrCorrupt, n)
		}
	}
	p.sectorSize = int64(le.Uint32(logical))

	block, flags := le.Uint32(file), le.Uint32(file[4:])
	if block < mib || block > 256*mib || bits.OnesCount32(block) != 1 {
		return p, fmt.Errorf("%w: vhdx blocks of %d bytes (a power of two from 1 to 256 MiB)", formats.ErrCorrupt, block)
	}
	if flags&^3 != 0 {
		return p, fmt.Errorf("%w: reserved vhdx file parameters (%#x)", formats.ErrCorrupt, flags)
	}
	p.blockSize, p.blockShift = int64(block), uint(bits.TrailingZeros32(block))
	p.chunkRatio = p.sectorSize << 23 / p.blockSize
	p.allocated, p.hasParent = flags&1 != 0, flags&2 != 0

	n := le.Uint64(size)
	if n > maxDisk || n%uint64(p.sectorSize) != 0 {
		return p, fmt.Errorf("%w: a vhdx disk of %d bytes (whole sectors of %d, at most %d)", formats.ErrCorrupt, n, p.sectorSize, int64(maxDisk))
	}
	p.size = int64(n)
	return p, nil
}

// blocks is how many payload blocks the disk has.
func (p *params) blocks() int64 { return (p.size + p.blockSize - 1) / p.blockSize }

// batEntries is how many entries of the BAT the disk needs ("BAT", 2.5).
func (p *params) batEntries() int64 {
	blocks := p.blocks()
	if blocks == 0 {
		return 0
	}
	if p.hasParent { // up to the last chunk's sector bitmap
		return (blocks + p.chunkRatio - 1) / p.chunkRatio * (p.chunkRatio + 1)
	}
	return blocks + (blocks-1)/p.chunkRatio
}

// batIndex is the number of a payload block's entry in the BAT, which has those of
// sector bitmaps in between.
func (p *params) batIndex(block int64) int64 { return block + block/p.chunkRatio }

// variant names the kind of file.
func (p *params) variant() string {
	kind := "dynamic"
	switch {
	case p.hasParent:
		kind = "differencing"
	case p.allocated:
		kind = "fixed"
	}
	if p.sectorSize != 512 {
		kind += fmt.Sprintf(", %d-byte sectors", p.sectorSize)
	}
	return kind
}
