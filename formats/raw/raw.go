// Package raw maps a disk whose image is the disk itself, byte for byte. Where
// the source knows its own holes (a sparse file), they are told as zeros.
package raw

import (
	"context"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Driver is the raw format. It has no Probe: raw is what is declared, or what is
// left when no other driver recognises the content.
func Driver() formats.Driver { return driver("raw") }

// Drivers is raw and the disk formats that are raw under another name: Amazon's
// machine, ramdisk and kernel images (ami, ari, aki), which nothing in their
// bytes tells apart, and which Glance takes for what they are declared.
func Drivers() []formats.Driver {
	return []formats.Driver{Driver(), driver("ami"), driver("ari"), driver("aki")}
}

func driver(name string) formats.Driver {
	inspect := func(_ context.Context, src stored.Bytes) (formats.Info, error) {
		return formats.Info{Format: name, VirtualSize: src.Size()}, nil
	}
	open := func(ctx context.Context, src stored.Bytes, o formats.Options) (formats.Layout, error) {
		info, err := inspect(ctx, src)
		if err != nil {
			return nil, err
		}
		if o.Snapshot != "" {
			return nil, fmt.Errorf("%w: %s images have none (asked for %q)", formats.ErrSnapshot, name, o.Snapshot)
		}
		return formats.NewFlat(src, info, o)
	}
	return formats.Driver{Name: name, Inspect: inspect, Open: open}
}
