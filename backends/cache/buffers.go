package cache

import "sync"

// buffers are those of flights, by how many chunks they have room for. What is not in
// use goes with the garbage collector's next rounds. Safe for concurrent use.
type buffers struct {
	chunk  int64 // bytes
	chunks [maxFetch/MinChunkSize + 1]sync.Pool
}

// get is n bytes, holding anything, and what is to be put back: nil where n is not a
// number of chunks that a flight fetches often.
func (bs *buffers) get(n int64) ([]byte, *[]byte) {
	if n%bs.chunk != 0 || n > maxFetch {
		return make([]byte, n), nil
	}
	if b, ok := bs.chunks[n/bs.chunk].Get().(*[]byte); ok {
		return *b, b
	}
	b := make([]byte, n)
	return b, &b
}

// put takes back what get gave, when nobody looks at it any more.
func (bs *buffers) put(b *[]byte) {
	if b != nil {
		bs.chunks[int64(len(*b))/bs.chunk].Put(b)
	}
}
