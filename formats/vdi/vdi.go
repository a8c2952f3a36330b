// Package vdi maps VirtualBox disk images (VDI) of version 1.1: dynamic and
// static ones, and differencing ones through their parent.
//
// There is no specification. Source: VirtualBox, src/VBox/Storage/VDICore.h (the
// structures) and VDI.cpp (what is checked and how blocks are found); qemu's
// block/vdi.c for where it is stricter or reads more.
//
// What VirtualBox does with a block that a differencing image does not have is
// certain, and so it is supported: its reader looks for the whole block in the
// parent, and its writer copies what is missing from there before it allocates
// one. Of undo images it only has the name, so they are refused.
//
// Not looked for: two guest blocks that lie in one block of the file. That takes
// the whole block map at once, shows bytes of the image only, and costs a reader
// nothing.
//
// Vocabulary. Block: the unit of allocation, a power of two of bytes. Block
// extra: bytes before each block's data, of no meaning to the disk. Block map:
// for each block of the guest disk, its number in the file.
package vdi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the vdi format. Its layouts are read-only, and read the block map in
// parts, as they are needed.
func Driver() formats.Driver {
	return formats.Driver{Name: "vdi", Probe: probe, Inspect: inspect, Open: open}
}

const (
	signature   = 0xbeda107f
	signatureAt = 64 // after a text for people, which every writer words differently
)

func probe(head []byte) bool {
	return len(head) >= signatureAt+4 && binary.LittleEndian.Uint32(head[signatureAt:]) == signature
}

func inspect(ctx context.Context, src stored.Bytes) (formats.Info, error) {
	img, err := read(ctx, src)
	if err != nil {
		return formats.Info{}, err
	}
	return img.info, nil
}

func open(ctx context.Context, src stored.Bytes, o formats.Options) (formats.Layout, error) {
	if o.Snapshot != "" {
		return nil, fmt.Errorf("%w: a vdi file has no internal snapshots (asked for %q)", formats.ErrSnapshot, o.Snapshot)
	}
	img, err := read(ctx, src)
	if err != nil {
		return nil, err
	}
	l := &layout{image: img, srcSize: src.Size()}
	if err := img.info.Refused; err != nil {
		if !img.onParent {
			return nil, err
		}
		l.info.Refused = nil
	}
	begin := int64(img.h.mapOff)
	l.blocks = formats.LongTable{Tables: o.TablesOf(src), Pos: begin, End: begin + 4*int64(img.h.blocks), Each: sliceBytes}
	return l, nil
}

// image is what the header of one file says.
type image struct {
	info     formats.Info
	h        header
	onParent bool // a differencing image, and that is the one reason to refuse it
}

// read reads the header. What it finds wrong with an otherwise sensible one goes
// to info.Refused; errors of the source are its own.
func read(ctx context.Context, src stored.Bytes) (*image, error) {
	head := make([]byte, min(headerEnd, src.Size()))
	if err := src.ReadAt(ctx, head, 0); err != nil {
		return nil, fmt.Errorf("read the vdi header: %w", err)
	}
	if !probe(head) {
		return nil, fmt.Errorf("%w: no vdi signature", formats.ErrFormat)
	}
	if len(head) < headerEnd {
		return nil, fmt.Errorf("%w: the vdi header is cut off after %d bytes", formats.ErrCorrupt, len(head))
	}
	img := &image{info: formats.Info{Format: "vdi"}, h: parseHeader(head)}
	err := img.take(src.Size())
	if errors.Is(err, formats.ErrCorrupt) {
		return nil, err
	}
	img.info.Refused = err
	return img, nil
}

// take checks the header and says in info what it means.
func (img *image) take(srcSize int64) error {
	h := &img.h
	if h.version != version11 {
		return fmt.Errorf("%w: vdi version %d.%d (1.1 is known)", formats.ErrUnsupported, h.version>>16, h.version&0xffff)
	}
	if err := h.check(srcSize); err != nil {
		return err
	}
	img.info.Variant = h.kind.String()
	img.info.VirtualSize = h.size()
	img.info.ClusterSize = int64(h.blockSize)
	if h.created != (uuid{}) {
		img.info.Identity = h.created.String()
	}

	if h.link == (uuid{}) {
		if h.kind.secondary() {
			return fmt.Errorf("%w: a vdi image of the type %s names no parent", formats.ErrCorrupt, h.kind)
		}
		return nil
	}
	ref := formats.Ref{Kind: formats.RefParent, Name: h.link.String(), Format: "vdi", Identity: h.link.String()}
	img.info.Refs = []formats.Ref{ref}
	switch h.kind {
	case differencing:
		img.onParent = true
		return fmt.Errorf("%w: a vdi differencing image, whose parent has the UUID %s", formats.ErrReference, ref.Name)
	case undo:
		return fmt.Errorf("%w: a vdi undo image of the disk with the UUID %s; no VirtualBox reads these, so what it means is not known", formats.ErrReference, ref.Name)
	default:
		return fmt.Errorf("%w: the vdi names a parent, with the UUID %s, and is of the type %s, which has none; clone it with VBoxManage clonemedium", formats.ErrReference, ref.Name, h.kind)
	}
}

// uuid is one as IPRT, VirtualBox's runtime, stores it: the first three fields
// are little-endian.
type uuid [16]byte

// String is the text that VirtualBox shows.
func (u uuid) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(u[0:]), le.Uint16(u[4:]), le.Uint16(u[6:]), u[8:10], u[10:])
}
