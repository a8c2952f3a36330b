package nbd

import (
	"context"
	"math/bits"
	"sync"

	"golang.org/x/sync/semaphore"
)

// budget bounds bytes of memory. A connection's budget has the server's as its
// parent, and takes from both. Safe for concurrent use.
type budget struct {
	size   int64
	sem    *semaphore.Weighted // first come, first served
	parent *budget
}

func newBudget(size int64, parent *budget) *budget {
	return &budget{size: size, sem: semaphore.NewWeighted(size), parent: parent}
}

// cost is what n bytes count as: a request larger than a whole budget takes all
// of it, and so runs alone instead of never.
func (b *budget) cost(n int64) int64 { return min(n, b.size) }

// tryTake takes n bytes if they are free now.
func (b *budget) tryTake(n int64) bool {
	if !b.sem.TryAcquire(b.cost(n)) {
		return false
	}
	if b.parent != nil && !b.parent.tryTake(n) {
		b.sem.Release(b.cost(n))
		return false
	}
	return true
}

// take waits for n bytes, or for ctx.
func (b *budget) take(ctx context.Context, n int64) error {
	if err := b.sem.Acquire(ctx, b.cost(n)); err != nil {
		return context.Cause(ctx)
	}
	if b.parent != nil {
		if err := b.parent.take(ctx, n); err != nil {
			b.sem.Release(b.cost(n))
			return err
		}
	}
	return nil
}

// give returns n bytes. n is what was taken: a part given back is wrong for
// requests that cost less than they are long.
func (b *budget) give(n int64) {
	b.sem.Release(b.cost(n))
	if b.parent != nil {
		b.parent.give(n)
	}
}

// Buffers hold a power of two of data, from a page to the largest request, and
// room for headers besides, so that a request of a power of two does not round
// up to the next.
const (
	minClass   = 12 // 4 KiB
	maxClass   = 25 // the largest request
	headerRoom = 4 << 10
)

// workerBytes is about what a worker takes besides its buffer: its stack, and the
// engine's notes on what it reads.
const workerBytes = 8 << 10

// footprint is what a worker that answers with n bytes of data counts as. A
// client can ask for a single byte as often as for many: what counts is what is
// held for it, not what it asked for.
func footprint(n int) int64 { return bufferSize(n) + workerBytes }

// bufferSize is the memory of a buffer for n bytes of data.
func bufferSize(n int) int64 { return 1<<classOf(n) + headerRoom }

// classOf is the size class for n bytes of data: log2, rounded up.
func classOf(n int) int { return max(bits.Len(uint(max(n, 1)-1)), minClass) }

// pool keeps buffers between requests. Safe for concurrent use.
type pool [maxClass - minClass + 1]sync.Pool

// buffer is memory from a pool and, until it is released, a share of a budget.
type buffer struct {
	b      []byte
	class  int
	from   *pool
	budget *budget
	taken  int64 // bytes of budget
}

// get is a buffer of at least n bytes, n at most maxRequest and headerRoom, with
// the share of b that its user took for it: taken bytes.
func (p *pool) get(n int, b *budget, taken int64) *buffer {
	class := classOf(n - headerRoom)
	buf, ok := p[class-minClass].Get().(*buffer)
	if !ok {
		buf = &buffer{b: make([]byte, 1<<class+headerRoom), class: class, from: p}
	}
	buf.budget, buf.taken = b, taken
	return buf
}

// release gives the memory back, and its share of the budget. It may not be used
// after. A nil buffer is fine.
func (b *buffer) release() {
	if b == nil {
		return
	}
	budget, taken := b.budget, b.taken
	b.budget, b.taken = nil, 0
	b.from[b.class-minClass].Put(b)
	budget.give(taken)
}
