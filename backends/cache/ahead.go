package cache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxHints bounds the ranges that wait to be fetched ahead from one store.
	maxHints = 64
	// aheadFetch is the most that one fetch ahead asks for, bytes: who comes to want a
	// part of it waits for all of it.
	aheadFetch = 1 << 20
	// aheadMemory is the part of the memory that one store's read-ahead may take: half
	// of what a store alone may (package budget).
	aheadMemory = 4
	// aheadLater is when to look again where memory or bandwidth was short.
	aheadLater = 20 * time.Millisecond
)

// hint is chunks that will be read soon.
type hint struct {
	r          *reader
	first, end uint32
}

// Prefetch implements stored.Prefetcher. What is asked for is fetched when foreground
// reads leave a connection, memory and bandwidth for it; where too much is asked for
// already, it is not.
func (r *reader) Prefetch(off, n int64) {
	off, n = max(off, 0), min(n, r.o.size-off)
	if n <= 0 {
		return
	}
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.hint(off, n)
}

// hint is Prefetch. Cache.mu.
func (r *reader) hint(off, n int64) {
	h := hint{r, r.o.at(off), r.o.at(off+n-1) + 1}
	if u := r.up; !r.closed && !r.c.closed && len(u.hints) < maxHints && !slices.Contains(u.hints, h) {
		u.hints = append(u.hints, h)
		u.pump()
	}
}

// unhint ends what is fetched ahead for r alone. Cache.mu.
func (r *reader) unhint() {
	r.up.hints = slices.DeleteFunc(r.up.hints, func(h hint) bool { return h.r == r })
	var ahead []*flight
	for _, f := range r.o.flights {
		if f.hinted && f.r == r {
			f.hinted = false
			ahead = append(ahead, f)
		}
	}
	for _, f := range ahead {
		f.leave()
	}
}

// pump begins what is to be fetched ahead, as far as it may now. Whoever gives back
// what it lacked calls it again. Cache.mu.
func (u *Upstream) pump() {
	for len(u.hints) > 0 && !u.c.closed {
		h := &u.hints[0]
		o := h.r.o
		for h.first < h.end && (o.flights[h.first] != nil || o.state(h.first) == readable) {
			h.first++
		}
		if h.first == h.end {
			u.hints = u.hints[1:]
			continue
		}
		if !u.line.tryAhead() {
			return
		}
		n := o.run(h.first, min(h.end-h.first, uint32(max(1, aheadFetch/u.c.cfg.ChunkSize))))
		var f *flight
		if bytes := o.span(h.first, n); u.aheadBytes+bytes <= u.c.cfg.Memory.Size()/aheadMemory && u.mayAhead(bytes) {
			f = h.r.begin(h.first, n, true)
		}
		if f == nil {
			u.line.give(true)
			u.pumpLater()
			return
		}
		f.online, f.hinted = true, true
		h.first += f.n
		go f.fly()
	}
}

// pumpLater pumps again in a while. Cache.mu.
func (u *Upstream) pumpLater() {
	if u.later {
		return
	}
	u.later = true
	time.AfterFunc(aheadLater, func() {
		u.c.mu.Lock()
		defer u.c.mu.Unlock()
		u.later = false
		u.pump()
	})
}

// fill fetches all that is missing, ahead of who reads, and waits for it.
func (r *reader) fill(ctx context.Context) error {
	c, o := r.c, r.o
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var next atomic.Int64
	step := max(1, aheadFetch/c.cfg.ChunkSize)
	var workers sync.WaitGroup
	for range r.up.line.aheadLimit() {
		workers.Go(func() {
			for ctx.Err() == nil {
				first := next.Add(step) - step
				if first >= int64(o.n) {
					return
				}
				if err := r.fillRun(ctx, uint32(first), uint32(min(first+step, int64(o.n)))); err != nil {
					stop(err)
				}
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if o.good < o.n {
		return fmt.Errorf("%w: %d of its %d chunks are there", ErrNotKept, o.good, o.n)
	}
	return nil
}

func (r *reader) fillRun(ctx context.Context, first, end uint32) error {
	c, o := r.c, r.o
	for first < end {
		c.mu.Lock()
		if r.closed || c.closed {
			c.mu.Unlock()
			return errClosed
		}
		if o.state(first) == readable {
			c.mu.Unlock()
			first++
			continue
		}
		f := o.flights[first]
		if f != nil {
			f.wanted++
		} else {
			if f = r.begin(first, end-first, true); f == nil { // it waits for memory
				f = r.begin(first, 1, false)
				f.ahead, f.fixed = true, true
				r.up.aheadBytes += f.bytes()
			}
			go f.fly()
		}
		c.mu.Unlock()
		err := f.wait(ctx)
		c.mu.Lock()
		f.leave()
		c.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-f.landed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		first = f.first + f.n
	}
	return nil
}
