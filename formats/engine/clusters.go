package engine

import (
	"context"
	"sync"
	"sync/atomic"
)

// clusters are the decoded clusters of all disks of an engine: those kept, and
// those being decoded, of which each is decoded once however many want it.
type clusters struct {
	buffers *buffers
	shards  []clusterShard
}

type clusterShard struct {
	mu      sync.Mutex
	cache   s3fifo[*buffer] // holds its buffers
	flights map[cacheKey]*clusterFlight
	_       [64]byte // keeps neighbours' locks off one cache line
}

// clusterFlight is one cluster being read and decoded. Its leader is the goroutine that
// came first, which does the work; the others wait.
type clusterFlight struct {
	fetch *fetch

	// Guarded by the shard's lock.
	upto     int64 // how many of the cluster's first bytes it brings
	sealed   bool  // upto grows no more
	waiters  int
	finished bool          // no longer among the flights
	done     chan struct{} // made by the first who waits

	// Set before done is closed.
	result *buffer // held once for each waiter; nil if err
	err    error
}

// fetch is the work of one leader, for one or more flights, in a context of its
// own: it is stopped when all who want something of it have left.
type fetch struct {
	ctx    context.Context
	cancel context.CancelFunc // nil: cannot be stopped
	wanted atomic.Int64
}

func (f *fetch) leave() {
	if f.wanted.Add(-1) == 0 && f.cancel != nil {
		f.cancel()
	}
}

// clusterShardUnit is a common cluster size, for dividing the budget.
const clusterShardUnit = 2 << 20

func newClusters(budget int64, b *buffers) *clusters {
	c := &clusters{buffers: b, shards: make([]clusterShard, shardCount(budget, clusterShardUnit))}
	for i := range c.shards {
		c.shards[i].cache = newS3FIFO(budget/int64(len(c.shards)), (*buffer).release)
		c.shards[i].flights = make(map[cacheKey]*clusterFlight)
	}
	return c
}

func (c *clusters) shard(k cacheKey) *clusterShard {
	return &c.shards[shardOf(k, len(c.shards))]
}

// claimed says how a cluster is come by; exactly one of hit, join and led is not nil.
type claimed struct {
	hit  *buffer        // the decoded cluster, to be released
	join *clusterFlight // to wait for, which may bring less than is wanted
	led  *clusterFlight // led by the caller from now on, as part of its fetch, who must finish it
	// Of led. known: the cluster was wanted before, not long ago. part: only some of
	// its first bytes are wanted, and the cluster will not be kept; see seal.
	known, part bool
}

// claim is asked for the first want bytes of cluster k. use: see s3fifo.get.
func (c *clusters) claim(k cacheKey, lead *fetch, want int64, use bool) claimed {
	full := k.place.full
	sh := c.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if b, ok := sh.cache.get(k, use); ok {
		b.retain(1)
		return claimed{hit: b}
	}
	kept := sh.keeps(full)
	if f := sh.flights[k]; f != nil {
		f.waiters++
		f.fetch.wanted.Add(1)
		if f.done == nil {
			f.done = make(chan struct{})
		}
		if kept { // two want it at once: it is worth keeping
			want = full
		}
		if !f.sealed {
			f.upto = max(f.upto, want)
		}
		return claimed{join: f}
	}
	f := &clusterFlight{fetch: lead, upto: full}
	sh.flights[k] = f
	known, idle := false, false
	if kept && use {
		known, idle = sh.cache.newcomer(k, bufferSize(full))
	} else if kept {
		known = sh.cache.remembered(k)
	}
	part := want < full && (idle || !kept)
	if part {
		f.upto = want
	}
	return claimed{led: f, known: known, part: part}
}

// hit is the decoded cluster k, to be released, if it is cached; use: see s3fifo.get.
func (c *clusters) hit(k cacheKey, use bool) *buffer {
	sh := c.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	b, ok := sh.cache.get(k, use)
	if !ok {
		return nil
	}
	b.retain(1)
	return b
}

// seal says how many of its cluster's first bytes a led flight is to bring, as
// others may have joined who want more. Who comes later does not change it.
func (c *clusters) seal(k cacheKey, f *clusterFlight) int64 {
	sh := c.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	f.sealed = true
	return f.upto
}

// wait returns what a joined flight brings, to be released: the cluster, or some
// of its first bytes, perhaps fewer than were wanted of claim. A flight that was
// stopped because all others had left fails with context.Canceled.
func (c *clusters) wait(ctx context.Context, k cacheKey, f *clusterFlight) (*buffer, error) {
	select {
	case <-f.done:
		f.fetch.leave() // it may go on for clusters that nobody here wants
		return f.result, f.err
	case <-ctx.Done():
	}
	c.leave(k, f)
	return nil, ctx.Err()
}

// leave gives up a joined flight.
func (c *clusters) leave(k cacheKey, f *clusterFlight) {
	sh := c.shard(k)
	sh.mu.Lock()
	finished := f.finished
	if !finished {
		f.waiters--
	}
	sh.mu.Unlock()
	f.fetch.leave()
	if finished { // its result came or is about to, with a hold for us
		<-f.done
		if f.result != nil {
			f.result.release()
		}
	}
}

// lead is claim for who wants to have cluster k decoded and not to use it: nil
// where it is cached or under way.
func (c *clusters) lead(k cacheKey, lead *fetch) *clusterFlight {
	sh := c.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if _, ok := sh.cache.get(k, false); ok || sh.flights[k] != nil {
		return nil
	}
	f := &clusterFlight{fetch: lead, upto: k.place.full}
	sh.flights[k] = f
	return f
}

// budget is the bytes that may be kept.
func (c *clusters) budget() int64 {
	return int64(len(c.shards)) * c.shards[0].cache.budget
}

// finish ends a led flight. b, when not nil, is the decoded cluster, which the
// caller goes on holding; it is kept and handed to the waiters. plain is the
// cluster where it was decoded without a buffer of ours: it is copied if anyone
// waits, and otherwise only remembered. So it is where only a part was decoded.
func (c *clusters) finish(k cacheKey, f *clusterFlight, b *buffer, plain []byte, err error) {
	full := k.place.full
	sh := c.shard(k)
	sh.mu.Lock()
	delete(sh.flights, k)
	f.finished = true
	waiters, done := f.waiters, f.done
	switch {
	case err != nil || !sh.keeps(full):
	case b != nil && int64(len(b.bytes)) == full:
		sh.keep(k, b)
	default:
		sh.cache.remember(k, bufferSize(full))
	}
	sh.mu.Unlock()
	if done == nil {
		return
	}
	if err == nil && waiters > 0 {
		if b != nil {
			b.retain(waiters)
		} else {
			b = c.buffers.get(int64(len(plain)))
			copy(b.bytes, plain)
			b.retain(waiters - 1)
		}
		f.result = b
	}
	f.err = err
	close(done)
}

// keeps reports whether the budget has room for a cluster of full bytes.
func (sh *clusterShard) keeps(full int64) bool { return bufferSize(full) <= sh.cache.budget }

// keep puts b in the cache, under the shard's lock.
func (sh *clusterShard) keep(k cacheKey, b *buffer) {
	b.retain(1)
	if !sh.cache.put(k, b, int64(cap(b.bytes))) {
		b.release()
	}
}

// drop forgets all clusters of a source.
func (c *clusters) drop(owner uint64) {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.cache.drop(owner)
		sh.mu.Unlock()
	}
}
