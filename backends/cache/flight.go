package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"glanced/backends/stored"
)

const (
	// maxFetch is the most that one request asks a store for, bytes.
	maxFetch = 4 << 20
	// extendedFetch is the most that small reads of neighbours become one request for,
	// bytes: more would leave connections idle, and have the first wait for the last.
	extendedFetch = 2 << 20
	// extendedMemory is the part of the memory that such a request takes at most.
	extendedMemory = 8
	// lingerTime is how long a flight that follows another waits to be extended.
	lingerTime = time.Millisecond
)

// flight is neighbouring chunks that are being fetched, or looked at for the first
// time since the start; no chunk is in two. It runs on a goroutine of its own, with a
// deadline of its own, as long as somebody wants it. Who wants it copies from buf as
// soon as that is full; writing it to the disk comes after.
//
// It is not a flight.Group's: one covers many keys, and who reads takes part in several.
type flight struct {
	o        *object
	r        *reader // whose bytes are read
	first, n uint32  // chunks; Cache.mu's until fixed
	ahead    bool    // read-ahead: it gives way to others
	online   bool    // it has a connection from the beginning
	lingers  bool    // a small read began it: others may follow
	onDisk   bool    // its chunks are on disk, and to be looked at
	drops    int     // of the object, when it began
	ctx      context.Context
	cancel   context.CancelFunc

	done   chan struct{} // closed when the next two are set
	buf    []byte
	block  *[]byte // what buf is of, pooled; nil: it is not
	err    error
	kept   []bool        // of its chunks: nothing is to be written, for it is on disk
	landed chan struct{} // closed when it holds nothing any more but buf

	// Cache.mu's
	wanted  int           // who wants it
	hinted  bool          // one of them is the hint that began it
	funded  bool          // its memory is taken
	fixed   bool          // no more chunks are added
	filled  chan struct{} // closed when it is full; nil: nobody waits for that
	over    bool          // done
	running bool
}

// state is what chunk i is to a reader. Cache.mu.
type state uint8

const (
	missing state = iota
	unverified
	readable
)

func (o *object) state(i uint32) state {
	ch := o.chunks[i]
	switch {
	case ch == nil || ch.dropped || o.data == nil:
		return missing
	case !ch.verified:
		return unverified
	}
	return readable
}

// run is how many chunks from first on, at most n, one flight can fetch: they are in
// the same state, and in no other flight. Cache.mu.
func (o *object) run(first, n uint32) uint32 {
	n = min(n, o.n-first)
	kind := o.state(first)
	got := uint32(1)
	for got < n && o.flights[first+got] == nil && o.state(first+got) == kind {
		got++
	}
	return got
}

// begin begins a flight of chunks from first on, at most n, which are not readable and
// in no flight. If memory is short it is of fewer; if there is none, one chunk waits
// for it, or, where the caller goes ahead, there is no flight. Cache.mu.
func (r *reader) begin(first, n uint32, ahead bool) *flight {
	o, u := r.o, r.up
	n = o.run(first, min(n, uint32(maxFetch/o.c.cfg.ChunkSize)))
	got := u.tryMemory(o.span(first, 1), o.span(first, n))
	if got == 0 && ahead {
		return nil
	}
	onDisk := o.state(first) == unverified
	f := &flight{o: o, r: r, first: first, n: n, ahead: ahead, onDisk: onDisk, drops: o.drops, done: make(chan struct{}), landed: make(chan struct{}),
		wanted: 1, funded: got > 0, fixed: ahead || onDisk, running: true}
	if got == 0 {
		f.n = 1
		u.unfunded++
	} else {
		for o.span(first, f.n) > got {
			f.n--
		}
		u.memory.Give(got - f.bytes())
	}
	if ahead {
		u.aheadBytes += f.bytes()
	}
	f.ctx, f.cancel = context.WithTimeoutCause(o.c.life, o.c.cfg.Deadline,
		fmt.Errorf("%w: it did not answer within %v", stored.ErrUnavailable, o.c.cfg.Deadline))
	for i := range f.n {
		o.flights[first+i] = f
	}
	r.uses++
	o.users++
	o.c.running.Add(1)
	return f
}

// tryMemory takes between least and most bytes for a flight, if nobody waits for any.
// Cache.mu.
func (u *Upstream) tryMemory(least, most int64) int64 {
	if u.unfunded > 0 {
		return 0
	}
	return u.memory.TryTake(least, most)
}

