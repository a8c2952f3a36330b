package engine

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// buffer is pooled memory with a count of who holds it. The holders only read
// once there are several.
type buffer struct {
	bytes []byte
	refs  atomic.Int32
	pool  *sync.Pool
}

func (b *buffer) retain(n int) { b.refs.Add(int32(n)) }

// release gives the memory back with the last holder's leave.
func (b *buffer) release() {
	if b.refs.Add(-1) == 0 {
		b.pool.Put(b)
	}
}

// buffers pools memory in sizes that are powers of two. What is not in use goes
// with the garbage collector's next rounds.
type buffers struct {
	classes [maxClass - minClass + 1]sync.Pool
}

const (
	minClass = 12 // 4 KiB
	maxClass = 25 // 32 MiB
)

// classOf is the size class of n bytes: log2, rounded up.
func classOf(n int64) int {
	return max(bits.Len64(uint64(n-1)), minClass)
}

// bufferSize is what get(n) takes of the memory.
func bufferSize(n int64) int64 { return 1 << classOf(n) }

// get is a buffer of n bytes, 1 to 32 MiB, held once, holding anything.
func (bs *buffers) get(n int64) *buffer {
	class := classOf(n)
	pool := &bs.classes[class-minClass]
	b, _ := pool.Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, 1<<class), pool: pool}
	}
	b.bytes = b.bytes[:n]
	b.refs.Store(1)
	return b
}
