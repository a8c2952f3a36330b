package fs

import "math/bits"

// The bounds of one READ of the kernel, bytes. The upper is the kernel's own without
// a sysctl. Below the lower, a sequential reader waits for the change between kernel
// and daemon more than for data.
const (
	mostRead  = 1 << 20
	leastRead = 128 << 10
)

// manyReads is how many READs should fit into the memory before READs are made
// larger. It is also how many read-aheads the kernel keeps under way at most.
const manyReads = 64

// defaultMemory is Config.MemoryBytes where that is 0.
const defaultMemory = 128 << 20

// What go-fuse counts: for the request that it waits for, room for one as large as a
// READ, with inputRoom and less than requestNotes besides, and its own notes on it; for
// one that is being served, the notes alone. The buffer for a READ's answer is made
// when the READ is served, uncounted.
const (
	inputRoom    = 4 << 10
	requestNotes = 776
)

// requests bounds what the kernel may ask of a mount at once. Beyond that, its
// requests wait in the kernel.
type requests struct {
	read       int // the largest READ, bytes
	atOnce     int // requests that are served at once
	background int // of these, read-aheads and asynchronous reads
}

// requestsWithin are the requests that memory bytes suffice for; 0 is defaultMemory.
func requestsWithin(memory int64) requests {
	if memory <= 0 {
		memory = defaultMemory
	}
	perRead := max(memory/manyReads, 1)
	read := min(max(int64(1)<<(bits.Len64(uint64(perRead))-1), leastRead), mostRead)
	atOnce := int(max(memory/read, 2))
	return requests{read: int(read), atOnce: atOnce, background: max(min(atOnce/2, manyReads), 1)}
}

// inFlightBytes is go-fuse's limit for so many requests.
func (r requests) inFlightBytes() int {
	return r.read + inputRoom + (r.atOnce+1)*requestNotes
}