// extend adds chunk i, and those after it before end, to a flight beside it that waits
// for memory or for a connection, as far as they are missing: so the many small reads
// of a copy become few requests. nil: there is none. Cache.mu.
func (r *reader) extend(i, end uint32) *flight {
	o := r.o
	if o.state(i) != missing {
		return nil
	}
	f := (*flight)(nil)
	if i > 0 && o.flights[i-1].take(r, i) {
		f = o.flights[i-1]
	} else if o.flights[i+1].take(r, i) {
		f = o.flights[i+1]
	} else {
		return nil
	}
	for i++; i < end && o.flights[i] == nil && o.state(i) == missing && f.first+f.n == i && f.take(r, i); i++ {
	}
	return f
}

// take adds chunk i, which is beside the flight, if it may. Cache.mu.
func (f *flight) take(r *reader, i uint32) bool {
	if f == nil || f.fixed {
		return false
	}
	o, u := f.o, f.r.up
	more := o.span(i, 1)
	if f.drops != o.drops || u != r.up || f.bytes()+more > u.maxExtended || f.funded && u.tryMemory(more, more) == 0 {
		return false
	}
	f.first = min(f.first, i)
	f.n++
	o.flights[i] = f
	if f.filled != nil && f.full() {
		close(f.filled)
		f.filled = nil
	}
	return true
}

func (f *flight) bytes() int64 { return f.o.span(f.first, f.n) }

// fly does it all.
func (f *flight) fly() {
	c, o := f.o.c, f.o
	defer c.running.Done()
	f.err = f.load()
	if errors.Is(f.err, stored.ErrChanged) {
		c.drop(o)
	}
	c.mu.Lock()
	f.over = true
	if f.err != nil {
		f.leaveTable()
	}
	f.r.up.pump() // a connection is free
	c.mu.Unlock()
	close(f.done)
	if f.err == nil {
		c.keep(f)
	}
	f.cancel()
	c.mu.Lock()
	f.leaveTable()
	f.running = false
	if f.ahead {
		f.r.up.aheadBytes -= f.bytes()
	}
	if f.hinted {
		f.hinted = false
		f.wanted--
	}
	f.freeUnwanted()
	closes, data := f.r.unuse(), o.leave()
	f.r.up.pump()
	c.mu.Unlock()
	data.Close()
	if closes {
		f.r.inner.Close()
	}
	close(f.landed)
}

// leaveTable lets nobody join any more. Cache.mu.
func (f *flight) leaveTable() {
	for i := range f.n {
		if f.o.flights[f.first+i] == f {
			delete(f.o.flights, f.first+i)
		}
	}
}

// leave takes off one who wanted it; without any, it ends. Cache.mu.
func (f *flight) leave() {
	f.wanted--
	if f.wanted == 0 && !f.over {
		f.leaveTable()
		f.cancel()
	}
	f.freeUnwanted()
}

// freeUnwanted gives back the memory that nobody looks at any more. Cache.mu.
func (f *flight) freeUnwanted() {
	if f.wanted == 0 && !f.running {
		f.o.c.buffers.put(f.block)
		f.buf, f.block = nil, nil
		if f.funded {
			f.r.up.memory.Give(f.bytes())
			f.funded = false
		}
	}
}

// wait waits until buf is there.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fund waits for the flight's memory. Those of one upstream do so one after the other:
// the first to wait is the first to have it, and those behind it can be added to.
func (f *flight) fund() error {
	c, u := f.o.c, f.r.up
	paid := func(err error) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		u.unfunded--
		f.funded, f.fixed = err == nil, err != nil || f.ahead || f.onDisk
		return err
	}
	select {
	case u.purse <- struct{}{}:
	case <-f.ctx.Done():
		return paid(context.Cause(f.ctx))
	}
	defer func() { <-u.purse }()
	c.mu.Lock()
	f.fixed = true
	c.mu.Unlock()
	_, err := u.memory.Take(f.ctx, f.bytes(), f.bytes())
	return paid(err)
}

// linger gives those who read on a moment to have their chunks added, where the flight
// follows others closely: at a distance, a request is worth more than that.
func (f *flight) linger() {
	c := f.o.c
	c.mu.Lock()
	if f.fixed || !f.lingers || f.full() || !f.follows() {
		c.mu.Unlock()
		return
	}
	filled := make(chan struct{})
	f.filled = filled
	c.mu.Unlock()
	t := time.NewTimer(lingerTime)
	defer t.Stop()
	select {
	case <-filled:
	case <-t.C:
	case <-f.ctx.Done():
	}
}

// follows reports whether there are flights of chunks shortly before its own: the reads
// of a copy come nearly in order. Cache.mu.
func (f *flight) follows() bool {
	o := f.o
	reach := uint32(f.r.up.maxExtended / o.c.cfg.ChunkSize)
	for i := f.first; i > 0 && i+reach > f.first; i-- {
		if o.flights[i-1] != nil {
			return true
		}
	}
	return false
}

