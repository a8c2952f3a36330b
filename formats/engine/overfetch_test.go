package engine

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
)

// farSource notes which blocks of 256 KiB, the chunks of a cache, are read or told to
// Prefetch. Its bytes are zeros.
type farSource struct {
	size          int64
	mu            sync.Mutex
	read, fetched map[int64]bool
}

const farBlock = 256 << 10

func (s *farSource) Size() int64               { return s.size }
func (s *farSource) Identity() stored.Identity { return "" }
func (s *farSource) Close() error              { return nil }

func (s *farSource) ReadAt(_ context.Context, p []byte, off int64) error {
	s.note(off, int64(len(p)), s.read, s.fetched)
	return nil
}

func (s *farSource) Prefetch(off, n int64) { s.note(off, min(n, s.size-off), s.fetched) }

func (s *farSource) note(off, n int64, in ...map[int64]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := off / farBlock; i <= (off+n-1)/farBlock; i++ {
		for _, m := range in {
			m[i] = true
		}
	}
}

// A guest that boots reads files from their beginning to their end, as its kernel reads
// ahead: 16 KiB, then twice as much each time, up to 128 KiB. They lie here and there, a
// few large ones among many small, and between them metadata is read. What is read ahead
// of a far source is mostly what is read then.
func TestABootReadsLittleAheadThatItDoesNotWant(t *testing.T) {
	const size = 4 << 30
	src := &farSource{size: size, read: map[int64]bool{}, fetched: map[int64]bool{}}
	e := New(Options{})
	defer e.Close()
	d := newDisk(e, &tableLayout{size: size, extents: []formats.Extent{{Len: size, Kind: formats.Data, N: size}}}, []stored.Bytes{src})
	defer d.Close()
	random := rand.New(rand.NewPCG(3, 4))
	buf := make([]byte, 128<<10)
	read := func(off, n int64) {
		if err := d.ReadAt(t.Context(), buf[:n], off); err != nil {
			t.Fatal(err)
		}
		for len(e.background) > 0 { // what is read ahead is told to the source
		}
	}
	for range 1500 {
		length := int64(4<<10) << random.IntN(7) // to 256 KiB
		if random.IntN(20) == 0 {
			length <<= 5 // to 8 MiB
		}
		off := random.Int64N((size-length)/4096) * 4096
		for at, step := off, int64(16<<10); at < off+length; step = min(2*step, 128<<10) {
			n := min(step, off+length-at)
			read(at, n)
			at += n
		}
		read(random.Int64N(size/4096)*4096, 4096)
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	ratio := float64(len(src.fetched)) / float64(len(src.read))
	t.Logf("%d blocks were read, %d fetched: %.3f", len(src.read), len(src.fetched), ratio)
	if ratio > 1.2 {
		t.Errorf("%d blocks were read, %d fetched: %.2f times as many", len(src.read), len(src.fetched), ratio)
	}
	if len(src.fetched) == len(src.read) {
		t.Error("nothing was read ahead")
	}
}
