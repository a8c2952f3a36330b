package formats

import (
	"context"
	"fmt"
	"sort"

	"glanced/backends/stored"
)

// NewFlat is the layout of a disk that lies in src as it is, from src's first
// byte on: raw disks, and those with nothing but a trailer. What follows
// info.VirtualSize in src is no part of the disk. Where src knows its own holes
// (stored.Extenter), they are told as Zero; it is asked once, here. It fails with
// ErrCorrupt where src is shorter than the disk, and with src's own errors.
func NewFlat(ctx context.Context, src stored.Bytes, info Info) (Layout, error) {
	return NewFlatPiece(ctx, src, info, 1)
}

// NewFlatPiece is NewFlat for one of several sources that hold a disk together:
// each remembers its share of the holes that one disk may.
func NewFlatPiece(ctx context.Context, src stored.Bytes, info Info, pieces int) (Layout, error) {
	if info.VirtualSize < 0 || info.VirtualSize > src.Size() {
		return nil, fmt.Errorf("%w: a disk of %d bytes in a file of %d; it is cut off", ErrCorrupt, info.VirtualSize, src.Size())
	}
	l := &flat{info: info, whole: info.VirtualSize == src.Size()}
	if x, ok := stored.As[stored.Extenter](src); ok && info.VirtualSize > 0 {
		var err error
		if l.holes, err = findHoles(ctx, x, info.VirtualSize, maxRuns/pieces); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// flat maps every byte to the same place of source 0. Nothing in it changes.
type flat struct {
	info  Info
	whole bool   // source 0 is the disk, and nothing else
	holes []hole // sorted, apart from each other; the rest is data
}

func (l *flat) Size() int64  { return l.info.VirtualSize }
func (l *flat) Info() Info   { return l.info }
func (l *flat) Close() error { return nil }

// Identical implements formats.Identical.
func (l *flat) Identical() bool { return l.whole }

func (l *flat) Map(_ context.Context, off, n int64, yield func(Extent) bool) error {
	if off < 0 || n < 0 || off > l.Size()-n {
		return fmt.Errorf("%w: %d bytes at %d of a disk of %d", ErrRange, n, off, l.Size())
	}
	end := off + n
	// The first hole that ends after off.
	i := sort.Search(len(l.holes), func(i int) bool { return l.holes[i].end > off })
	for off < end {
		x := Extent{Off: off, Kind: Data, Pos: off}
		stop := end
		if i < len(l.holes) {
			if h := l.holes[i]; h.off <= off {
				x.Kind, x.Pos = Zero, 0
				stop = min(h.end, end)
				i++
			} else {
				stop = min(h.off, end)
			}
		}
		x.Len = stop - off
		if x.Kind == Data {
			x.N = x.Len
		}
		if !yield(x) {
			return nil
		}
		off = stop
	}
	return nil
}
