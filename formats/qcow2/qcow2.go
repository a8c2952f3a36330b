// Package qcow2 maps QEMU's copy-on-write disks, versions 2 and 3, after
// docs/interop/qcow2.txt of QEMU.
//
// The map has two levels: the L1 table points to L2 tables, whose entries point
// to clusters. Both levels are read in slices, when they are asked for, so that
// opening a disk costs the same whatever its size. The refcounts are for writers
// and are not read.
//
// Read: all cluster sizes, zero clusters, compressed clusters (deflate, zstd),
// extended L2 entries (subclusters), dirty images, and, where they are supplied,
// a backing file and an external data file; of each image, the active disk
// and its internal snapshots. Refused: encryption, the corrupt bit, features that
// are not known. Dirty bitmaps are listed only.
package qcow2

import (
	"bytes"
	"context"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the qcow2 format.
func Driver() formats.Driver {
	return formats.Driver{Name: "qcow2", Probe: probe, Inspect: inspect, Open: open}
}

func probe(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

func inspect(ctx context.Context, src stored.Bytes) (formats.Info, error) {
	h, err := inspectHeader(ctx, src)
	if err != nil {
		return formats.Info{}, err
	}
	return h.info(), nil
}

func inspectHeader(ctx context.Context, src stored.Bytes) (*header, error) {
	return readHeader(ctx, src)
}

func (h *header) info() formats.Info {
	info := formats.Info{
		Format:      "qcow2",
		Variant:     h.variant(),
		VirtualSize: h.disk.size,
		ClusterSize: h.clusterSize(),
		Encrypted:   h.crypt != cryptNone,
		Refs:        h.refs,
		Bitmaps:     h.bitmapNames,
		Refused:     h.refused,
	}
	for _, s := range h.snapshots {
		info.Snapshots = append(info.Snapshots, formats.Snapshot{ID: s.id, Name: s.name, VirtualSize: s.disk.size})
	}
	if info.Refused == nil && len(h.refs) > 0 {
		ref := h.refs[0]
		info.Refused = fmt.Errorf("%w: %s %q", formats.ErrReference, ref.Kind, ref.Name)
	}
	return info
}

func (h *header) variant() string {
	s := fmt.Sprintf("v%d", h.version)
	if h.codec == formats.Zstd {
		s += ", zstd"
	}
	if h.has(extendedL2) {
		s += ", extended L2"
	}
	return s
}

func open(ctx context.Context, src stored.Bytes, o formats.Options) (formats.Layout, error) {
	h, err := inspectHeader(ctx, src)
	if err != nil {
		return nil, err
	}
	if h.refused != nil {
		return nil, h.refused
	}
	l := &layout{header: h, disk: h.disk, opened: h.info(), image: src}
	if o.Snapshot != "" {
		s, err := h.find(o.Snapshot)
		if err != nil {
			return nil, err
		}
		if err := h.checkL1(s.disk, src.Size()); err != nil {
			return nil, fmt.Errorf("snapshot %s (%s): %w", quote(s.id), quote(s.name), err)
		}
		l.disk, l.opened.VirtualSize = s.disk, s.disk.size
	}
	for _, ref := range l.refs {
		if ref.Kind == formats.RefDataFile {
			if l.dataFile, err = o.Files.Open(ctx, ref); err != nil {
				return nil, err
			}
		}
	}
	l.tables = o.TablesOf(src)
	l.l1 = formats.LongTable{Tables: l.tables, Pos: l.disk.l1, End: l.disk.l1 + h.l1Entries(l.disk.size)*8, Each: l1Slice}
	l.opened.Refused = nil
	return l, nil
}
