package engine

import (
	"context"
	"fmt"
	"sync/atomic"

	"glanced/backends/budget"
	"glanced/backends/stored"
	"glanced/formats"
)

// Disk is the guest disk of one opened image: a Layout, the sources its extents
// point into, and the parent that shows through. Safe for concurrent use. After
// Close, every call fails with formats.ErrClosed.
type Disk struct {
	e          *Engine
	layout     formats.Layout
	srcs       []*source
	parent     *Disk // nil: none; not this disk's to close
	prefetches bool  // a source, here or in a parent, takes Prefetch
	calls      gate
	streams    streams

	life context.Context // of what the disk does in the background
	end  context.CancelFunc
}

// source is where bytes of an open disk lie.
type source struct {
	stored.Bytes
	e          *Engine
	id         uint64 // no other source of the engine has it, ever
	size       int64  // bytes
	files      stored.FileRanger
	prefetcher stored.Prefetcher

	working *budget.Share // of Engine.working
}

func newDisk(e *Engine, l formats.Layout, srcs []stored.Bytes) *Disk {
	d := &Disk{e: e, layout: l, calls: gate{empty: make(chan struct{}, 1)}}
	d.life, d.end = context.WithCancel(context.Background())
	for _, src := range srcs {
		s := &source{Bytes: src, e: e, id: e.sources.Add(1), size: src.Size(), working: e.working.Share()}
		s.files, _ = stored.As[stored.FileRanger](src)
		s.prefetcher, _ = stored.As[stored.Prefetcher](src)
		d.prefetches = d.prefetches || s.prefetcher != nil
		d.srcs = append(d.srcs, s)
	}
	return d
}

// local reports whether host range [pos, pos+n) is in a local file now: reading
// it takes no time worth stopping for.
func (s *source) local(pos, n int64) bool {
	if s.files == nil {
		return false
	}
	r, ok := s.files.FileRange(pos, n)
	if ok {
		r.Release()
	}
	return ok && r.Len == n
}

// Size is the virtual size in bytes.
func (d *Disk) Size() int64 { return d.layout.Size() }

// Info describes the image.
func (d *Disk) Info() formats.Info { return d.layout.Info() }

// Granularity is the size of the smallest cluster that the map may be made of, here or
// in a parent, bytes; 0: nothing has clusters.
func (d *Disk) Granularity() int64 {
	own := d.layout.Info().ClusterSize
	if d.parent == nil {
		return own
	}
	below := d.parent.Granularity()
	if own == 0 || below == 0 {
		return max(own, below)
	}
	return min(own, below)
}

// WholeFile is the local file that reads as the disk does, from its first byte to its
// last; ok is false where there is none. It is to be released before the disk is
// closed.
func (d *Disk) WholeFile() (r stored.FileRange, ok bool) {
	if !d.calls.enter() {
		return r, false
	}
	defer d.calls.leave()
	if i, is := d.layout.(formats.Identical); !is || !i.Identical() || d.Size() != d.srcs[0].size {
		return r, false
	}
	whole, ok := stored.As[stored.WholeFiler](d.srcs[0].Bytes)
	if !ok {
		return r, false
	}
	return whole.WholeFile()
}

// Check looks for what is wrong with the image and no single read shows, where the
// format has such (formats.Checker); parents are left out.
func (d *Disk) Check(ctx context.Context) error {
	if !d.calls.enter() {
		return formats.ErrClosed
	}
	defer d.calls.leave()
	if c, ok := d.layout.(formats.Checker); ok {
		return c.Check(ctx)
	}
	return nil
}

// Close closes the layout and the sources, not the parent. It stops what runs in
// the background and waits for calls under way; it must not be called from a
// yield function. A second Close does nothing.
func (d *Disk) Close() error {
	d.end()
	if !d.calls.shut() {
		return nil
	}
	err := d.layout.Close()
	for _, s := range d.srcs {
		d.e.clusters.drop(s.id)
		if e := s.Close(); err == nil {
			err = e
		}
	}
	return err
}

// ReadAt fills p from guest offset off or fails; a range outside the disk is
// formats.ErrRange, an image that makes no sense there ErrCorrupt or ErrLimit. It
// returns early when ctx ends, except while it decodes a cluster that others wait
// for too. When it fails, what p holds is undefined.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	plan := d.e.plans.Get().(*Plan)
	defer d.e.keep(plan)
	for first := true; len(p) > 0 || first; first = false {
		if err := d.Plan(ctx, plan, off, int64(len(p)), PlanOptions{}); err != nil {
			return err
		}
		n := plan.End() - off
		if err := plan.ReadInto(ctx, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// Extents yields what guest range [off, off+n) is made of, in order and without
// gaps, the chain of parents followed: Depth says how far, and Src counts the
// sources of the disk found there. Neighbours of one kind and depth whose host
// ranges also adjoin are merged; compressed clusters stay one extent each. Absent
// (Depth 0) means absent in the whole chain: it reads as zeros.
func (d *Disk) Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if err := d.inside(off, n); err != nil {
		return err
	}
	plan := d.e.plans.Get().(*Plan) // for its walk
	defer d.e.keep(plan)
	var last formats.Extent // not yet yielded; Len 0: none
	stopped := false
	err := plan.walk.disk(ctx, d, off, n, func(x formats.Extent, _ *source) bool {
		if last.Len > 0 {
			if last.Join(&x) {
				return true
			}
			if !yield(last) {
				stopped = true
				return false
			}
		}
		last = x
		return true
	})
	if err != nil {
		return fmt.Errorf("map %d bytes at guest offset %d: %w", n, off, err)
	}
	if !stopped && last.Len > 0 {
		yield(last)
	}
	return nil
}

func (d *Disk) inside(off, n int64) error {
	if d.calls.isShut() {
		return formats.ErrClosed
	}
	if off < 0 || n < 0 || off > d.Size()-n {
		return fmt.Errorf("%w: %d bytes at %d of a disk of %d", formats.ErrRange, n, off, d.Size())
	}
	return nil
}

// gate counts the calls under way and, once shut, lets none in.
type gate struct {
	n     atomic.Int64  // calls under way, plus shutGate
	empty chan struct{} // told when shut and the last call has left
}

const shutGate = -1 << 62

func (g *gate) enter() bool {
	if g.n.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.n.Add(-1) == shutGate {
		select {
		case g.empty <- struct{}{}:
		default:
		}
	}
}

func (g *gate) isShut() bool { return g.n.Load() < 0 }

// shut lets no call in any more and waits for those inside; false where it was
// shut before.
func (g *gate) shut() bool {
	for {
		n := g.n.Load()
		if n < 0 {
			return false
		}
		if g.n.CompareAndSwap(n, n+shutGate) {
			if n > 0 {
				<-g.empty
			}
			return true
		}
	}
}
