package vmdk

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"glanced/backends/stored"
	"glanced/formats"
)

// readText reads a vmdk that is a descriptor alone: its data lies in other files.
// What no other file could help is refused for what it is; the rest is refused as a
// reference, which Open asks for.
func (img *image) readText(ctx context.Context, src stored.Bytes) error {
	if src.Size() > maxDescriptor {
		return fmt.Errorf("%w: a vmdk descriptor file of %d bytes, more than %d", formats.ErrCorrupt, src.Size(), maxDescriptor)
	}
	text := make([]byte, src.Size())
	if err := src.ReadAt(ctx, text, 0); err != nil {
		return fmt.Errorf("read the vmdk descriptor: %w", err)
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return err
	}
	img.info.Variant = d.variant()
	img.info.VirtualSize = d.sectors * sector
	img.info.Refs = d.refs()
	img.info.Identity = d.identity()
	if err := d.checkSplit(); err != nil {
		return err
	}
	img.split = d
	img.delta = d.isDelta()
	return fmt.Errorf("%w: a vmdk descriptor file (createType %s) holds no data: its %d extents are other files; give them too, or convert the disk to streamOptimized",
		formats.ErrReference, img.info.Variant, len(d.extents))
}

// checkSplit demands of a descriptor file that its extents are plain names of files
// that lie beside it, of the types that its createType has, and nothing else.
func (d *descriptor) checkSplit() error {
	if err := d.checkNames(); err != nil {
		return err
	}
	kind, whole := "", false // of the extents; whether there is one, which holds all of the disk
	switch {
	case d.is("monolithicFlat"):
		kind, whole = "FLAT", true
	case d.is("vmfs"):
		kind, whole = "VMFS", true
	case d.is("twoGbMaxExtentFlat"):
		kind = "FLAT"
	case d.is("twoGbMaxExtentSparse"):
		kind = "SPARSE"
	default:
		return fmt.Errorf("%w: a vmdk descriptor file; %w: its createType is %s (monolithicFlat, vmfs, twoGbMaxExtentFlat and twoGbMaxExtentSparse can be read)",
			formats.ErrReference, formats.ErrUnsupported, quote(d.createType))
	}
	if len(d.extents) == 0 {
		return fmt.Errorf("%w: the vmdk descriptor lists no extent", formats.ErrCorrupt)
	}
	if whole && len(d.extents) > 1 {
		return fmt.Errorf("%w: a vmdk descriptor of createType %s lists %d extents", formats.ErrCorrupt, d.variant(), len(d.extents))
	}
	if kind != "SPARSE" && d.isDelta() {
		return fmt.Errorf("%w: a vmdk delta with flat extents, which hide all of a parent", formats.ErrCorrupt)
	}
	seen := map[string]bool{}
	for i := range d.extents {
		x := &d.extents[i]
		if err := x.check(kind, whole); err != nil {
			return err
		}
		if x.kind == "SPARSE" && seen[x.name] {
			return fmt.Errorf("%w: the vmdk descriptor lists %s twice", formats.ErrCorrupt, quote(x.name))
		}
		seen[x.name] = true
	}
	return nil
}

// check demands that a line of a descriptor file is of this type, or a hole.
func (x *extentLine) check(kind string, whole bool) error {
	wrong := func(what string) error {
		return fmt.Errorf("%w: the vmdk descriptor's extent %s (%s, %d sectors) %s", formats.ErrCorrupt, quote(x.name), quote(x.kind), x.sectors, what)
	}
	switch {
	case x.access == "NOACCESS":
		return fmt.Errorf("%w: the vmdk descriptor forbids access to its extent %s", formats.ErrUnsupported, quote(x.name))
	case x.sectors == 0:
		return wrong("is empty")
	case x.kind == "ZERO" && !whole:
		if x.name != "" || x.tail != "" {
			return wrong("has zeros, and names a file")
		}
		return nil
	case x.kind != kind:
		return wrong("is of a type that its createType does not have")
	case x.name == "" || x.name == "." || x.name == "..":
		return wrong("names no file")
	case len(x.name) > maxName:
		return wrong("has too long a name")
	}
	if x.kind != "FLAT" {
		if x.tail != "" { // ESX writes no offset behind a VMFS extent, and qemu takes none
			return wrong("has something after its name")
		}
		return nil
	}
	n, err := strconv.ParseInt(x.tail, 10, 64)
	if err != nil || n < 0 || n > maxSize/sector {
		return wrong("has no offset")
	}
	x.offset = n
	return nil
}

// checkNames refuses extents that are more than plain names: these are OpenStack's
// rules (CVE-2022-47951, CVE-2024-32498), which hold though no name is ever opened.
func (d *descriptor) checkNames() error {
	for _, x := range d.extents {
		if strings.ContainsAny(x.name, `/\:`) {
			return fmt.Errorf("%w: the vmdk descriptor names an extent by a path or address, %s", formats.ErrReference, quote(x.name))
		}
	}
	return nil
}

