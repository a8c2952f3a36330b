// Package raw maps a disk whose image is the disk itself, byte for byte. Where
// the source knows its own holes (a sparse file), they are told as zeros.
package raw

import (
	"context"
	"fmt"
	"sort"

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
		return nil, fmt.Errorf("%w: raw images have none (asked for %q)", formats.ErrSnapshot, o.Snapshot)
	}
	l := &layout{info: info}
	if src, ok := srcs[0].(formats.Extenter); ok && info.VirtualSize > 0 {
		if l.holes, err = findHoles(ctx, src, info.VirtualSize, maxRuns); err != nil {
			return nil, err
		}
	}
	return l, nil
}

type layout struct {
	info  formats.Info
	holes []hole // sorted, apart from each other; the rest is data
}

func (l *layout) Size() int64           { return l.info.VirtualSize }
func (l *layout) Info() formats.Info    { return l.info }
func (l *layout) Parent() *formats.Disk { return nil }
func (l *layout) Close() error          { return nil }

func (l *layout) Map(_ context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if off < 0 || n < 0 || off > l.Size()-n {
		return fmt.Errorf("%w: %d bytes at %d of a disk of %d", formats.ErrRange, n, off, l.Size())
	}
	end := off + n
	// The first hole that ends after off.
	i := sort.Search(len(l.holes), func(i int) bool { return l.holes[i].end > off })
	for off < end {
		x := formats.Extent{Off: off, Kind: formats.Data, Pos: off}
		stop := end
		if i < len(l.holes) {
			if h := l.holes[i]; h.off <= off {
				x.Kind, x.Pos = formats.Zero, 0
				stop = min(h.end, end)
				i++
			} else {
				stop = min(h.off, end)
			}
		}
		x.Len = stop - off
		if x.Kind == formats.Data {
			x.N = x.Len
		}
		if !yield(x) {
			return nil
		}
		off = stop
	}
	return nil
}
