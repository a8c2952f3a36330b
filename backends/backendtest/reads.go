package backendtest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"glanced/backends"
	"glanced/backends/stored"
)

func testReadAt(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(3, 100_000)
	loc := suite.put(t, s, "k", content)
	defer suite.remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	for _, r := range []struct{ off, n int64 }{{0, 1}, {99_999, 1}, {4095, 4098}, {100_000, 0}, {0, 100_000}} {
		p := make([]byte, r.n)
		if err := b.ReadAt(t.Context(), p, r.off); err != nil || !bytes.Equal(p, content[r.off:r.off+r.n]) {
			t.Errorf("%d bytes at %d: %v, or other bytes", r.n, r.off, err)
		}
	}
	for _, r := range []struct{ off, n int64 }{{-1, 1}, {100_000, 1}, {99_999, 2}, {1<<63 - 1, 1}} {
		wantErr(t, b.ReadAt(t.Context(), make([]byte, r.n), r.off), backends.ErrRange)
	}
}

func testConcurrentReads(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(4, suite.Big)
	loc := suite.put(t, s, "k", content)
	defer suite.remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 50 {
				off := r.IntN(len(content))
				p := make([]byte, r.IntN(min(1<<17, len(content)-off)))
				if err := b.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, content[off:off+len(p)]) {
					t.Errorf("%d bytes at %d: %v, or other bytes", len(p), off, err)
				}
			}
		})
	}
	wg.Wait()
}

func testReadContext(t *testing.T, suite Suite, s backends.Store) {
	loc := suite.put(t, s, "k", Noise(23, 100))
	defer suite.remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, b.ReadAt(ctx, make([]byte, 10), 0), context.Canceled)
}

func testDeleteWhileOpen(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(14, 1<<20)
	loc := suite.put(t, s, "k", content)
	b := open(t, s, loc)
	defer b.Close()
	suite.remove(t, s, loc)
	second := suite.put(t, s, "k", Noise(15, 1<<20))
	defer suite.remove(t, s, second)
	p := make([]byte, len(content))
	switch err := b.ReadAt(t.Context(), p, 0); {
	case err == nil:
		if !bytes.Equal(p, content) {
			t.Error("the deleted object reads as its successor")
		}
	case !errors.Is(err, backends.ErrChanged) && !errors.Is(err, backends.ErrNotFound):
		t.Errorf("error %v, want ErrChanged or ErrNotFound", err)
	}
}

func testFileRange(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(20, 300_000)
	loc := suite.put(t, s, "k", content)
	defer suite.remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	fr, ok := stored.As[stored.FileRanger](b)
	if !ok {
		t.Skip("not a FileRanger")
	}
	if r, ok := fr.FileRange(1000, 250_000); ok {
		p := make([]byte, r.Len)
		if _, err := r.File.ReadAt(p, r.Pos); err != nil || len(p) == 0 || !bytes.Equal(p, content[1000:][:len(p)]) {
			t.Errorf("the file's range: %v, or other bytes", err)
		}
		r.Release()
	}
	if _, ok := fr.FileRange(299_999, 2); ok {
		t.Error("a range past the end was given")
	}
}

func testExtents(t *testing.T, suite Suite, s backends.Store) {
	content := make([]byte, 4<<20+100)
	copy(content[1<<20:], Noise(21, 1<<20))
	copy(content[3<<20+5000:], Noise(22, 10))
	loc := suite.put(t, s, "k", content)
	defer suite.remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	ex, ok := stored.As[stored.Extenter](b)
	if !ok {
		t.Skip("not an Extenter")
	}
	r := rand.New(rand.NewPCG(2, 3))
	for range 100 {
		off := r.Int64N(b.Size())
		end := off + r.Int64N(b.Size()-off)
		at := off
		err := ex.Extents(t.Context(), off, end-off, func(o, n int64, hole bool) bool {
			if o != at || n <= 0 || o+n > end {
				t.Fatalf("run of %d at %d of range [%d, %d), expected at %d", n, o, off, end, at)
			}
			if hole && !bytes.Equal(content[o:o+n], make([]byte, n)) {
				t.Fatalf("data at [%d, %d) is told to be a hole", o, o+n)
			}
			at = o + n
			return true
		})
		if err != nil || at != end {
			t.Fatalf("extents of [%d, %d) end at %d: %v", off, end, at, err)
		}
	}
	calls := 0
	if err := ex.Extents(t.Context(), 0, b.Size(), func(_, _ int64, _ bool) bool { calls++; return false }); err != nil || calls != 1 {
		t.Errorf("%d calls after yield said stop, error %v", calls, err)
	}
	wantErr(t, ex.Extents(t.Context(), 1, b.Size(), nil), backends.ErrRange)
}
