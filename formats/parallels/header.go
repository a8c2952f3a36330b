package parallels

import (
	"encoding/binary"
	"fmt"
	"math"

	"glanced/formats"
)

const (
	sector      = 512 // bytes
	headerBytes = 64  // the BAT follows

	// maxTracks bounds a cluster, in sectors, as qemu does: just under 2 GiB.
	maxTracks = math.MaxInt32 / 513
)

// Values of header.inUse. The document allows no others, and Parallels Desktop
// writes others, such as "pd17" (0x37316470), into images that are closed: so all
// but stillInUse are taken for closed, as qemu does.
const (
	closedOld  = 0          // by software that knows no Format Extension
	stillInUse = 0x746f6e59 // "Yton"
)

// Bits of header.flags.
const (
	flagEmpty = 1 << 0 // nothing was ever written
	// flagConvert is not in the document: OpenVZ sets it while it rewrites the BAT
	// of one version as that of the other (CIF_FmtVersionConvert).
	flagConvert = 1 << 1
)

// header is the document's "Header".
type header struct {
	v2      bool
	version uint32
	tracks  uint32 // sectors of a cluster
	entries uint32 // of the BAT
	sectors uint64 // of the guest disk
	inUse   uint32
	dataOff uint32 // sectors; 0 in v1: right after the BAT
	flags   uint32
	extOff  uint64 // sectors; 0 = there is no Format Extension
}

// parseHeader takes the first headerBytes bytes.
func parseHeader(b []byte) header {
	le := binary.LittleEndian
	h := header{
		v2:      string(b[:len(magicV2)]) == magicV2,
		version: le.Uint32(b[16:]),
		tracks:  le.Uint32(b[28:]),
		entries: le.Uint32(b[32:]),
		sectors: le.Uint64(b[36:]),
		inUse:   le.Uint32(b[44:]),
		dataOff: le.Uint32(b[48:]),
		flags:   le.Uint32(b[52:]),
		extOff:  le.Uint64(b[56:]),
	}
	if !h.v2 {
		h.sectors &= math.MaxUint32 // the high half was padding, when v1 was made
	}
	return h
}

func (h *header) variant() string {
	v := "v1"
	if h.v2 {
		v = "v2"
	}
	if h.flags&flagEmpty != 0 {
		v += ", empty"
	}
	return v
}

// size is the guest disk's, in bytes; of a checked header.
func (h *header) size() int64 { return int64(h.sectors) * sector }

// cluster is the size of one, in bytes.
func (h *header) cluster() int64 { return int64(h.tracks) * sector }

// unit is what BAT entries count, in bytes.
func (h *header) unit() int64 {
	if h.v2 {
		return h.cluster()
	}
	return sector
}

// batEnd is the byte just past the BAT.
func (h *header) batEnd() int64 { return headerBytes + 4*int64(h.entries) }

// dataAt is where the data area begins, in bytes.
func (h *header) dataAt() int64 {
	if h.dataOff == 0 {
		return (h.batEnd() + sector - 1) / sector * sector
	}
	return int64(h.dataOff) * sector
}

// inDataArea says what is wrong with a cluster at this byte, if anything is
// ("Cluster offsets specified by BAT entries must …").
func (h *header) inDataArea(at int64) string {
	switch {
	case at < h.dataAt():
		return fmt.Sprintf("before the data, which begins at %d", h.dataAt())
	case (at-h.dataAt())%h.cluster() != 0:
		return fmt.Sprintf("not at a whole cluster of %d bytes after the data's beginning, %d", h.cluster(), h.dataAt())
	}
	return ""
}

// check refuses what makes no sense and what would be unbounded, in a file of
// srcSize bytes; after it, the arithmetic on sizes cannot overflow: even the most
// entries of the largest clusters are under 1<<63 bytes.
func (h *header) check(srcSize int64) error {
	switch {
	case h.tracks == 0 || h.tracks > maxTracks:
		return fmt.Errorf("%w: ploop clusters of %d sectors; it must be 1 to %d", formats.ErrCorrupt, h.tracks, maxTracks)
	case h.sectors > uint64(h.entries)*uint64(h.tracks):
		return fmt.Errorf("%w: a ploop disk of %d sectors does not fit into %d clusters of %d", formats.ErrCorrupt, h.sectors, h.entries, h.tracks)
	case h.batEnd() > srcSize:
		return fmt.Errorf("%w: the ploop BAT ends at %d, past the end of the file (%d bytes)", formats.ErrCorrupt, h.batEnd(), srcSize)
	case h.v2 && (h.dataOff == 0 || h.dataOff%h.tracks != 0):
		return fmt.Errorf("%w: the ploop data begins at sector %d, which in v2 must be a whole cluster of %d sectors, and not the first", formats.ErrCorrupt, h.dataOff, h.tracks)
	case h.dataAt() < h.batEnd():
		return fmt.Errorf("%w: the ploop data at %d overlaps the BAT, which ends at %d", formats.ErrCorrupt, h.dataAt(), h.batEnd())
	}
	return nil
}

// checkState refuses images that their last writer left unfinished.
func (h *header) checkState() error {
	switch {
	case h.flags&flagConvert != 0:
		return fmt.Errorf("%w: the ploop image is on its way from one format version to the other; let ploop finish it", formats.ErrUnsupported)
	case h.flags&^flagEmpty != 0:
		return fmt.Errorf("%w: unknown ploop flags %#x", formats.ErrUnsupported, h.flags)
	case h.inUse == stillInUse:
		return fmt.Errorf("%w: the ploop image is in use, or was not closed; stop its machine, or repair it (qemu-img check -f parallels -r all, or prl_disk_tool check)", formats.ErrCorrupt)
	}
	return nil
}