// full reports whether no further chunk would fit. Cache.mu.
func (f *flight) full() bool { return f.bytes()+f.o.c.cfg.ChunkSize > f.r.up.maxExtended }

// fix has no more chunks added, and makes room for those that there are.
func (f *flight) fix() {
	c := f.o.c
	c.mu.Lock()
	f.fixed = true
	c.mu.Unlock()
	f.kept = make([]bool, f.n)
	f.buf, f.block = c.buffers.get(f.bytes())
}

// load fills buf, from the disk as far as what is there is right, else from the store.
func (f *flight) load() error {
	u := f.r.up
	if f.online {
		defer u.line.give(f.ahead)
	}
	if !f.funded {
		if err := f.fund(); err != nil {
			return err
		}
	}
	var first, n uint32 // what is to be fetched
	if f.onDisk {
		f.fix()
		if first, n = f.verify(); n == 0 {
			return nil
		}
	}
	if !f.online {
		f.linger()
		if err := u.line.take(f.ctx, f.ahead); err != nil {
			return err
		}
		defer u.line.give(f.ahead)
	}
	if !f.onDisk {
		f.fix()
		first, n = f.first, f.n
	}
	return f.fetch(first, n)
}

// fetch fills the part of buf that n chunks from first on are, from the store.
func (f *flight) fetch(first, n uint32) error {
	c, o, u := f.o.c, f.o, f.r.up
	p := f.buf[o.start(first)-o.start(f.first):][:o.span(first, n)]
	if u.rate != nil && !f.online {
		if err := u.rate.WaitN(f.ctx, len(p)); err != nil {
			if f.ctx.Err() != nil {
				return context.Cause(f.ctx)
			}
			return fmt.Errorf("%w: its bandwidth is used up for longer than a read may wait: %v", stored.ErrUnavailable, err)
		}
	}
	err := f.r.inner.ReadAt(f.ctx, p, o.start(first))
	if err != nil {
		if f.ctx.Err() != nil {
			err = context.Cause(f.ctx)
		}
		return fmt.Errorf("fetch %d bytes at %d: %w", len(p), o.start(first), err)
	}
	c.mu.Lock()
	for _, counts := range []*Counts{&o.counts, &c.counts} {
		counts.Fetches++
		counts.FetchedBytes += int64(len(p))
	}
	c.mu.Unlock()
	return nil
}

// verify reads what of the flight is on disk, looks whether it is what was written,
// and says which run of chunks is yet to be fetched.
func (f *flight) verify() (first, n uint32) {
	c, o := f.o.c, f.o
	sums := make([]uint32, f.n)
	c.mu.Lock()
	if o.state(f.first) != unverified || f.drops != o.drops {
		c.mu.Unlock()
		return f.first, f.n
	}
	held := make([]*chunk, 0, f.n)
	for i := range f.n {
		ch := o.chunks[f.first+i]
		if ch == nil { // evicted since the flight began
			break
		}
		ch.holds++
		sums[i] = ch.sum
		held = append(held, ch)
	}
	data := o.data
	c.mu.Unlock()
	good, zeros := make([]bool, len(held)), make([]bool, len(held))
	if p := f.buf[:o.span(f.first, uint32(len(held)))]; len(p) > 0 {
		if _, err := data.ReadAt(p, o.start(f.first)); err != nil {
			c.log.Warn("a part of the cache cannot be read; it is fetched anew", "error", err)
		} else {
			for i := range held {
				b := p[o.span(f.first, uint32(i)):o.span(f.first, uint32(i)+1)]
				good[i], zeros[i] = sumOf(b) == sums[i], isZero(b)
			}
		}
	}
	first, end := f.first+uint32(len(held)), f.first+f.n // what is not there
	if first == end {
		end = f.first
	}
	var bad []*chunk
	c.mu.Lock()
	for i, ch := range held {
		ch.holds--
		switch {
		case good[i] && !ch.dropped:
			ch.verified, ch.zeros = true, zeros[i]
			o.good++
			f.kept[i] = true
			continue
		case ch.dropped && !ch.busy():
			c.purgeLater(ch)
		case !ch.dropped:
			ch.dropped = true
			bad = append(bad, ch)
		}
		first, end = min(first, f.first+uint32(i)), max(end, f.first+uint32(i)+1)
	}
	c.counts.Damaged += int64(len(bad))
	o.counts.Damaged += int64(len(bad))
	c.mu.Unlock()
	if len(bad) > 0 {
		c.log.Warn("chunks of the cache are damaged, as after a power cut, and are fetched anew", "chunks", len(bad))
		c.files.Lock()
		c.remove(bad)
		c.files.Unlock()
	}
	if first >= end {
		return 0, 0
	}
	return first, end - first
}
