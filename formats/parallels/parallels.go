// Package parallels maps Parallels expandable images, which Virtuozzo and OpenVZ
// call ploop, and Glance too. Both kinds are read: "WithoutFreeSpace" (v1) and
// "WithouFreSpacExt" (v2).
//
// Source: qemu's docs/interop/parallels.txt ("Parallels Expandable Image File
// Format"); where it is silent, qemu's block/parallels.c and the header of
// OpenVZ's ploop library.
//
// An image has no place for the name of another one: which image lies above which
// is said by a DiskDescriptor.xml beside them, which Glance has no word for. So
// a delta that is uploaded alone reads as zeros where it has nothing, here as in
// every other reader.
//
// Not looked for: two guest clusters that lie in one cluster of the file. That
// takes the whole BAT at once, shows bytes of the image only, and costs a reader
// nothing.
//
// Vocabulary. Sector: 512 bytes. Cluster: the unit of allocation, any number of
// sectors (63 in old images). BAT: block allocation table, for each cluster of
// the guest disk its place in the file. Data area: what follows the BAT, in
// clusters.
package parallels

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the format that Glance's disk_format calls ploop. Its layouts are
// read-only, and read the BAT in parts, as they are needed.
func Driver() formats.Driver {
	return formats.Driver{Name: "ploop", Probe: probe, Inspect: inspect, Open: open}
}

// First bytes of the two kinds.
const (
	magicV1 = "WithoutFreeSpace"
	magicV2 = "WithouFreSpacExt"
)

func probe(head []byte) bool {
	return bytes.HasPrefix(head, []byte(magicV1)) || bytes.HasPrefix(head, []byte(magicV2))
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
		return nil, fmt.Errorf("%w: a ploop image has no internal snapshots (asked for %q)", formats.ErrSnapshot, o.Snapshot)
	}
	img, err := read(ctx, src)
	if err != nil {
		return nil, err
	}
	if img.info.Refused != nil {
		return nil, img.info.Refused
	}
	l := &layout{image: img, srcSize: src.Size()}
	l.bat = formats.LongTable{Tables: o.TablesOf(src), Pos: headerBytes, End: headerBytes + 4*int64(img.h.entries), Each: sliceBytes}
	return l, nil
}

// image is what the metadata of one file says, its BAT left out.
type image struct {
	info formats.Info
	h    header
}

// read reads the header and the Format Extension. What it finds wrong with an
// otherwise sensible header goes to info.Refused; errors of the source are its own.
func read(ctx context.Context, src stored.Bytes) (*image, error) {
	head := make([]byte, min(headerBytes, src.Size()))
	if err := src.ReadAt(ctx, head, 0); err != nil {
		return nil, fmt.Errorf("read the ploop header: %w", err)
	}
	if !probe(head) {
		return nil, fmt.Errorf("%w: no ploop magic at the beginning", formats.ErrFormat)
	}
	if len(head) < headerBytes {
		return nil, fmt.Errorf("%w: the ploop header is cut off after %d bytes", formats.ErrCorrupt, len(head))
	}
	img := &image{info: formats.Info{Format: "ploop"}, h: parseHeader(head)}
	h := &img.h
	if h.version != 2 {
		img.info.Refused = fmt.Errorf("%w: ploop header version %d (2 is known, for v1 and v2)", formats.ErrUnsupported, h.version)
		return img, nil
	}
	if err := h.check(src.Size()); err != nil {
		return nil, err
	}
	img.info.Variant = h.variant()
	img.info.VirtualSize = h.size()
	img.info.ClusterSize = h.cluster()

	err := h.checkState()
	if err == nil && h.extOff != 0 {
		img.info.Bitmaps, err = h.readExtension(ctx, src)
		if errors.Is(err, formats.ErrCorrupt) && h.inUse == closedOld {
			err, h.extOff = nil, 0 // its last writer did not know of extensions, and wrote over this one
		}
	}
	if err != nil && !formats.IsRefusal(err) {
		return nil, err
	}
	img.info.Refused = err
	return img, nil
}
