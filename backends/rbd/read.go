//go:build ceph

package rbd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"

	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends/stored"
)

// pieces are buffers of pieceLen bytes. A call may outlive who made it, so it reads into
// one of these and not into the caller's.
var pieces = sync.Pool{New: func() any { return new([pieceLen]byte) }}

var zeros [pieceLen]byte

// ReadAt implements stored.Bytes. Long reads are made in pieces, several at once.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := stored.Inside(o, off, int64(len(p))); err != nil {
		return o.s.wrap("read from", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(p) == 0 {
		return nil
	}
	h, err := o.handle(ctx)
	if err != nil {
		return o.s.wrap("read from", err)
	}
	defer h.leave()
	var all sync.WaitGroup
	errs := make([]error, 0, 1)
	var mu sync.Mutex
	piece := func(p []byte, off int64) {
		if err := o.readPiece(ctx, h, p, off); err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		}
	}
	for len(p) > 0 {
		n := min(int64(len(p)), pieceLen-off%pieceLen)
		if n == int64(len(p)) {
			piece(p, off)
			break
		}
		part, at := p[:n], off
		all.Go(func() { piece(part, at) })
		p, off = p[n:], off+n
	}
	all.Wait()
	return o.s.wrap("read from", errors.Join(errs...))
}

// readPiece reads what lies within pieceLen aligned bytes.
func (o *object) readPiece(ctx context.Context, h *handle, p []byte, off int64) error {
	h.again()
	n := len(p)
	buf, err := do(ctx, o.s.reads, h, func() (*[pieceLen]byte, error) {
		buf := pieces.Get().(*[pieceLen]byte)
		err := o.readInto(h, buf[:n], off)
		if err != nil {
			pieces.Put(buf)
			return nil, o.s.heed(h.ses, err)
		}
		return buf, nil
	}, func(buf *[pieceLen]byte) { pieces.Put(buf) })
	if err != nil {
		return err
	}
	copy(p, buf[:n])
	pieces.Put(buf)
	return nil
}

func (o *object) readInto(h *handle, buf []byte, off int64) error {
	got, err := h.img.ReadAt(buf, off)
	if err != nil {
		if _, known := errno(err); !known || got > 0 {
			return fmt.Errorf("read %d bytes at %d: %w: got %d", len(buf), off, stored.ErrUnavailable, got)
		}
		return explain(fmt.Sprintf("read %d bytes at %d", len(buf), off), err)
	}
	if o.parent || zeroUnit(buf, off, int64(o.unit)) {
		return o.there(h.ses)
	}
	return nil
}

// zeroUnit reports whether all that buf has of one RADOS object is zero: so it is where
// the object is not there.
func zeroUnit(buf []byte, off, unit int64) bool {
	for len(buf) > 0 {
		n := min(int64(len(buf)), unit-off%unit)
		if string(buf[:n]) == string(zeros[:n]) {
			return true
		}
		buf, off = buf[n:], off+n
	}
	return false
}

// maxRuns is how many runs of an image Extents asks for at once; what lies behind them is
// told as no hole.
const maxRuns = 64 << 10

// Extents implements stored.Extenter. Holes are whole RADOS objects: the cluster knows
// them without looking into each, where the image has the feature fast-diff.
func (o *object) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	if err := stored.Inside(o, off, n); err != nil || n == 0 {
		return o.s.wrap("ask for holes in", err)
	}
	h, err := o.handle(ctx)
	if err != nil {
		return o.s.wrap("ask for holes in", err)
	}
	runs, err := do(ctx, o.s.reads, h, func() ([]run, error) {
		runs, err := dataRuns(h.img, off, n)
		if err == nil {
			err = o.there(h.ses)
		}
		return runs, o.s.heed(h.ses, err)
	}, nil)
	if err != nil {
		return o.s.wrap("ask for holes in", err)
	}
	for at, end := off, off+n; at < end; {
		next := run{end, 0}
		if len(runs) > 0 {
			next, runs = runs[0], runs[1:]
		}
		if next.off > at && !yield(at, next.off-at, true) || next.n > 0 && !yield(next.off, next.n, false) {
			return nil
		}
		at = next.off + next.n
	}
	return nil
}

// run is a range of an image that may hold data, bytes.
type run struct{ off, n int64 }

// dataRuns are the ranges within [off, off+n) that may hold data, in ascending order,
// none next to another. It makes a call.
func dataRuns(img *librbd.Image, off, n int64) (runs []run, err error) {
	end := off + n
	err = img.DiffIterate(librbd.DiffIterateConfig{
		Offset: uint64(off), Length: uint64(n), IncludeParent: librbd.IncludeParent, WholeObject: librbd.EnableWholeObject,
		Callback: func(at, length uint64, exists int, _ any) int {
			from, to := max(int64(at), off), min(int64(at)+int64(length), end)
			if exists == 0 || from >= to {
				return 0
			}
			last := len(runs) - 1
			switch {
			case last >= 0 && from <= runs[last].off+runs[last].n:
				runs[last].n = max(runs[last].n, to-runs[last].off)
			case len(runs) == maxRuns:
				runs[last].n = end - runs[last].off
				return -int(syscall.ECANCELED)
			default:
				runs = append(runs, run{from, to - from})
			}
			return 0
		},
	})
	if is(err, syscall.ECANCELED) && len(runs) == maxRuns {
		err = nil
	}
	return runs, explain("list the image's extents", err)
}
