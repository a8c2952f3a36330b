package nbd

import (
	"math/bits"
	"sync"

	"glanced/backends/budget"
)

// Buffers hold a power of two of data, from a page to the largest request, and
// room for headers besides, so that a request of a power of two does not round
// up to the next.
const (
	minClass   = 12 // 4 KiB
	maxClass   = 25 // the largest request
	headerRoom = 4 << 10
)

// workerBytes is about what a worker takes besides its buffer: its stack, its plan,
// and the engine's notes on what it reads.
const workerBytes = 8 << 10

// bufferSize is the memory of a buffer for n bytes of data.
func bufferSize(n int) int64 { return 1<<classOf(n) + headerRoom }

// classOf is the size class for n bytes of data: log2, rounded up.
func classOf(n int) int { return max(bits.Len(uint(max(n, 1)-1)), minClass) }

// pool keeps buffers between requests. Safe for concurrent use.
type pool [maxClass - minClass + 1]sync.Pool

// buffer is memory from a pool and, until it is released, a part of a share of the
// server's memory.
type buffer struct {
	b     []byte
	class int
	from  *pool
	share *budget.Share
	taken int64 // bytes of share
}

// get is a buffer of at least n bytes, n at most maxRequest and headerRoom, with what
// its user took of share for it: taken bytes.
func (p *pool) get(n int, share *budget.Share, taken int64) *buffer {
	class := classOf(n - headerRoom)
	buf, ok := p[class-minClass].Get().(*buffer)
	if !ok {
		buf = &buffer{b: make([]byte, 1<<class+headerRoom), class: class, from: p}
	}
	buf.share, buf.taken = share, taken
	return buf
}

// release gives the memory back, and its part of the share. It may not be used
// after. A nil buffer is fine.
func (b *buffer) release() {
	if b == nil {
		return
	}
	share, taken := b.share, b.taken
	b.share, b.taken = nil, 0
	b.from[b.class-minClass].Put(b)
	share.Give(taken)
}
