// Package qcow2 maps QEMU's copy-on-write disks, versions 2 and 3, after
// docs/interop/qcow2.txt of QEMU.
//
// The map has two levels: the L1 table points to L2 tables, whose entries point
// to clusters. Both levels are read in slices, when they are asked for, so that
// opening a disk costs the same whatever its size. The refcounts are for writers
// and are not read.
//
// Read: all cluster sizes, zero clusters, compressed clusters (deflate, zstd),
// extended L2 entries (subclusters), dirty images, and, where a Resolver supplies
// them, a backing file and an external data file; of each image, the active disk
// and its internal snapshots. Refused: encryption, the corrupt bit, features that
// are not known. Dirty bitmaps are listed only.
package qcow2

import (
	"bytes"
	"context"
	"fmt"

	"glanced/formats"
)

// Driver is the qcow2 format.
func Driver() formats.Driver {
	return formats.Driver{Name: "qcow2", Probe: probe, Inspect: inspect, Open: open}
}

func probe(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }

func inspect(ctx context.Context, srcs []formats.Source) (formats.Info, error) {
	h, err := inspectHeader(ctx, srcs)
	if err != nil {
		return formats.Info{}, err
	}
	return h.info(), nil
}

func inspectHeader(ctx context.Context, srcs []formats.Source) (*header, error) {
	if len(srcs) != 1 {
		return nil, fmt.Errorf("%w: a qcow2 image is one file, got %d", formats.ErrFormat, len(srcs))
	}
	return readHeader(ctx, srcs[0])
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

func open(ctx context.Context, srcs []formats.Source, r formats.Resolver, o formats.Options) (formats.Layout, error) {
	h, err := inspectHeader(ctx, srcs)
	if err != nil {
		return nil, err
	}
	if h.refused != nil {
		return nil, h.refused
	}
	l := &layout{header: h, disk: h.disk, opened: h.info(), image: srcs[0]}
	if o.Snapshot != "" {
		s, err := h.find(o.Snapshot)
		if err != nil {
			return nil, err
		}
		if err := h.checkL1(s.disk, srcs[0].Size()); err != nil {
			return nil, fmt.Errorf("snapshot %s (%s): %w", quote(s.id), quote(s.name), err)
		}
		if err := h.checkUnshared(ctx, srcs[0], s.disk); err != nil {
			return nil, fmt.Errorf("snapshot %s (%s): %w", quote(s.id), quote(s.name), err)
		}
		l.disk, l.opened.VirtualSize = s.disk, s.disk.size
	}
	if err := l.resolve(ctx, r); err != nil {
		return nil, err
	}
	l.tables = o.Tables.Reader(srcs[0])
	return l, nil
}

// resolve asks r for the files that the image refers to; the data file comes last,
// so that it is never left open by the failure of another.
func (l *layout) resolve(ctx context.Context, r formats.Resolver) error {
	var err error
	for _, ref := range l.refs {
		switch ref.Kind {
		case formats.RefBacking:
			l.parent, err = r.Disk(ctx, ref)
		case formats.RefDataFile:
			l.dataFile, err = r.Source(ctx, ref)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
