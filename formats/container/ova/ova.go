// Package ova opens OVA files: a POSIX tar with an OVF descriptor and the disk
// images of an appliance (DMTF DSP0243, Open Virtualization Format 2.1.1). The
// disk is served in place, as a section of the archive: nothing is unpacked.
//
// Read too: descriptors of OVF 0.9, as VirtualCenter 2.5 wrote them, and of oVirt
// (ovirt-engine, OvfOvirtWriter.java), whose sections are of an XML Schema type.
//
// Vocabulary. Member: a regular file in the archive. Descriptor: the .ovf, which
// says which members are disks. Manifest: the .mf, with the members' digests.
package ova

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/container"
)

// Container is the ova kind.
func Container() container.Container {
	return container.Container{Name: "ova", Probe: probe, Open: open, Verify: verify}
}

// probe reports whether head begins with the header of a regular file in a tar,
// checksum and all.
func probe(head []byte) bool {
	h, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil && h.Name != ""
}

// open finds the file of the OVF's first disk in src. It fails with ErrFormat
// where src is no tar, container.ErrNoDisk where there is no descriptor or it
// names no disk, ErrReference where it names something outside of the archive,
// ErrUnsupported for compressed or chunked disks and sparse members, ErrCorrupt
// and ErrLimit.
func open(ctx context.Context, src stored.Bytes, _ container.Options) (container.Opened, error) {
	r := &reader{ctx: ctx, src: src}
	members, text, err := index(r, src.Size())
	if err != nil {
		return container.Opened{}, err
	}
	d, err := parseDescriptor(text)
	if err != nil {
		return container.Opened{}, err
	}
	image, others, err := d.image(members)
	if err != nil {
		return container.Opened{}, err
	}
	manifest := false
	for name := range members {
		manifest = manifest || isManifest(name)
	}
	return container.Opened{
		Image:   stored.Section(src, image.pos, image.size, src.Close),
		Name:    image.name,
		Beside:  beside(src, members, path.Dir(image.name)),
		Others:  others,
		Digests: manifest,
	}, nil
}

// index walks the archive of size bytes: its members, and the descriptor's text.
func index(r *reader, size int64) (map[string]member, []byte, error) {
	a := newArchive(r, func() int64 { return r.pos })
	members := map[string]member{}
	var text []byte
	named := ""
	for {
		m, err := a.next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if m.size > size-m.pos {
			return nil, nil, fmt.Errorf("%w: the member %.200q has %d bytes, and the archive ends %d after its header: it is cut off", formats.ErrCorrupt, m.name, m.size, size-m.pos)
		}
		members[m.name] = m
		if !isDescriptor(m.name) {
			continue
		}
		if named != "" {
			return nil, nil, fmt.Errorf("%w: the archive has two OVF descriptors, %.200q and %.200q", formats.ErrCorrupt, named, m.name)
		}
		if m.size > maxDescriptor {
			return nil, nil, fmt.Errorf("%w: the OVF descriptor %.200q has %d bytes, of %d at most", formats.ErrLimit, m.name, m.size, maxDescriptor)
		}
		named, text = m.name, make([]byte, m.size)
		if _, err := io.ReadFull(a.tar, text); err != nil {
			return nil, nil, err
		}
	}
	if named == "" {
		return nil, nil, fmt.Errorf("%w: the archive has no OVF descriptor (a file NAME.ovf)", container.ErrNoDisk)
	}
	return members, text, nil
}

func isDescriptor(name string) bool { return ext(name) == ".ovf" }
func isManifest(name string) bool   { return ext(name) == ".mf" }

// ext is the ending of a member at the top of the archive; "" for others.
func ext(name string) string {
	if strings.Contains(name, "/") {
		return ""
	}
	return strings.ToLower(path.Ext(name))
}

// beside supplies the members in one folder of the archive by their exact name, for
// images of several files (vmdk: monolithicFlat, vmfs, twoGbMaxExtent). They live as
// long as src.
func beside(src stored.Bytes, members map[string]member, folder string) formats.Files {
	return func(_ context.Context, ref formats.Ref) (stored.Bytes, error) {
		if ref.Kind != formats.RefExtent {
			return nil, fmt.Errorf("%w: an OVA supplies extents only, not a %s", formats.ErrReference, ref.Kind)
		}
		m, ok := members[path.Join(folder, ref.Name)]
		if !ok || ref.Name == "" || ref.Name == "." || strings.ContainsAny(ref.Name, "/\\") || leadsUp(ref.Name) {
			return nil, fmt.Errorf("%w: no file of that name is in the archive, beside the disk", formats.ErrReference)
		}
		return stored.Section(src, m.pos, m.size, nil), nil
	}
}
