// Package iso recognises optical disc images. The disk is the file as it is:
// what the disc's file system says of its size is not looked at, because images
// with more (isohybrid partitions) and less (padding left out) are in use.
//
// Source: ECMA-119 (ISO 9660), sections 6.2.1 and 8.1 to 8.5; for UDF, ECMA-167
// part 2, section 9.
package iso

import (
	"context"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the iso format. An image that is a disk image as well (isohybrid:
// boot code and a partition table in the first 32 KiB, which ISO 9660 leaves to
// others) is iso.
func Driver() formats.Driver {
	return formats.Driver{Name: "iso", Probe: probe, Hybrid: true, Inspect: inspect, Open: open}
}

// descriptors is where the volume descriptors begin, bytes: logical sector 16.
const descriptors = 16 * 2048

// probe looks at the first volume descriptor: u8 type, the standard's identifier
// of 5 bytes, u8 version. The first is the primary one (1), or a boot record
// (0); a supplementary (2), partition (3) or terminating one (255) without
// any before it is odd, and taken, as other readers do. A disc of UDF alone
// begins its descriptors with BEA01, and some with NSR02 or NSR03 at once.
func probe(head []byte) bool {
	if len(head) < descriptors+7 {
		return false
	}
	kind, id, version := head[descriptors], string(head[descriptors+1:descriptors+6]), head[descriptors+6]
	switch id {
	case "CD001":
		return (kind <= 3 || kind == 255) && version >= 1 && version <= 2 // 2: enhanced (ISO 9660:1999)
	case "BEA01", "NSR02", "NSR03":
		return kind == 0 && version == 1
	}
	return false
}

func inspect(ctx context.Context, src stored.Bytes) (formats.Info, error) {
	head, err := formats.ReadHead(ctx, src)
	if err != nil {
		return formats.Info{}, err
	}
	if !probe(head) {
		return formats.Info{}, fmt.Errorf("%w: no volume descriptor of ISO 9660 or UDF at byte %d", formats.ErrFormat, descriptors)
	}
	return formats.Info{Format: "iso", VirtualSize: src.Size()}, nil
}

func open(ctx context.Context, src stored.Bytes, o formats.Options) (formats.Layout, error) {
	if o.Snapshot != "" {
		return nil, fmt.Errorf("%w: iso images have no snapshots (asked for %q)", formats.ErrSnapshot, o.Snapshot)
	}
	info, err := inspect(ctx, src)
	if err != nil {
		return nil, err
	}
	return formats.NewFlat(src, info, o)
}
