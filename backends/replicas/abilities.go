package replicas

import (
	"context"

	"glanced/backends/stored"
)

var (
	_ stored.FileRanger = (*reader)(nil)
	_ stored.WholeFiler = (*reader)(nil)
	_ stored.Extenter   = (*reader)(nil)
	_ stored.Prefetcher = (*reader)(nil)
	_ stored.Verifier   = (*reader)(nil)
)

// used is the connection of the replica in use, with one more user; nil: there is
// none. It waits for nothing.
func (r *reader) used() *connection {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.inUse < 0 {
		return nil
	}
	c := r.replicas[r.inUse].conn
	if c != nil {
		c.users++
	}
	return c
}

// FileRange implements stored.FileRanger. As long as the range is held, its file
// stays open, also when reads have moved on.
func (r *reader) FileRange(off, n int64) (stored.FileRange, bool) {
	return r.held(func(c *connection) (stored.FileRange, bool) {
		if c.files == nil {
			return stored.FileRange{}, false
		}
		return c.files.FileRange(off, n)
	})
}

// WholeFile implements stored.WholeFiler; see FileRange.
func (r *reader) WholeFile() (stored.FileRange, bool) {
	return r.held(func(c *connection) (stored.FileRange, bool) {
		if c.whole == nil {
			return stored.FileRange{}, false
		}
		return c.whole.WholeFile()
	})
}

// held asks the replica in use for a range, and keeps its connection for as long as
// the range is held.
func (r *reader) held(ask func(*connection) (stored.FileRange, bool)) (stored.FileRange, bool) {
	c := r.used()
	if c == nil {
		return stored.FileRange{}, false
	}
	x, ok := ask(c)
	if !ok {
		r.release(c)
		return stored.FileRange{}, false
	}
	x.Hold = &hold{r, c, x.Hold}
	return x, true
}

// hold is a hold of a connection's, and one on the connection.
type hold struct {
	r     *reader
	c     *connection
	below stored.Hold // nil = none
}

func (h *hold) Release() {
	if h.below != nil {
		h.below.Release()
	}
	h.r.release(h.c)
}

// Extents implements stored.Extenter. Where a replica fails in the middle, the next
// goes on; one that knows no holes tells all as data.
func (r *reader) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	if err := stored.Inside(r, off, n); err != nil {
		return err
	}
	at, end := off, off+n // what is not told yet
	stopped := false
	tell := func(off, n int64, hole bool) bool {
		at = off + n
		stopped = !yield(off, n, hole)
		return !stopped
	}
	return r.try(ctx, func(ctx context.Context, c *connection) error {
		switch {
		case stopped || at == end:
			return nil
		case c.holes == nil:
			tell(at, end-at, false)
			return nil
		}
		err := c.holes.Extents(ctx, at, end-at, tell)
		if stopped {
			return nil
		}
		return err
	})
}

// Prefetch implements stored.Prefetcher.
func (r *reader) Prefetch(off, n int64) {
	c := r.used()
	if c == nil {
		return
	}
	if c.ahead != nil {
		c.ahead.Prefetch(off, n)
	}
	r.release(c)
}

// Verify implements stored.Verifier: a replica that has changed is left for the
// next.
func (r *reader) Verify(ctx context.Context) error {
	return r.try(ctx, func(ctx context.Context, c *connection) error {
		if c.verifier == nil {
			return nil
		}
		return c.verifier.Verify(ctx)
	})
}
