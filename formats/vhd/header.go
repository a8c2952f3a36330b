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
	headerCookie = "cxsparse"
	headerBytes  = 1024
	// minBlock and maxBlock bound the block size, bytes. Writers use 512 KiB and
	// 2 MiB; a smaller one makes more metadata of a disk than we would hold.
	minBlock = 16 << 10
	maxBlock = 256 << 20
)

// header is the dynamic disk header ("Dynamic Disk Header Format").
type header struct {
	at         int64 // where it lies, bytes
	tableOff   uint64
	version    uint32
	entries    uint32 // of the BAT
	block      int64  // block size, bytes
	parentID   [16]byte
	parentName []byte // UTF-16, 512 bytes
	locators   [8]locator
}

// locator says where the file has the parent's name for one platform ("Parent
// Locator Entries").
type locator struct {
	platform uint32 // 0 = none
	length   uint32 // bytes
	off      uint64 // bytes
}

// span is a range of bytes of the file.
type span struct{ begin, end int64 }

// readHeader reads the header at off of a file whose footer begins at end.
func readHeader(ctx context.Context, src stored.Bytes, off uint64, end int64) (header, error) {
	if off < footerBytes || end < headerBytes || off > uint64(end-headerBytes) {
		return header{}, fmt.Errorf("%w: the vhd's dynamic disk header is said to be at %d, which is not between its footers (%d bytes)", formats.ErrCorrupt, off, end)
	}
	b := make([]byte, headerBytes)
	if err := src.ReadAt(ctx, b, int64(off)); err != nil {
		return header{}, fmt.Errorf("read the vhd's dynamic disk header: %w", err)
	}
	if !bytes.HasPrefix(b, []byte(headerCookie)) {
		return header{}, fmt.Errorf("%w: no dynamic disk header at %d of the vhd", formats.ErrCorrupt, off)
	}
	be := binary.BigEndian
	if want, got := checksum(b, 36), be.Uint32(b[36:]); want != got {
		return header{}, fmt.Errorf("%w: the checksum of the vhd's dynamic disk header is %#x, and should be %#x", formats.ErrCorrupt, got, want)
	}
	h := header{
		at:         int64(off),
		tableOff:   be.Uint64(b[16:]),
		version:    be.Uint32(b[24:]),
		entries:    be.Uint32(b[28:]),
		block:      int64(be.Uint32(b[32:])),
		parentID:   [16]byte(b[40:]),
		parentName: b[64:576],
	}
	for i := range h.locators {
		l := b[576+24*i:]
		h.locators[i] = locator{platform: be.Uint32(l), length: be.Uint32(l[8:]), off: be.Uint64(l[16:])}
	}
	return h, nil
}

// check refuses what cannot map a disk of size bytes in a file whose footer
// begins at end; after it, the arithmetic on these fields cannot overflow.
func (h *header) check(size, end int64) error {
	if h.version>>16 != 1 {
		return fmt.Errorf("%w: vhd dynamic disk header version %#x (1.0 is known)", formats.ErrUnsupported, h.version)
	}
	if h.block < sector || h.block&(h.block-1) != 0 {
		return fmt.Errorf("%w: vhd block size of %d bytes; it must be a power of two of sectors", formats.ErrCorrupt, h.block)
	}
	if h.block < minBlock || h.block > maxBlock {
		return fmt.Errorf("%w: vhd block size of %d bytes; %d to %d are read", formats.ErrLimit, h.block, minBlock, maxBlock)
	}
	if int64(h.entries) < h.blocks(size) {
		return fmt.Errorf("%w: the vhd's BAT has %d entries, too few for a disk of %d bytes", formats.ErrCorrupt, h.entries, size)
	}
	n := 4 * int64(h.entries)
	if h.tableOff > uint64(end) || n > end-int64(h.tableOff) {
		return fmt.Errorf("%w: the vhd's BAT (%d bytes at %d) is not before its footer (at %d)", formats.ErrCorrupt, n, h.tableOff, end)
	}
	bat := span{int64(h.tableOff), int64(h.tableOff) + n}
	if n > 0 && (bat.overlaps(span{0, footerBytes}) || bat.overlaps(span{h.at, h.at + headerBytes})) {
		return fmt.Errorf("%w: the vhd's BAT at %d overlaps its headers", formats.ErrCorrupt, h.tableOff)
	}
	return nil
}

// metadata is where no block may lie; of a checked header.
func (h *header) metadata() []span {
	return []span{
		{0, footerBytes},
		{h.at, h.at + headerBytes},
		{int64(h.tableOff), int64(h.tableOff) + 4*int64(h.entries)},
	}
}

// blocks is how many blocks a disk of size bytes has.
func (h *header) blocks(size int64) int64 { return (size + h.block - 1) / h.block }

// bitmap is the size of a block's sector bitmap, bytes, its padding included.
func (h *header) bitmap() int64 {
	n := h.block / sector / 8
	return (n + sector - 1) / sector * sector
}

func (s span) overlaps(o span) bool { return s.begin < o.end && o.begin < s.end }
