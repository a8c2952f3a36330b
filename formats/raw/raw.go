// Package raw maps a disk whose image is the disk itself, byte for byte. Where
// the source knows its own holes (a sparse file), they are told as zeros.
package raw

import (
	"context"
	"fmt"

	"glanced/formats"
)

// Driver is the raw format. It has no Probe: raw is what is declared, or what is
// left when no other driver recognises the content.
func Driver() formats.Driver {
	return formats.Driver{Name: "raw", Inspect: inspect, Open: open}
}

func inspect(_ context.Context, srcs []formats.Source) (formats.Info, error) {
	if len(srcs) != 1 {
		return formats.Info{}, fmt.Errorf("%w: raw takes one file, got %d", formats.ErrFormat, len(srcs))
	}
	return formats.Info{Format: "raw", VirtualSize: srcs[0].Size()}, nil
}

func open(ctx context.Context, srcs []formats.Source, _ formats.Resolver, o formats.Options) (formats.Layout, error) {
	info, err := inspect(ctx, srcs)
	if err != nil {
		return nil, err
	}
	if o.Snapshot != "" {
		return nil, fmt.Errorf("%w: raw images have no snapshots (asked for %q)", formats.ErrUnsupported, o.Snapshot)
	}
	l := &layout{info: info}
	l.holes, _ = srcs[0].(formats.Extenter)
	return l, nil
}

type layout struct {
	info  formats.Info
	holes formats.Extenter // nil: the source does not know its holes
}

func (l *layout) Size() int64           { return l.info.VirtualSize }
func (l *layout) Info() formats.Info    { return l.info }
func (l *layout) Parent() *formats.Disk { return nil }
func (l *layout) Close() error          { return nil }

func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if off < 0 || n < 0 || off > l.Size()-n {
		return fmt.Errorf("%w: %d bytes at %d of a disk of %d", formats.ErrRange, n, off, l.Size())
	}
	if n == 0 {
		return nil
	}
	if l.holes == nil {
		yield(formats.Extent{Off: off, Len: n, Kind: formats.Data, Pos: off, N: n})
		return nil
	}
	return l.holes.Extents(ctx, off, n, func(off, n int64, hole bool) bool {
		if hole {
			return yield(formats.Extent{Off: off, Len: n, Kind: formats.Zero})
		}
		return yield(formats.Extent{Off: off, Len: n, Kind: formats.Data, Pos: off, N: n})
	})
}
