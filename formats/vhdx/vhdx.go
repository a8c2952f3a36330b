// Package vhdx maps Hyper-V's virtual hard disks, version 2: fixed, dynamic and
// differencing, with 512 and 4096-byte logical sectors, and with a log that was
// not played back before the file was copied.
//
// Source: [MS-VHDX], "Virtual Hard Disk v2 (VHDX) File Format"; sections named
// here are its. qemu-img is the judge of what real files hold, not of bad ones.
//
// Vocabulary. Payload block: the unit of allocation, 1 to 256 MiB. BAT: the block
// allocation table, 8 bytes for each block. Chunk: 2^23 logical sectors, the
// blocks whose sectors one sector bitmap block (1 MiB) tells of. Region: a range
// of the file that the region table names (the BAT, the metadata). View: the file
// as it is once its log is played back.
package vhdx

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the vhdx format. Its layouts are read-only and read the BAT and the
// sector bitmaps as they are needed; a log is played back in memory (up to
// 16 MiB, held while the layout is open), never into the file.
func Driver() formats.Driver {
	return formats.Driver{Name: "vhdx", Probe: probe, Inspect: inspect, Open: open}
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

func probe(head []byte) bool { return bytes.HasPrefix(head, []byte(fileSignature)) }

func inspect(ctx context.Context, src stored.Bytes) (formats.Info, error) {
	img, err := read(ctx, src)
	if err != nil {
		return formats.Info{}, err
	}
	return img.info, nil
}

func open(ctx context.Context, src stored.Bytes, o formats.Options) (formats.Layout, error) {
	if o.Snapshot != "" {
		return nil, fmt.Errorf("%w: a vhdx file has no internal snapshots (asked for %q)", formats.ErrSnapshot, o.Snapshot)
	}
	img, err := read(ctx, src)
	if err != nil {
		return nil, err
	}
	l := &layout{image: img, tables: o.TablesOf(img.view)}
	if err := img.info.Refused; err != nil {
		if !img.onParent {
			return nil, err
		}
		l.info.Refused = nil
	}
	l.table = formats.LongTable{Tables: l.tables, Pos: img.bat.begin, End: img.bat.begin + img.params.batEntries()*batEntry, Each: batSlice}
	return l, nil
}

// image is what the metadata of one file says, the BAT left out. It is not
// changed once it is read.
type image struct {
	info   formats.Info
	head   header
	view   *view
	fixed  []span // header section, log and regions: no block may lie there
	bat    span
	params params
	// onParent: a differencing file, and that is the one reason to refuse it.
	onParent bool
}

// read reads all metadata but the BAT. What it finds wrong once the header is
// understood goes to info.Refused; errors of the source are its own.
func read(ctx context.Context, src stored.Bytes) (*image, error) {
	img := &image{info: formats.Info{Format: "vhdx"}}
	err := img.read(ctx, src)
	if err == nil {
		return img, nil
	}
	if errors.Is(err, formats.ErrCorrupt) && img.info.VirtualSize == 0 {
		return nil, err // nothing is known of the disk
	}
	if !formats.IsRefusal(err) {
		return nil, err
	}
	img.info.Refused = err
	return img, nil
}

func (img *image) read(ctx context.Context, src stored.Bytes) error {
	var err error
	if img.head, err = readHeader(ctx, src); err != nil {
		return err
	}
	img.info.Identity = img.head.dataWrite
	if img.view, err = replay(ctx, src, &img.head); err != nil {
		return err
	}
	regions, err := readRegions(ctx, img.view, img.head.log)
	if err != nil {
		return err
	}
	img.bat = regions.bat
	img.fixed = regions.taken
	m, err := readMetadata(ctx, img.view, regions.metadata)
	if err != nil {
		return err
	}
	if img.params, err = m.params(ctx); err != nil {
		return err
	}
	p := &img.params
	img.info.VirtualSize = p.size
	img.info.ClusterSize = p.blockSize
	img.info.Variant = p.variant()
	if need := p.batEntries() * batEntry; need > img.bat.len() {
		return fmt.Errorf("%w: the vhdx BAT has room for %d entries, and a disk of %d bytes needs %d", formats.ErrCorrupt, img.bat.len()/batEntry, p.size, need/batEntry)
	}
	if !p.hasParent {
		return nil
	}
	parent, err := m.locator(ctx)
	if err != nil {
		return err
	}
	img.onParent = true
	img.info.Refs = []formats.Ref{parent}
	return fmt.Errorf("%w: a differencing vhdx, whose parent (identity %s) is called %q", formats.ErrReference, parent.Identity, parent.Name)
}
