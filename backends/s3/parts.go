package s3

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// grow says how part sizes grow where the size of the object is not known: a part is
// at least a grow-th of what was written before it. So 10,000 parts of 5 MiB at first
// hold more than 5 TiB, and the largest part is about 4 GiB (S3's limit is 5).
const grow = 1250

// partLen is the length of the next part of an object of size bytes, -1 = unknown, of
// which n are written.
func partLen(least, size, n int64) int64 {
	want := n / grow
	if size >= 0 {
		want = (size + maxParts - 1) / maxParts
	}
	return max(least, (want+blockLen-1)/blockLen*blockLen)
}

// blockLen is in which pieces memory is taken, as it is needed.
const blockLen = 1 << 20

var blocks = sync.Pool{New: func() any { return new([blockLen]byte) }}

// memory is what uploads may hold. Safe for concurrent use.
type memory struct {
	mu   sync.Mutex
	free int64
}

// take takes n bytes, if there are so many.
func (m *memory) take(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.free {
		return false
	}
	m.free -= n
	return true
}

func (m *memory) give(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free += n
}

// part is one part of an upload, in memory or in a file without a name.
type part struct {
	number int32
	most   int64 // how long it becomes, if the object does not end before
	n      int64
	blocks []*[blockLen]byte
	file   *os.File // nil: in memory
}

// newFile makes a file for a part; it is gone when it is closed.
func newFile(folder string) (*os.File, error) {
	f, err := os.CreateTemp(folder, "glanced-part-")
	if err != nil {
		return nil, fmt.Errorf("make a file for a part, as memory has no room for it; set upload_spool to a folder with room: %w", err)
	}
	os.Remove(f.Name())
	return f, nil
}

// write takes as much of b as fits.
func (p *part) write(b []byte) (int, error) {
	b = b[:min(int64(len(b)), p.most-p.n)]
	if p.file != nil {
		n, err := p.file.WriteAt(b, p.n)
		p.n += int64(n)
		if err != nil {
			return n, fmt.Errorf("keep a part in a file; set upload_spool to a folder with room: %w", errors.Unwrap(err))
		}
		return n, nil
	}
	for done := 0; done < len(b); {
		if p.n == int64(len(p.blocks))*blockLen {
			p.blocks = append(p.blocks, blocks.Get().(*[blockLen]byte))
		}
		n := copy(p.blocks[p.n/blockLen][p.n%blockLen:], b[done:])
		done += n
		p.n += int64(n)
	}
	return len(b), nil
}

func (p *part) full() bool { return p.n == p.most }

// body is the part, from its beginning.
func (p *part) body() io.ReadSeeker {
	if p.file != nil {
		return io.NewSectionReader(p.file, 0, p.n)
	}
	return io.NewSectionReader(p, 0, p.n)
}

// ReadAt implements io.ReaderAt over what is in memory.
func (p *part) ReadAt(b []byte, off int64) (n int, err error) {
	for n < len(b) && off < p.n {
		m := copy(b[n:], p.blocks[off/blockLen][off%blockLen:min(blockLen, off%blockLen+p.n-off)])
		n += m
		off += int64(m)
	}
	if n < len(b) {
		err = io.EOF
	}
	return n, err
}

// release gives back what the part takes; it is not used after that. delivered says
// that nothing reads it any more: of a request that failed, a part may still be on its
// way out, and its memory is then left to the garbage collector.
func (p *part) release(delivered bool) {
	if delivered {
		for _, b := range p.blocks {
			blocks.Put(b)
		}
	}
	p.blocks = nil
	if p.file != nil {
		p.file.Close()
	}
}
