package vdi

import (
	"encoding/binary"
	"fmt"

	"glanced/formats"
)

const (
	sector    = 512        // bytes
	version11 = 0x00010001 // major version in the high half
	headerEnd = 456        // of VDIPREHEADER (72 bytes) and VDIHEADER1 (384)
	// headerBytes is the least that the header may say of its own length: VDIHEADER1.
	headerBytes = 384

	// Blocks of these many bytes are what VirtualBox opens (it makes 512 KiB to
	// 8 MiB, mostly 1 MiB; qemu reads and writes 1 MiB only).
	minBlock = 128 << 10
	maxBlock = 128 << 20

	// maxBlocks is the most that qemu takes: entries of a block map of 4 GiB.
	maxBlocks = 1<<30 - 1

	// knownFlags are those that VirtualBox takes (VD_VDI_IMAGE_FLAGS_MASK, eight
	// bits down): new blocks are filled with zeros (bit 0); fixed (bit 8) and
	// differencing (bit 9), which repeat the type. None changes what is read.
	knownFlags = 1<<0 | 1<<8 | 1<<9
)

// kind is VDIIMAGETYPE.
type kind uint32

const (
	dynamic      kind = 1
	static       kind = 2
	undo         kind = 3
	differencing kind = 4
)

func (k kind) String() string {
	switch k {
	case dynamic:
		return "dynamic"
	case static:
		return "static"
	case undo:
		return "undo"
	case differencing:
		return "differencing"
	}
	return fmt.Sprintf("kind(%d)", uint32(k))
}

// secondary reports whether such an image lies above another one.
func (k kind) secondary() bool { return k == undo || k == differencing }

// header is VDIPREHEADER and VDIHEADER1. Offsets and sizes are in bytes.
type header struct {
	version    uint32
	length     uint32 // cbHeader
	kind       kind
	flags      uint32
	mapOff     uint32 // offBlocks
	dataOff    uint32
	sectorSize uint32 // of the legacy geometry
	diskSize   uint64
	blockSize  uint32
	blockExtra uint32
	blocks     uint32 // entries of the block map
	created    uuid
	link       uuid // the parent's created
}

// parseHeader takes the first headerEnd bytes.
func parseHeader(b []byte) header {
	le := binary.LittleEndian
	return header{
		version:    le.Uint32(b[68:]),
		length:     le.Uint32(b[72:]),
		kind:       kind(le.Uint32(b[76:])),
		flags:      le.Uint32(b[80:]),
		mapOff:     le.Uint32(b[340:]),
		dataOff:    le.Uint32(b[344:]),
		sectorSize: le.Uint32(b[360:]),
		diskSize:   le.Uint64(b[368:]),
		blockSize:  le.Uint32(b[376:]),
		blockExtra: le.Uint32(b[380:]),
		blocks:     le.Uint32(b[384:]),
		created:    uuid(b[392:408]),
		link:       uuid(b[424:440]),
	}
}

// size is the guest disk's, in bytes; of a checked header. VBoxManage
// convertfromraw makes images of any number of bytes, and fills up their last
// block: whole sectors are read, as by qemu.
func (h *header) size() int64 { return int64((h.diskSize + sector - 1) / sector * sector) }

// stride is how far one block's data lies from the next one's in the file.
func (h *header) stride() int64 { return int64(h.blockExtra) + int64(h.blockSize) }

// check refuses what no writer writes and what would be unbounded, in a file of
// srcSize bytes; after it, the arithmetic on sizes cannot overflow.
func (h *header) check(srcSize int64) error {
	mapEnd := int64(h.mapOff) + 4*int64(h.blocks)
	switch {
	case h.length < headerBytes:
		return fmt.Errorf("%w: a vdi header of %d bytes; it has %d at least", formats.ErrCorrupt, h.length, headerBytes)
	case h.kind < dynamic || h.kind > differencing:
		return fmt.Errorf("%w: vdi image type %d", formats.ErrUnsupported, uint32(h.kind))
	case h.flags&^knownFlags != 0:
		return fmt.Errorf("%w: unknown vdi flags %#x", formats.ErrUnsupported, h.flags)
	case h.sectorSize != sector:
		return fmt.Errorf("%w: vdi sectors of %d bytes; only 512 are known", formats.ErrUnsupported, h.sectorSize)
	case h.blockSize == 0 || h.blockSize&(h.blockSize-1) != 0:
		return fmt.Errorf("%w: vdi blocks of %d bytes; it must be a power of two", formats.ErrCorrupt, h.blockSize)
	case h.blockSize < minBlock || h.blockSize > maxBlock:
		return fmt.Errorf("%w: vdi blocks of %d bytes; VirtualBox has 128 KiB to 128 MiB", formats.ErrUnsupported, h.blockSize)
	case h.blockExtra&(h.blockExtra-1) != 0 || h.blockExtra%sector != 0 || h.blockExtra > h.blockSize:
		return fmt.Errorf("%w: %d extra bytes before each vdi block of %d; it must be a power of two of whole sectors, and no more than the block", formats.ErrCorrupt, h.blockExtra, h.blockSize)
	case h.blocks > maxBlocks:
		return fmt.Errorf("%w: a vdi image of %d blocks, more than %d", formats.ErrLimit, h.blocks, maxBlocks)
	case h.diskSize > uint64(h.blocks)*uint64(h.blockSize):
		return fmt.Errorf("%w: a vdi disk of %d bytes does not fit into %d blocks of %d", formats.ErrCorrupt, h.diskSize, h.blocks, h.blockSize)
	case h.mapOff%sector != 0 || h.dataOff%sector != 0:
		return fmt.Errorf("%w: the vdi block map at %d or the data at %d do not begin at whole sectors", formats.ErrUnsupported, h.mapOff, h.dataOff)
	case h.mapOff < headerEnd:
		return fmt.Errorf("%w: the vdi block map at %d overlaps the header", formats.ErrCorrupt, h.mapOff)
	case int64(h.dataOff) < mapEnd:
		return fmt.Errorf("%w: the vdi data at %d overlaps the block map, which ends at %d", formats.ErrCorrupt, h.dataOff, mapEnd)
	case mapEnd > srcSize:
		return fmt.Errorf("%w: the vdi block map ends at %d, past the end of the file (%d bytes)", formats.ErrCorrupt, mapEnd, srcSize)
	}
	return nil
}
