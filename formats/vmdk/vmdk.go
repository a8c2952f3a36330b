// Package vmdk maps VMware virtual disks: those that lie in one file, hosted sparse
// extents with an embedded descriptor (createType monolithicSparse and
// streamOptimized); and, where the files are supplied that a descriptor names,
// those that lie in several (monolithicFlat, vmfs, twoGbMaxExtentFlat and
// twoGbMaxExtentSparse), and deltas. Every other kind of vmdk is recognised, and
// refused by name.
//
// Source: VMware, "Virtual Disk Format 5.0" (technical note); where it is
// silent, qemu's block/vmdk.c and VMware's open-vmdk were read for what real
// files hold.
//
// Vocabulary. Sector: 512 bytes, the unit of every offset in the file. Grain:
// the unit of allocation, grainSize sectors. Grain table (GT): for each grain, the
// sector it lies at. Grain directory (GD): for each grain table, the sector it
// lies at. Descriptor: the text that says what the disk is made of. Extent: in
// VMware's words one file of a disk; an extent of this module's contract is
// always written formats.Extent.
package vmdk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the vmdk format. Its layouts are read-only, and read the grain directory
// in slices and the grain tables as they are needed.
func Driver() formats.Driver {
	return formats.Driver{Name: "vmdk", Probe: probe, Inspect: inspect, Open: open}
}

const sector = 512 // bytes

// First bytes of the kinds of vmdk.
const (
	hostedMagic   = "KDMV"                                                             // hosted sparse extent, "Hosted Sparse Extent Header"
	cowdMagic     = "COWD"                                                             // ESX server sparse extent, "ESXi Host Sparse Extents"
	seSparseMagic = "\xbe\xba\xfe\xca\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00" // SESparse constant header: magic, then version 2.1; undocumented, as qemu checks it
)

func probe(head []byte) bool {
	return bytes.HasPrefix(head, []byte(hostedMagic)) || bytes.HasPrefix(head, []byte(cowdMagic)) || bytes.HasPrefix(head, []byte(seSparseMagic)) || isDescriptor(head)
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
		return nil, fmt.Errorf("%w: a vmdk has none inside (asked for %q)", formats.ErrSnapshot, o.Snapshot)
	}
	img, err := read(ctx, src)
	if err != nil {
		return nil, err
	}
	if img.info.Refused != nil && !img.delta && img.split == nil {
		return nil, img.info.Refused
	}
	l := &layout{info: img.info}
	l.info.Refused = nil
	if img.whole != nil {
		img.whole.open(o.TablesOf(src))
		l.pieces = []piece{{end: l.Size(), sparse: img.whole}}
		return l, nil
	}
	if err := l.openPieces(ctx, img.split, &o); err != nil {
		l.Close()
		for _, s := range l.given {
			s.Close()
		}
		return nil, err
	}
	return l, nil
}

// image is what the metadata of one file says, its grain tables left out.
type image struct {
	info formats.Info
	// Set where nothing but references is in the way:
	whole *sparse     // the hosted sparse extent that all of the disk lies in …
	split *descriptor // … or the descriptor file that lists its extents
	delta bool        // a delta, which stands on a parent
}

// read reads the header and the descriptor, and finds the grain directory. What it finds
// wrong below the header goes to info.Refused; errors of the source are its own.
func read(ctx context.Context, src stored.Bytes) (*image, error) {
	head, err := formats.ReadHead(ctx, src)
	if err != nil {
		return nil, err
	}
	img := &image{info: formats.Info{Format: "vmdk"}}
	switch {
	case bytes.HasPrefix(head, []byte(hostedMagic)):
		err = img.readSparse(ctx, src, head)
	case bytes.HasPrefix(head, []byte(cowdMagic)):
		err = img.refuseOther(head, "COWD", 12, 4)
	case bytes.HasPrefix(head, []byte(seSparseMagic)):
		err = img.refuseOther(head, "SESparse", 16, 8)
	case isDescriptor(head):
		err = img.readText(ctx, src)
	default:
		return nil, fmt.Errorf("%w: no vmdk magic and no vmdk descriptor at the beginning", formats.ErrFormat)
	}
	if err == nil {
		return img, nil
	}
	if errors.Is(err, formats.ErrCorrupt) && img.info.VirtualSize == 0 {
		return nil, err // the header itself makes no sense
	}
	if !formats.IsRefusal(err) {
		return nil, err
	}
	img.info.Refused = err
	return img, nil
}

// refuseOther names a sparse format that is not this one; its capacity in
// sectors is the n-byte number at off.
func (img *image) refuseOther(head []byte, name string, off, n int) error {
	img.info.Variant = name
	if len(head) < off+n {
		return fmt.Errorf("%w: %s header cut off after %d bytes", formats.ErrCorrupt, name, len(head))
	}
	capacity := uint64(binary.LittleEndian.Uint32(head[off:]))
	if n == 8 {
		capacity = binary.LittleEndian.Uint64(head[off:])
	}
	if capacity <= maxSize/sector {
		img.info.VirtualSize = int64(capacity) * sector
	}
	return fmt.Errorf("%w: a vmdk of the kind %s, written by ESX; convert it to streamOptimized (vmkfstools, ovftool)", formats.ErrUnsupported, name)
}

// readSparse reads a hosted sparse extent.
func (img *image) readSparse(ctx context.Context, src stored.Bytes, head []byte) error {
	h, err := readHeader(head)
	if err != nil {
		return err
	}
	img.info.VirtualSize = h.size()
	img.info.ClusterSize = h.grain()

	d, err := readEmbedded(ctx, src, &h)
	if err != nil {
		return err
	}
	img.info.Variant = d.variant()
	img.info.Identity = d.identity()
	if err := d.checkEmbedded(&h); err != nil {
		img.info.Refs = d.refs()
		return err
	}
	if err := h.readFooter(ctx, src); err != nil {
		return err
	}
	dir, err := findDirectory(src, &h)
	if err != nil {
		return err
	}
	img.whole = &sparse{h: h, dir: dir, fileSize: src.Size()}
	if d.isDelta() {
		ref := d.parent()
		img.delta = true
		img.info.Refs = []formats.Ref{ref}
		return fmt.Errorf("%w: a vmdk delta, whose parent (CID %08x) is called %q", formats.ErrReference, d.parentCID, ref.Name)
	}
	return nil
}
