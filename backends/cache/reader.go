package cache

import (
	"context"
	"errors"
	"sync"

	"glanced/backends/stored"
)

var (
	_ stored.Bytes      = (*reader)(nil)
	_ stored.FileRanger = (*reader)(nil)
	_ stored.WholeFiler = (*reader)(nil)
	_ stored.Extenter   = (*reader)(nil)
	_ stored.Prefetcher = (*reader)(nil)
	_ stored.Verifier   = (*reader)(nil)
)

const (
	// maxRange bounds the chunks that one FileRange holds, and one read from disk.
	maxRange = 256
	// maxRun bounds the chunks that are looked at in one go for their zeros.
	maxRun = 1024
	// maxAtOnce is how many flights one read begins or joins before it waits.
	maxAtOnce = 16
)

// reader is bytes that a store has opened, with the cache before them.
type reader struct {
	c     *Cache
	o     *object
	up    *Upstream
	inner stored.Bytes

	// Cache.mu's
	closed bool
	uses   int // of inner: one until it is closed, and one for each flight
}

// Bytes are b, read through the cache, from the upstream that u is. Bytes that have no
// identity, that lie in local files anyway, or that are none, are returned as they
// are. To close what is returned closes b, once no fetch needs it any more.
func (c *Cache) Bytes(b stored.Bytes, u *Upstream) stored.Bytes { return c.bytes(b, u, "") }

func (c *Cache) bytes(b stored.Bytes, u *Upstream, place string) stored.Bytes {
	_, ranges := stored.As[stored.FileRanger](b)
	_, whole := stored.As[stored.WholeFiler](b)
	id, size := b.Identity(), b.Size()
	if ranges || whole || id == "" || len(id) > maxName || (header{chunk: c.cfg.ChunkSize, size: size}).chunks() == 0 {
		return b
	}
	c.mu.Lock()
	o := c.objects[id]
	if o != nil && o.size != size || c.closed {
		c.mu.Unlock()
		return b // an identity of two sizes is none
	}
	if o == nil {
		o = c.newObject(id, size)
		c.objects[id] = o
	}
	if place != "" && place != o.place {
		if c.places[o.place] == o {
			delete(c.places, o.place)
		}
		o.place = place
		c.places[place] = o
	}
	r := &reader{c: c, o: o, up: u, inner: b, uses: 1}
	o.open[r] = struct{}{}
	o.users++
	known := len(o.chunks) > 0 && o.data == nil
	c.mu.Unlock()
	if known {
		c.files.Lock()
		if _, err := o.enter(); err != nil {
			c.log.Warn("cached data cannot be opened; it is read from the store", "error", err)
		}
		c.files.Unlock()
		o.left()
	}
	return r
}

// Unwrap shows what other abilities the bytes have.
func (r *reader) Unwrap() stored.Bytes { return r.inner }

func (r *reader) Size() int64               { return r.o.size }
func (r *reader) Identity() stored.Identity { return r.o.id }

