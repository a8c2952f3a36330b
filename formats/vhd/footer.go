package vhd

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

const (
	footerCookie = "conectix"
	footerBytes  = 512
	// oldFooterBytes is the footer's length in images made by versions before
	// Virtual PC 2004 ("Hard Disk Footer Format"); what is missing is reserved.
	oldFooterBytes = 511
)

// Disk types ("Disk Type"); 0, 1, 5 and 6 are reserved or deprecated.
const (
	kindFixed        = 2
	kindDynamic      = 3
	kindDifferencing = 4
)

const (
	// knownFeatures: 1 = temporary disk, which may be deleted on shutdown and
	// reads as any other; 2 = reserved, always set.
	knownFeatures = 3
	// maxGeometry is the largest geometry there is, in sectors: 65535 cylinders,
	// 16 heads, 255 sectors a track ("CHS Calculation"). It says no more than
	// that the disk is at least so large.
	maxGeometry = 65535 * 16 * 255
	// maxSectors is a disk of 2040 GiB, the most that Hyper-V and qemu allow.
	maxSectors = 0xff000000
)

// footer is what the hard disk footer says of the disk. Two footers agree when
// these are equal. Left out are what says nothing of the content: times, the
// creator's version and host, the original size, and the saved state, which
// forbids to compact and to expand the disk ("Saved State"), not to read it.
type footer struct {
	features, version uint32
	dataOff           uint64 // of the dynamic disk header, bytes; all ones in a fixed disk
	app               [4]byte
	size              uint64 // current size, bytes
	cylinders         uint16
	heads, track      uint8 // track: sectors a track
	kind              uint32
	id                [16]byte
}

// footerAt is where in the last 512 bytes of a file its footer begins; -1 if
// there is none.
func footerAt(tail []byte) int {
	for _, n := range []int{footerBytes, oldFooterBytes} {
		if at := len(tail) - n; at >= 0 && bytes.HasPrefix(tail[at:], []byte(footerCookie)) {
			return at
		}
	}
	return -1
}

// readFooter reads the footer at the end, and says where it begins. A dynamic or
// differencing disk begins with a copy of it, and a fixed disk does not.
//
// The specification makes the copy a spare, and the footer at the end the one
// that counts; qemu reads the copy, and the end only where there is none. So an
// image whose two footers disagree would be two disks, depending on who reads it
// (a guest can write a copy into the first sector of its fixed disk), and is
// refused, as is one that lacks either: it is cut off, or has bytes added.
func readFooter(ctx context.Context, src stored.Bytes) (footer, int64, error) {
	head, tail := make([]byte, min(footerBytes, src.Size())), make([]byte, min(footerBytes, src.Size()))
	if err := src.ReadAt(ctx, head, 0); err != nil {
		return footer{}, 0, fmt.Errorf("read the vhd's first %d bytes: %w", len(head), err)
	}
	if err := src.ReadAt(ctx, tail, src.Size()-int64(len(tail))); err != nil {
		return footer{}, 0, fmt.Errorf("read the vhd's last %d bytes: %w", len(tail), err)
	}
	hasCopy, at := bytes.HasPrefix(head, []byte(footerCookie)), footerAt(tail)
	switch {
	case !hasCopy && at < 0:
		return footer{}, 0, fmt.Errorf("%w: no vhd footer at the end, and no copy of one at the beginning", formats.ErrFormat)
	case at < 0:
		return footer{}, 0, fmt.Errorf("%w: the vhd begins with a copy of its footer, and does not end in the footer; it is cut off, or has bytes added", formats.ErrCorrupt)
	}
	f, err := parseFooter(tail[at:])
	if err != nil {
		return footer{}, 0, fmt.Errorf("the vhd's footer at the end: %w", err)
	}
	switch {
	case hasCopy && f.kind == kindFixed:
		return footer{}, 0, fmt.Errorf("%w: a vhd that ends as a fixed disk and begins as a dynamic one", formats.ErrCorrupt)
	case !hasCopy && f.kind != kindFixed:
		return footer{}, 0, fmt.Errorf("%w: the vhd does not begin with a copy of its footer", formats.ErrCorrupt)
	case hasCopy:
		spare, err := parseFooter(head)
		if err != nil {
			return footer{}, 0, fmt.Errorf("the copy of the vhd's footer: %w", err)
		}
		if spare != f {
			return footer{}, 0, fmt.Errorf("%w: the vhd's footer and its copy at the beginning contradict each other", formats.ErrCorrupt)
		}
	}
	return f, src.Size() - int64(len(tail)-at), nil
}

