package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Limits on what a header may ask for.
const (
	maxSize      = 64 << 40 // bytes; VMware's own limit is 62 TB
	minGrain     = 8        // sectors, "Hosted Sparse Extent Header": a power of two, 4 KiB or more
	maxGrain     = 4096     // sectors; VMware writes 128. One grain is decoded whole, so it is bounded as a qcow2 cluster is
	maxTableLen  = 512      // entries of a grain table; what VMware always writes, and qemu's limit
	maxDirectory = 16 << 20 // bytes of a grain directory; 64 TiB of VMware's grains and tables take 8 MiB
)

// Bits of header.flags. The low half may be ignored by who does not know it; an
// unknown bit in the high half changes what the file means.
const (
	flagNewlines   = 1 << 0 // the newline test bytes are valid
	flagRedundant  = 1 << 1 // rgdOffset is valid
	flagZeroGrains = 1 << 2 // a grain table entry of 1 is a grain of zeros
	flagCompressed = 1 << 16
	flagMarkers    = 1 << 17
	knownHighFlags = flagCompressed | flagMarkers
)

const (
	atEnd       = ^uint64(0) // gdOffset: the footer says where
	deflate     = 1          // compressAlgorithm (the data is zlib, RFC 1950)
	markerEnd   = 0          // marker type: end of stream
	markerFoot  = 3          // marker type: the footer follows
	headerBytes = 79         // fields of the header; the rest of its sector is padding
)

// newlines is what the newline test bytes hold when no text-mode transfer has
// changed them.
const newlines = "\n \r\n"

// header is SparseExtentHeader ("Hosted Sparse Extent Header"). Offsets and sizes
// are in sectors. Two headers are equal when their fields are.
type header struct {
	version, flags                uint32
	capacity, grainSize           uint64
	descriptorOff, descriptorSize uint64
	tableLen                      uint32 // numGTEsPerGT
	rgdOff, gdOff                 uint64
	overhead                      uint64
	unclean                       byte
	newlines                      [4]byte
	compression                   uint16
}

func parseHeader(b []byte) (header, error) {
	if len(b) < sector {
		return header{}, fmt.Errorf("%w: the vmdk header is cut off after %d bytes", formats.ErrCorrupt, len(b))
	}
	le := binary.LittleEndian
	return header{
		version:        le.Uint32(b[4:]),
		flags:          le.Uint32(b[8:]),
		capacity:       le.Uint64(b[12:]),
		grainSize:      le.Uint64(b[20:]),
		descriptorOff:  le.Uint64(b[28:]),
		descriptorSize: le.Uint64(b[36:]),
		tableLen:       le.Uint32(b[44:]),
		rgdOff:         le.Uint64(b[48:]),
		gdOff:          le.Uint64(b[56:]),
		overhead:       le.Uint64(b[64:]),
		unclean:        b[72],
		newlines:       [4]byte(b[73:77]),
		compression:    le.Uint16(b[77:headerBytes]),
	}, nil
}

// readHeader parses and checks a header. It fails where the arithmetic on sizes
// would not hold.
func readHeader(b []byte) (header, error) {
	h, err := parseHeader(b)
	if err == nil && (h.version < 1 || h.version > 3) {
		err = fmt.Errorf("%w: vmdk version %d (1 to 3 are known)", formats.ErrUnsupported, h.version)
	}
	if err == nil {
		err = h.check()
	}
	return h, err
}

func (h *header) has(flag uint32) bool { return h.flags&flag != 0 }

// size is the guest disk's, in bytes; of a checked header.
func (h *header) size() int64 { return int64(h.capacity) * sector }

// grain is the size of a grain in bytes; of a checked header.
func (h *header) grain() int64 { return int64(h.grainSize) * sector }