// openPieces asks for the files of a descriptor file, in their order and once for
// each, and makes the map's pieces of them. What it was given is in l.given, also
// when it fails.
func (l *layout) openPieces(ctx context.Context, d *descriptor, o *formats.Options) error {
	known := map[string]piece{} // flat files that were given, by their names
	ends := d.flatEnds()
	begin := int64(0)
	for i := range d.extents {
		x := &d.extents[i]
		p := known[x.name]
		p.begin, p.end, p.pos = begin, begin+x.sectors*sector, x.offset*sector
		begin = p.end
		if x.kind != "ZERO" && p.src == 0 {
			src, err := o.Files.Open(ctx, x.ref())
			if err != nil {
				return fmt.Errorf("a vmdk descriptor file (createType %s), whose %d extents are other files: %w", d.variant(), len(d.extents), err)
			}
			l.given = append(l.given, src)
			p.src = len(l.given)
			if x.flat() {
				p.flat, err = openFlat(src, ends[x.name], *o)
				known[x.name] = p
			} else if p.sparse, err = readPiece(ctx, src, x.sectors); err == nil {
				p.sparse.open(o.TablesOf(src))
			}
			if err != nil {
				return fmt.Errorf("extent %s: %w", quote(x.name), err)
			}
		}
		l.pieces = append(l.pieces, p)
	}
	return nil
}

// flatEnds is, for each name, how many sectors its file must hold: several flat
// extents may lie in one.
func (d *descriptor) flatEnds() map[string]int64 {
	ends := map[string]int64{}
	for _, x := range d.extents {
		if x.flat() {
			ends[x.name] = max(ends[x.name], x.offset+x.sectors)
		}
	}
	return ends
}

// openFlat maps a flat file. It must be of just these sectors: another size is another
// file.
func openFlat(src stored.Bytes, sectors int64, o formats.Options) (formats.Layout, error) {
	size := sectors * sector
	if src.Size() != size {
		return nil, fmt.Errorf("%w: a file of %d bytes, where the vmdk descriptor says %d", formats.ErrCorrupt, src.Size(), size)
	}
	return formats.NewFlat(src, formats.Info{VirtualSize: size}, o)
}

// readPiece reads one hosted sparse extent of a split disk, of so many sectors.
func readPiece(ctx context.Context, src stored.Bytes, sectors int64) (*sparse, error) {
	head := make([]byte, min(sector, src.Size()))
	if err := src.ReadAt(ctx, head, 0); err != nil {
		return nil, fmt.Errorf("read the vmdk header: %w", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte(cowdMagic)), bytes.HasPrefix(head, []byte(seSparseMagic)):
		return nil, fmt.Errorf("%w: a sparse extent as ESX writes them (COWD, SESparse)", formats.ErrUnsupported)
	case !bytes.HasPrefix(head, []byte(hostedMagic)):
		return nil, fmt.Errorf("%w: not a hosted sparse extent", formats.ErrCorrupt)
	}
	h, err := readHeader(head)
	if err != nil {
		return nil, err
	}
	switch {
	case h.capacity != uint64(sectors):
		return nil, fmt.Errorf("%w: the header says %d sectors, the vmdk descriptor %d", formats.ErrCorrupt, h.capacity, sectors)
	case h.has(flagCompressed):
		return nil, fmt.Errorf("%w: compressed grains in a piece of a disk; only streamOptimized has them", formats.ErrUnsupported)
	}
	if err := checkNoDescriptor(ctx, src, &h); err != nil {
		return nil, err
	}
	dir, err := findDirectory(src, &h)
	if err != nil {
		return nil, err
	}
	return &sparse{h: h, dir: dir, fileSize: src.Size()}, nil
}

// checkNoDescriptor demands that a piece has no descriptor of its own, which could
// say another thing than the disk's. qemu leaves room for one.
func checkNoDescriptor(ctx context.Context, src stored.Bytes, h *header) error {
	if h.descriptorOff == 0 || h.descriptorSize == 0 {
		h.descriptorOff, h.descriptorSize = 0, 0
		return nil
	}
	if err := h.checkDescriptor(src.Size()); err != nil {
		return err
	}
	b := make([]byte, 1)
	if err := src.ReadAt(ctx, b, int64(h.descriptorOff)*sector); err != nil {
		return fmt.Errorf("read the vmdk descriptor: %w", err)
	}
	if b[0] != 0 {
		return fmt.Errorf("%w: a disk of its own (it has a descriptor), and no piece of one", formats.ErrCorrupt)
	}
	return nil
}