// parseFooter reads a footer of 511 or 512 bytes that begins with its cookie.
func parseFooter(b []byte) (footer, error) {
	be := binary.BigEndian
	if len(b) < oldFooterBytes {
		return footer{}, fmt.Errorf("%w: it is cut off after %d bytes", formats.ErrCorrupt, len(b))
	}
	if want, got := checksum(b, 64), be.Uint32(b[64:]); want != got {
		return footer{}, fmt.Errorf("%w: its checksum is %#x, and should be %#x", formats.ErrCorrupt, got, want)
	}
	return footer{
		features:  be.Uint32(b[8:]),
		version:   be.Uint32(b[12:]),
		dataOff:   be.Uint64(b[16:]),
		app:       [4]byte(b[28:]),
		size:      be.Uint64(b[48:]),
		cylinders: be.Uint16(b[56:]),
		heads:     b[58],
		track:     b[59],
		kind:      be.Uint32(b[60:]),
		id:        [16]byte(b[68:]),
	}, nil
}

// checksum is the one's complement of the sum of all bytes but the four at at,
// where it is kept ("Checksum").
func checksum(b []byte, at int) uint32 {
	var sum uint32
	for i, c := range b {
		if i < at || i >= at+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

func (f *footer) variant() string {
	switch f.kind {
	case kindFixed:
		return "fixed"
	case kindDynamic:
		return "dynamic"
	case kindDifferencing:
		return "differencing"
	}
	return fmt.Sprintf("type %d", f.kind)
}

func (f *footer) check() error {
	switch {
	case f.version>>16 != 1: // the low half is the minor version
		return fmt.Errorf("%w: vhd version %#x (1.0 is known)", formats.ErrUnsupported, f.version)
	case f.features&^knownFeatures != 0:
		return fmt.Errorf("%w: unknown vhd features %#x", formats.ErrUnsupported, f.features)
	case f.kind != kindFixed && f.kind != kindDynamic && f.kind != kindDifferencing:
		return fmt.Errorf("%w: vhd disk type %d (2 to 4 are known)", formats.ErrUnsupported, f.kind)
	}
	return nil
}

// diskSize is the size that the guest sees, in bytes: a multiple of a sector.
//
// Virtual PC shows a guest no more than the geometry holds, which is less than
// the current size; Hyper-V and everyone since shows the current size. So it
// depends on who made the image: Virtual PC, Virtual Server, and qemu, which
// follows them unless told to keep the size (and then calls itself qem2). qemu 10
// goes by the current size for all creators but "vpc " and "qemu"; those before
// went by the geometry for all creators they did not know.
func (f *footer) diskSize() (int64, error) {
	sectors := f.size / sector
	switch string(f.app[:]) {
	case "vpc ", "vs  ", "qemu":
		geometry := uint64(f.cylinders) * uint64(f.heads) * uint64(f.track)
		if geometry == 0 && sectors > 0 {
			return 0, fmt.Errorf("%w: a vhd of %d bytes whose geometry has none", formats.ErrCorrupt, f.size)
		}
		if geometry != maxGeometry {
			sectors = geometry
		}
	}
	if sectors > maxSectors {
		return 0, fmt.Errorf("%w: a vhd of %d sectors, more than 2040 GiB", formats.ErrLimit, sectors)
	}
	return int64(sectors) * sector, nil
}
