// Package vhd maps virtual disks of Connectix Virtual PC, Virtual Server,
// Hyper-V and XenServer: fixed, dynamic and differencing. qemu calls the format
// vpc.
//
// Source: Microsoft, "Virtual Hard Disk Image Format Specification", version 1.0
// (2006), whose section names are quoted below; where it is silent, qemu's
// block/vpc.c was read for what real files hold. All numbers are big-endian.
//
// Vocabulary. Sector: 512 bytes. Footer: what every image ends in, and all but
// fixed ones begin with a copy of. Block: the unit of allocation; in the file, a
// sector bitmap (one bit for each sector of the block, padded to whole sectors)
// and then the block's data. BAT: block allocation table, for each block the
// sector its bitmap lies at.
package vhd

import (
	"bytes"
	"context"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the vhd format. Its layouts are read-only. They hold one bit in
// memory for each block that the file has room for, and read the BAT, in slices,
// and the sector bitmaps as they are needed.
func Driver() formats.Driver {
	return formats.Driver{Name: "vhd", Probe: probe, ProbeTail: probeTail, Inspect: inspect, Open: open}
}

const sector = 512 // bytes

// probe sees dynamic and differencing disks.
func probe(head []byte) bool { return bytes.HasPrefix(head, []byte(footerCookie)) }

// probeTail sees fixed disks, which begin with what the guest wrote there.
func probeTail(tail []byte) bool { return footerAt(tail) >= 0 }

func inspect(ctx context.Context, src stored.Bytes) (formats.Info, error) {
	img, err := read(ctx, src)
	if err != nil {
		return formats.Info{}, err
	}
	return img.info, nil
}

func open(ctx context.Context, src stored.Bytes, o formats.Options) (formats.Layout, error) {
	if o.Snapshot != "" {
		return nil, fmt.Errorf("%w: a vhd file has no internal snapshots (asked for %q)", formats.ErrSnapshot, o.Snapshot)
	}
	img, err := read(ctx, src)
	if err != nil {
		return nil, err
	}
	if err := img.info.Refused; err != nil {
		if !img.onParent {
			return nil, err
		}
		img.info.Refused = nil
	}
	if img.footer.kind == kindFixed {
		return formats.NewFlat(src, img.info, o)
	}
	return newLayout(img, o.TablesOf(src)), nil
}

// image is what the metadata of one file says, its BAT left out.
type image struct {
	info   formats.Info
	footer footer
	end    int64  // where the footer at the end begins, bytes
	header header // of dynamic and differencing disks
	// onParent: a differencing disk, and that is the one reason to refuse it.
	onParent bool
}

// read reads the footers and the dynamic disk header. What it finds wrong behind
// a good footer goes to info.Refused; errors of the source are its own.
func read(ctx context.Context, src stored.Bytes) (*image, error) {
	img := &image{info: formats.Info{Format: "vhd"}}
	var err error
	if img.footer, img.end, err = readFooter(ctx, src); err != nil {
		return nil, err
	}
	img.info.Variant = img.footer.variant()
	img.info.Identity = identity(img.footer.id)
	if err = img.check(ctx, src); err == nil {
		return img, nil
	}
	if !formats.IsRefusal(err) {
		return nil, err
	}
	img.info.Refused = err
	return img, nil
}

// check is why the image is refused, if it is.
func (img *image) check(ctx context.Context, src stored.Bytes) error {
	f := &img.footer
	if err := f.check(); err != nil {
		return err
	}
	var err error
	if img.info.VirtualSize, err = f.diskSize(); err != nil {
		return err
	}
	if f.kind == kindFixed {
		if img.info.VirtualSize > img.end {
			return fmt.Errorf("%w: a fixed vhd of %d bytes has %d before its footer; it is cut off", formats.ErrCorrupt, img.info.VirtualSize, img.end)
		}
		return nil
	}
	if img.header, err = readHeader(ctx, src, f.dataOff, img.end); err != nil {
		return err
	}
	h := &img.header
	if err := h.check(img.info.VirtualSize, img.end); err != nil {
		return err
	}
	img.info.ClusterSize = h.block
	if f.kind == kindDynamic {
		return nil
	}
	ref, err := h.parent(ctx, src, img.end)
	if err != nil {
		return err
	}
	if h.parentID == f.id {
		return fmt.Errorf("%w: a differencing vhd that names itself as its parent (unique id %s)", formats.ErrCorrupt, ref.Identity)
	}
	img.onParent = true
	img.info.Refs = []formats.Ref{ref}
	return fmt.Errorf("%w: a differencing vhd, whose parent (unique id %s) is called %q", formats.ErrReference, ref.Identity, ref.Name)
}

// identity is a unique id as text; "" for that of zeros, which is none.
func identity(id [16]byte) string {
	if id == [16]byte{} {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