// check refuses what no writer writes and what would be unbounded; after it, the
// arithmetic on sizes cannot overflow. The places are checked where they are used.
func (h *header) check() error {
	switch {
	case h.has(flagNewlines) && string(h.newlines[:]) != newlines:
		return fmt.Errorf("%w: the newline test bytes are %q, so the vmdk went through a text-mode transfer; copy it again", formats.ErrCorrupt, h.newlines[:])
	case h.capacity > maxSize/sector:
		return fmt.Errorf("%w: vmdk capacity of %d sectors, more than 64 TiB", formats.ErrLimit, h.capacity)
	case h.grainSize < minGrain || h.grainSize > maxGrain || h.grainSize&(h.grainSize-1) != 0:
		return fmt.Errorf("%w: vmdk grain size of %d sectors; it must be a power of two from %d to %d", formats.ErrCorrupt, h.grainSize, minGrain, maxGrain)
	case h.tableLen < 1 || h.tableLen > maxTableLen:
		return fmt.Errorf("%w: vmdk grain tables of %d entries; it must be 1 to %d", formats.ErrCorrupt, h.tableLen, maxTableLen)
	case h.flags>>16&^(knownHighFlags>>16) != 0:
		return fmt.Errorf("%w: unknown vmdk flags %#x", formats.ErrUnsupported, h.flags)
	case h.compression > deflate:
		return fmt.Errorf("%w: vmdk compression method %d", formats.ErrUnsupported, h.compression)
	case h.has(flagCompressed) != (h.compression == deflate):
		return fmt.Errorf("%w: vmdk flags %#x and compression method %d contradict each other", formats.ErrCorrupt, h.flags, h.compression)
	case h.has(flagCompressed) && !h.has(flagMarkers):
		return fmt.Errorf("%w: compressed vmdk grains without markers, which no tool is known to write", formats.ErrUnsupported)
	case h.tables()*4 > maxDirectory:
		return fmt.Errorf("%w: a vmdk grain directory of %d entries", formats.ErrLimit, h.tables())
	}
	return nil
}

// checkDescriptor demands that the descriptor lies within a file of so many bytes.
func (h *header) checkDescriptor(fileSize int64) error {
	switch {
	case h.descriptorSize > maxDescriptor/sector:
		return fmt.Errorf("%w: a vmdk descriptor of %d sectors, more than 1 MiB", formats.ErrCorrupt, h.descriptorSize)
	case h.descriptorOff > uint64(fileSize/sector) || int64(h.descriptorOff+h.descriptorSize)*sector > fileSize:
		return fmt.Errorf("%w: the vmdk descriptor (sectors %d and %d more) passes the end of the file (%d bytes)", formats.ErrCorrupt, h.descriptorOff, h.descriptorSize, fileSize)
	}
	return nil
}

// tableBytes is the length of a grain table.
func (h *header) tableBytes() int { return int(h.tableLen) * 4 }

// tableSpan is how many bytes of the guest disk one grain table maps.
func (h *header) tableSpan() int64 { return h.grain() * int64(h.tableLen) }

// tables is the number of entries of the grain directory.
func (h *header) tables() int64 { return (h.size() + h.tableSpan() - 1) / h.tableSpan() }

// readFooter replaces the grain directory's place by the footer's, where the
// header leaves it to the footer: the file then ends in three sectors, a footer
// marker, the footer and an end-of-stream marker ("Stream-Optimized Compressed
// Sparse Extents"). A footer that says anything else than the header is refused:
// it is how an image shows one disk to a checker and another to its user.
func (h *header) readFooter(ctx context.Context, src stored.Bytes) error {
	if h.gdOff != atEnd {
		return nil
	}
	end := (src.Size() + sector - 1) / sector * sector // a cut-off last sector is no end-of-stream marker
	if end != src.Size() || end < 4*sector {
		return fmt.Errorf("%w: the vmdk should end in a footer, and is %d bytes long: not whole sectors, or too short", formats.ErrCorrupt, src.Size())
	}
	b := make([]byte, 3*sector)
	if err := src.ReadAt(ctx, b, end-3*sector); err != nil {
		return fmt.Errorf("read the vmdk footer: %w", err)
	}
	if !isMarker(b[:sector], markerFoot) || !bytes.HasPrefix(b[sector:], []byte(hostedMagic)) || !isMarker(b[2*sector:], markerEnd) {
		return fmt.Errorf("%w: the vmdk does not end in a footer; it is cut off, or has bytes added", formats.ErrCorrupt)
	}
	foot, err := parseHeader(b[sector : 2*sector])
	if err != nil {
		return err
	}
	want := *h
	want.gdOff = foot.gdOff
	if h.rgdOff == atEnd { // VirtualBox leaves both to the footer
		want.rgdOff = foot.rgdOff
	}
	if foot != want {
		return fmt.Errorf("%w: the vmdk's footer contradicts its header", formats.ErrCorrupt)
	}
	*h = foot
	return nil
}

// isMarker reports whether b begins with a metadata marker of this type (u64
// value, u32 size = 0, u32 type; "Markers"). The value is how many sectors
// follow: 1 for a footer in the note, and not kept to by every writer.
func isMarker(b []byte, kind uint32) bool {
	return binary.LittleEndian.Uint32(b[8:]) == 0 && binary.LittleEndian.Uint32(b[12:]) == kind &&
		(kind != markerEnd || binary.LittleEndian.Uint64(b) == 0)
}