// ReadAt implements stored.Bytes. What is cached is read from the local file; the rest
// is fetched.
func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := stored.Inside(r, off, int64(len(p))); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for len(p) > 0 {
		n, err := r.readHere(p, off)
		if n == 0 && err == nil {
			n, err = r.readThere(ctx, p, off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// hold holds the chunks that the n bytes from off on begin with, as far as they can be
// read now; the range ends with the last of them, or with the n bytes.
func (r *reader) hold(off, n int64) (rg stored.FileRange, first, held uint32, err error) {
	c, o := r.c, r.o
	first = o.at(off)
	want := min(o.at(off+n-1)-first+1, maxRange)
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.closed || c.closed {
		return rg, 0, 0, errClosed
	}
	held = o.hold(first, want, c.second())
	if held == 0 {
		return rg, 0, 0, nil
	}
	o.counts.Hits += int64(held)
	c.counts.Hits += int64(held)
	return stored.FileRange{File: o.data, Pos: off, Len: min(off+n, o.start(first+held)) - off}, first, held, nil
}

func (r *reader) release(first, held uint32) {
	r.c.mu.Lock()
	f := r.o.release(first, held)
	r.c.mu.Unlock()
	if f != nil {
		f.Close()
	}
}

// readHere fills the beginning of p with what is cached, and says how much that is.
func (r *reader) readHere(p []byte, off int64) (int, error) {
	rg, first, held, err := r.hold(off, int64(len(p)))
	if held == 0 {
		return 0, err
	}
	_, err = rg.File.ReadAt(p[:rg.Len], off)
	r.release(first, held)
	if err != nil {
		r.c.log.Warn("a part of the cache cannot be read; it is fetched anew", "error", err)
		r.c.forgetRun(r.o, first, held)
		return 0, nil
	}
	return int(rg.Len), nil
}

// readThere fills the beginning of p with what has to be fetched: it begins flights
// for all of p, as far as there is memory for them, joins those that are under way, and
// adds to those that wait. 0: the first chunk has just come.
func (r *reader) readThere(ctx context.Context, p []byte, off int64) (int, error) {
	var room [maxAtOnce]*flight
	flights, err := r.join(room[:0], off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	n := 0
	for i, f := range flights {
		if err = f.wait(ctx); err == nil {
			// A flight that was added to meanwhile may have brought all of this one, too.
			if at := off + int64(n) - r.o.start(f.first); at < int64(len(f.buf)) {
				n += copy(p[n:], f.buf[at:])
			}
			flights[i] = nil
			r.c.mu.Lock()
			f.leave()
			r.c.mu.Unlock()
			continue
		}
		r.c.mu.Lock()
		for _, f := range flights[i:] {
			f.leave()
		}
		r.c.mu.Unlock()
		return 0, err
	}
	return n, nil
}

// join gathers flights that together have the n bytes from off on, or the beginning of
// them.
func (r *reader) join(flights []*flight, off, n int64) ([]*flight, error) {
	c, o := r.c, r.o
	first, end := o.at(off), o.at(off+n-1)+1
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.closed || c.closed {
		return nil, errClosed
	}
	for i := first; i < end && len(flights) < cap(flights); {
		f := o.flights[i]
		if f == nil && o.state(i) == readable {
			return flights, nil
		}
		if f == nil {
			f = r.extend(i, end)
		}
		switch {
		case f == nil:
			f = r.begin(i, end-i, false)
			f.lingers = n <= r.up.maxExtended/2
			flights = append(flights, f)
			go f.fly()
		case len(flights) == 0 || flights[len(flights)-1] != f:
			f.wanted++
			flights = append(flights, f)
		}
		next := min(f.first+f.n, end)
		o.counts.Misses += int64(next - i)
		c.counts.Misses += int64(next - i)
		i = next
		// What waits for memory may wait for that of the others, so that nobody waits
		// for it with buffers in hand: it is waited for last, and alone.
		if !f.funded {
			break
		}
	}
	return flights, nil
}

// FileRange implements stored.FileRanger.
func (r *reader) FileRange(off, n int64) (stored.FileRange, bool) {
	if n <= 0 || stored.Inside(r, off, n) != nil {
		return stored.FileRange{}, false
	}
	rg, first, held, _ := r.hold(off, n)
	if held == 0 {
		return stored.FileRange{}, false
	}
	h := heldRanges.Get().(*heldRange)
	*h = heldRange{r.o, first, held}
	rg.Hold = h
	return rg, true
}

// WholeFile implements stored.WholeFiler. What is complete and was not looked at since
// the start is looked at now, for the next time.
func (r *reader) WholeFile() (stored.FileRange, bool) {
	c, o := r.c, r.o
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case r.closed || c.closed:
	case o.holdWhole():
		return stored.FileRange{File: o.data, Len: o.size, Hold: (*heldWhole)(o)}, true
	case o.n == uint32(len(o.chunks)):
		r.hint(0, o.size)
	}
	return stored.FileRange{}, false
}

// Extents implements stored.Extenter: cached chunks of zeros are holes. What is not
// cached is told as data, as are shorter runs of zeros.
func (r *reader) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	if err := stored.Inside(r, off, n); err != nil {
		return err
	}
	for end := off + n; off < end; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		until, hole, err := r.zeroRun(off, end)
		if err != nil {
			return err
		}
		if !yield(off, until-off, hole) {
			return nil
		}
		off = until
	}
	return nil
}

// zeroRun is how far the chunks from that of byte off on, to end at most, are zeros, or
// are not known to be.
func (r *reader) zeroRun(off, end int64) (until int64, hole bool, err error) {
	o := r.o
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if r.closed || r.c.closed {
		return 0, false, errClosed
	}
	first, last := o.at(off), o.at(end-1)
	i := first
	for hole = o.zeros(i); i < last && i-first < maxRun && o.zeros(i+1) == hole; i++ {
	}
	return min(o.start(i+1), end), hole, nil
}

// heldRange is a hold on chunks. A plan makes one for each piece, so they are used
// again.
type heldRange struct {
	o           *object
	first, held uint32
}

var heldRanges = sync.Pool{New: func() any { return new(heldRange) }}

func (h *heldRange) Release() {
	was := *h
	*h = heldRange{}
	heldRanges.Put(h)
	was.o.c.mu.Lock()
	f := was.o.release(was.first, was.held)
	was.o.c.mu.Unlock()
	if f != nil {
		f.Close()
	}
}

// heldWhole is a hold on all of an object.
type heldWhole object

func (h *heldWhole) Release() {
	o := (*object)(h)
	o.c.mu.Lock()
	f := o.releaseWhole()
	o.c.mu.Unlock()
	if f != nil {
		f.Close()
	}
}

// Verify implements stored.Verifier, as far as the store's bytes do.
func (r *reader) Verify(ctx context.Context) error {
	v, ok := stored.As[stored.Verifier](r.inner)
	if !ok {
		return nil
	}
	err := v.Verify(ctx)
	if errors.Is(err, stored.ErrChanged) {
		r.c.drop(r.o)
	}
	return err
}

// Close implements stored.Bytes. Fetches that others wait for go on.
func (r *reader) Close() error {
	c, o := r.c, r.o
	c.mu.Lock()
	if r.closed {
		c.mu.Unlock()
		return nil
	}
	r.closed = true
	r.unhint()
	delete(o.open, r)
	closes, data := r.unuse(), o.leave()
	c.mu.Unlock()
	data.Close()
	if closes {
		return r.inner.Close()
	}
	return nil
}

// unuse takes a use of inner away; it reports whether it is to be closed. Cache.mu.
func (r *reader) unuse() bool {
	r.uses--
	return r.uses == 0
}

// drop has nothing of an object served any more, and frees what nobody holds.
func (c *Cache) drop(o *object) error {
	c.files.Lock()
	defer c.files.Unlock()
	c.mu.Lock()
	gone := o.dropAll()
	c.mu.Unlock()
	return c.remove(gone)
}

// forgetRun drops chunks that cannot be read.
func (c *Cache) forgetRun(o *object, first, n uint32) {
	c.files.Lock()
	defer c.files.Unlock()
	var gone []*chunk
	c.mu.Lock()
	for i := first; i < first+n; i++ {
		if ch := o.chunks[i]; ch != nil && !ch.dropped {
			if ch.verified {
				o.good--
			}
			ch.dropped = true
			gone = append(gone, ch)
		}
	}
	c.mu.Unlock()
	if err := c.remove(gone); err != nil {
		c.fail(err)
	}
}
