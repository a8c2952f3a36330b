package cache

import (
	"errors"
	"slices"
	"time"
)

// retryAfter is how long a disk that failed is left alone.
const retryAfter = 30 * time.Second

// keepAtOnce is the most that room is made for at once, bytes: where little is to be
// had, a part of a flight is kept.
const keepAtOnce = 1 << 20

// writing is what is known of the disk. Cache.files'.
type writing struct {
	off   error     // why nothing is written; nil: it is
	retry time.Time // when it is tried again
	low   bool      // there is less free space than is to stay free
}

// keep puts what a flight has fetched on the disk, as far as there is room. Where not,
// that is no harm: who wanted it has it.
func (c *Cache) keep(f *flight) {
	if !slices.Contains(f.kept, false) {
		return
	}
	o := f.o
	sums := make([]uint32, f.n)
	for i := range sums {
		sums[i] = sumOf(f.buf[o.span(f.first, uint32(i)):o.span(f.first, uint32(i)+1)])
	}
	c.files.Lock()
	defer c.files.Unlock()
	if c.writes.off != nil && time.Now().Before(c.writes.retry) {
		c.unkept(o, int64(f.n))
		return
	}
	for i := uint32(0); i < f.n; {
		n := c.keepable(f, i)
		if n > 0 {
			if kept := c.keepRun(f, i, n, sums[i:i+n]); !kept {
				return
			}
		}
		i += max(n, 1)
	}
}

func (c *Cache) unkept(o *object, chunks int64) {
	c.mu.Lock()
	c.counts.Unkept += chunks
	o.counts.Unkept += chunks
	c.mu.Unlock()
}

// keepable is how many chunks from the flight's i-th on are to be written next.
func (c *Cache) keepable(f *flight, i uint32) (n uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f.drops != f.o.drops {
		return 0
	}
	for i+n < f.n && int64(n)*c.cfg.ChunkSize < keepAtOnce && !f.kept[i+n] && f.o.chunks[f.first+i+n] == nil {
		n++
	}
	return n
}

// keepRun keeps n chunks from the flight's i-th on, or those that there is room for.
func (c *Cache) keepRun(f *flight, i, n uint32, sums []uint32) bool {
	o, first := f.o, f.first+i
	fits := c.makeRoom(o, first, n)
	if fits < n {
		c.unkept(o, int64(n-fits))
	}
	if fits == 0 {
		return true
	}
	var p []byte
	err := o.record()
	if err == nil {
		_, err = o.enter()
		if err == nil {
			p = f.buf[o.start(first)-o.start(f.first):][:o.span(first, fits)]
			if err = o.write(first, p, sums[:fits]); err != nil {
				err = errors.Join(err, punch(o.data, o.start(first), int64(len(p))))
			}
		}
		defer o.left()
	}
	if err != nil {
		c.fail(err)
		c.unkept(o, int64(fits))
		return false
	}
	if c.writes.off != nil {
		c.writes.off = nil
		c.log.Info("the cache is written to again")
	}
	zeros := make([]bool, fits)
	for j := range fits {
		zeros[j] = isZero(p[o.span(first, j):o.span(first, j+1)])
	}
	c.mu.Lock()
	for j := range fits {
		c.used += o.allocated(first + j)
		o.add(first+j, sums[j], true, zeros[j])
	}
	c.mu.Unlock()
	return true
}

// fail turns writing off for a while, and says so once.
func (c *Cache) fail(err error) {
	if c.writes.off == nil {
		c.log.Warn("the cache cannot be written to, and serves what it has; the rest is read from the stores each time", "error", err)
	}
	c.writes.off, c.writes.retry = err, time.Now().Add(retryAfter)
}

// makeRoom evicts until n chunks from first on fit, and says how many do.
func (c *Cache) makeRoom(o *object, first, n uint32) (fits uint32) {
	need := int64(2 * block) // the file of sums grows too
	for i := range n {
		need += o.allocated(first + i)
	}
	if err := c.evict(c.victims(c.cfg.Size - need)); err != nil {
		c.fail(err)
		return 0
	}
	if !c.heedFloor(need) {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	room := c.cfg.Size - c.used - 2*block
	for fits < n && o.allocated(first+fits) <= room {
		room -= o.allocated(first + fits)
		fits++
	}
	return fits
}

// victims takes chunks out of the index until at most limit bytes would be used. They
// are to be evicted. Cache.files is held.
func (c *Cache) victims(limit int64) (gone []*chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for used := c.used; used > limit; {
		ch := c.queues.victim()
		if ch == nil {
			break
		}
		used -= ch.o.allocated(ch.i)
		ch.o.unlink(ch)
		gone = append(gone, ch)
	}
	return gone
}

// evict erases victims. Cache.files is held.
func (c *Cache) evict(gone []*chunk) error {
	if len(gone) == 0 {
		return nil
	}
	c.mu.Lock()
	for _, ch := range gone {
		c.counts.Evictions++
		ch.o.counts.Evictions++
	}
	c.mu.Unlock()
	return c.erase(gone)
}

// remove erases chunks that are dropped, as far as nobody holds them and nobody else
// removed them. Cache.files is held.
func (c *Cache) remove(dropped []*chunk) error {
	var gone []*chunk
	c.mu.Lock()
	for _, ch := range dropped {
		if ch.o.chunks[ch.i] == ch && !ch.busy() {
			c.queues.remove(ch)
			ch.o.unlink(ch)
			gone = append(gone, ch)
		}
	}
	c.mu.Unlock()
	return c.erase(gone)
}

// heedFloor evicts until the file system has need bytes more than are to stay free,
// and reports whether it has. Cache.files is held.
func (c *Cache) heedFloor(need int64) bool {
	if c.cfg.MinFree == 0 {
		return true
	}
	for {
		free, err := c.cfg.free(c.dir)
		if err != nil {
			c.fail(err)
			return false
		}
		if c.writes.low && free >= c.cfg.MinFree {
			c.writes.low = false
			c.log.Info("there is room for the cache again")
		}
		short := c.cfg.MinFree + need - free
		if short <= 0 {
			return true
		}
		gone := c.victims(c.used - short)
		if len(gone) == 0 {
			if !c.writes.low && free < c.cfg.MinFree {
				c.writes.low = true
				c.log.Warn("the disk of the cache is nearly full: nothing is written to it", "free", free, "min_free", c.cfg.MinFree)
			}
			return false
		}
		if err := c.evict(gone); err != nil {
			c.fail(err)
			return false
		}
	}
}
