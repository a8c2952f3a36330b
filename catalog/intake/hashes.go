package intake

import (
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"sync"
	"sync/atomic"

	"glanced/backends/budget"
	"glanced/catalog/records"
)

const (
	chunkLen = 64 << 10 // what is handed to the hashes at once, bytes
	// Of them for one upload: how far the slower hash may fall behind. The least are
	// not counted against any budget, so that an upload never waits for another one.
	leastChunks, chunks = 2, 48
)

// sums are hashes in hexadecimal.
type sums struct{ md5, sha512 string }

// record writes them into an image's record.
func (s *sums) record(img *records.Image) {
	algo, checksum, value := "sha512", s.md5, s.sha512
	img.Checksum, img.HashAlgo, img.HashValue = &checksum, &algo, &value
}

// hashes computes both hashes of a stream, each on a goroutine of its own. Its
// memory is bounded: a writer ahead of the hashes waits for a free chunk.
type hashes struct {
	made  int // chunks made so far
	most  int // … and how many there may be
	share *budget.Share

	free chan *chunk // chunks that all hashes are done with
	cur  *chunk      // being filled; nil = none

	md5, sha512 hash.Hash
	queues      []chan *chunk
	running     sync.WaitGroup
	closed      bool
}

type chunk struct {
	data  []byte
	users atomic.Int32 // hashes that are not done with it
}

// newHashes takes of memory what there is for more than the least chunks, until close.
func newHashes(memory *budget.Budget) *hashes {
	h := &hashes{share: memory.Share(), free: make(chan *chunk, chunks), md5: md5.New(), sha512: sha512.New()}
	h.most = leastChunks + int(h.share.TryTake(0, (chunks-leastChunks)*chunkLen)/chunkLen)
	for _, sum := range []hash.Hash{h.md5, h.sha512} {
		queue := make(chan *chunk, chunks)
		h.queues = append(h.queues, queue)
		h.running.Go(func() {
			for c := range queue {
				sum.Write(c.data)
				if c.users.Add(-1) == 0 {
					h.free <- c // has room for all chunks there are
				}
			}
		})
	}
	return h
}

// write copies p; p may be reused when it returns.
func (h *hashes) write(p []byte) {
	for len(p) > 0 {
		if h.cur == nil {
			h.cur = h.next()
		}
		n := min(len(p), chunkLen-len(h.cur.data))
		h.cur.data = append(h.cur.data, p[:n]...)
		p = p[n:]
		if len(h.cur.data) == chunkLen {
			h.flush()
		}
	}
}

func (h *hashes) next() *chunk {
	select {
	case c := <-h.free:
		c.data = c.data[:0]
		return c
	default:
	}
	if h.made < h.most {
		h.made++
		return &chunk{data: make([]byte, 0, chunkLen)}
	}
	c := <-h.free
	c.data = c.data[:0]
	return c
}

func (h *hashes) flush() {
	if h.cur == nil {
		return
	}
	h.cur.users.Store(int32(len(h.queues)))
	for _, q := range h.queues {
		q <- h.cur
	}
	h.cur = nil
}

// sums ends the stream.
func (h *hashes) sums() sums {
	h.flush()
	h.close()
	return sums{hex.EncodeToString(h.md5.Sum(nil)), hex.EncodeToString(h.sha512.Sum(nil))}
}

// close stops the goroutines and waits for them; it may be called twice.
func (h *hashes) close() {
	if h.closed {
		return
	}
	h.closed = true
	for _, q := range h.queues {
		close(q)
	}
	h.running.Wait()
	h.share.Give(h.share.Held())
}
