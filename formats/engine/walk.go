package engine

import (
	"context"
	"fmt"

	"glanced/formats"
)

// walk finds the extents of a guest range through a chain of disks. It is kept
// and used again, so that a read allocates nothing for it; one goroutine has it
// at a time.
type walk struct {
	levels []*level // one for each disk of the chain, from the top, as far as was needed
}

// level is a walk's state in one disk of the chain.
type level struct {
	w     *walk
	depth int
	yield func(formats.Extent) bool // take, bound once

	d         *Disk // entered until release; nil: not yet
	ctx       context.Context
	sink      sink
	next, end int64 // guest range that Map has still to yield
	stopped   bool
	err       error
}

// sink takes the extents of a walk, Absent only where the whole chain has
// nothing; s is the source of Data and Compressed. It says whether to go on.
type sink func(x formats.Extent, s *source) bool

// maxDepth bounds a chain of disks. Who resolves references keeps to less; this
// is the last line against a chain that leads back to itself.
const maxDepth = 64

// disk walks guest range [off, off+n) of d. The disks of the chain stay entered
// until release.
func (w *walk) disk(ctx context.Context, d *Disk, off, n int64, to sink) error {
	_, err := w.layer(ctx, d, 0, off, n, to)
	return err
}

// release leaves the disks of the chain.
func (w *walk) release() {
	for _, l := range w.levels {
		if l.d != nil {
			l.d.calls.leave()
			l.d, l.ctx, l.sink = nil, nil, nil
		}
	}
}

func (w *walk) layer(ctx context.Context, d *Disk, depth int, off, n int64, to sink) (stopped bool, err error) {
	if depth == len(w.levels) {
		if depth == maxDepth {
			return false, fmt.Errorf("%w: a chain of more than %d disks", formats.ErrLimit, maxDepth)
		}
		l := &level{w: w, depth: depth}
		l.yield = l.take
		w.levels = append(w.levels, l)
	}
	l := w.levels[depth]
	if l.d == nil {
		if !d.calls.enter() {
			return false, formats.ErrClosed
		}
		l.d = d
	}
	l.ctx, l.sink = ctx, to
	l.next, l.end, l.stopped, l.err = off, off+n, false, nil
	if err := d.layout.Map(ctx, off, n, l.yield); err != nil {
		return false, err
	}
	if l.err == nil && !l.stopped && l.next != l.end {
		l.err = fmt.Errorf("%w: the map ends at %d of %d", formats.ErrCorrupt, l.next, l.end)
	}
	return l.stopped, l.err
}

// take is what a layout's Map yields to.
func (l *level) take(x formats.Extent) bool {
	if x.Off != l.next || x.Len <= 0 || x.Len > l.end-x.Off {
		l.err = fmt.Errorf("%w: the map says %d bytes at %d where %d to %d was next", formats.ErrCorrupt, x.Len, x.Off, l.next, l.end)
		return false
	}
	l.next = x.End()
	x.Depth = l.depth
	switch x.Kind {
	case formats.Absent:
		l.absent(x)
	case formats.Zero:
		l.stopped = !l.sink(x, nil)
	default:
		s, err := l.d.source(&x)
		if err != nil {
			l.err = err
			return false
		}
		l.stopped = !l.sink(x, s)
	}
	return l.err == nil && !l.stopped
}

// absent looks in the parent; past its end, and where there is none, all is zeros.
func (l *level) absent(x formats.Extent) {
	if parent := l.d.parent; parent != nil {
		if in := min(parent.Size()-x.Off, x.Len); in > 0 {
			l.stopped, l.err = l.w.layer(l.ctx, parent, l.depth+1, x.Off, in, l.sink)
			if l.stopped || l.err != nil || in == x.Len {
				return
			}
			x.Off, x.Len = x.Off+in, x.Len-in
		}
	}
	l.stopped = !l.sink(formats.Extent{Off: x.Off, Len: x.Len}, nil)
}

// source finds and checks the host range of a Data or Compressed extent.
func (d *Disk) source(x *formats.Extent) (*source, error) {
	if x.Kind != formats.Data && x.Kind != formats.Compressed {
		return nil, fmt.Errorf("%w: extent kind %v", formats.ErrCorrupt, x.Kind)
	}
	if x.Src < 0 || x.Src >= len(d.srcs) {
		return nil, fmt.Errorf("%w: source %d of %d", formats.ErrCorrupt, x.Src, len(d.srcs))
	}
	s := d.srcs[x.Src]
	if x.Pos < 0 || x.N <= 0 || x.N > s.size-x.Pos {
		return nil, fmt.Errorf("%w: guest offset %d lies at %d (%d bytes), past the end of the image (%d bytes)", formats.ErrCorrupt, x.Off, x.Pos, x.N, s.size)
	}
	switch {
	case x.Kind == formats.Data:
		if x.N != x.Len {
			return nil, fmt.Errorf("%w: %d bytes of data in %d bytes", formats.ErrCorrupt, x.Len, x.N)
		}
	case x.Skip < 0 || x.Full <= 0 || x.Skip > x.Full-x.Len:
		return nil, fmt.Errorf("%w: %d bytes at %d of a cluster of %d", formats.ErrCorrupt, x.Len, x.Skip, x.Full)
	case x.Full > maxFull:
		return nil, fmt.Errorf("%w: a compressed cluster of %d bytes; the most is %d", formats.ErrLimit, x.Full, maxFull)
	case x.N > maxCoded:
		return nil, fmt.Errorf("%w: a cluster coded in %d bytes; the most is %d", formats.ErrLimit, x.N, maxCoded)
	}
	return s, nil
}
