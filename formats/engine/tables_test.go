package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"sync"
	"testing"

	"glanced/formats"
)

func TestTablesAreReadOnceAndKeptWithinTheBudget(t *testing.T) {
	const size, n = 1 << 20, 4096
	data := compressible(rand.New(rand.NewSource(1)), size)
	for _, budget := range []int64{size, size / 8, 0} {
		all := newTables(budget)
		src := &memSource{data: data}
		reader := all.reader(src)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewSource(int64(g)))
				for range 2000 {
					pos := r.Int63n(size/n) * n
					b, err := reader.Read(context.Background(), pos, n)
					if err != nil || !bytes.Equal(b, data[pos:pos+n]) {
						t.Errorf("the table at %d: %v", pos, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if budget == size {
			if got := src.reads.Load(); got > 2*size/n {
				t.Errorf("%d reads of %d tables that all fit", got, size/n)
			}
		}
		// The newest of each part stays, whatever the budget.
		if used := tablesUsed(all); used > max(budget, int64(len(all.shards))*n) {
			t.Errorf("%d bytes are kept, of %d", used, budget)
		}
		other := all.reader(&memSource{data: make([]byte, size)})
		if b, err := other.Read(context.Background(), 0, n); err != nil || !bytes.Equal(b, make([]byte, n)) {
			t.Errorf("another source's table at the same place: %v", err)
		}
		reader.Close()
		if used := tablesUsed(all); used > n {
			t.Errorf("a closed reader holds %d bytes", used-n)
		}
		if _, err := reader.Read(context.Background(), 0, n); !errors.Is(err, formats.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

func tablesUsed(t *tables) (n int64) {
	for i := range t.shards {
		n += t.shards[i].cache.used
	}
	return n
}

func TestTablesOutsideTheImageAreCorrupt(t *testing.T) {
	reader := newTables(0).reader(&memSource{data: make([]byte, 8192)})
	defer reader.Close()
	for _, c := range []struct {
		pos int64
		n   int
	}{{-1, 10}, {0, -1}, {4097, 4096}, {1<<63 - 1, 4096}, {0, 1 << 40}} {
		if _, err := reader.Read(context.Background(), c.pos, c.n); !errors.Is(err, formats.ErrCorrupt) {
			t.Errorf("%d bytes at %d: %v", c.n, c.pos, err)
		}
	}
}

func TestTheCacheKeepsWhatIsUsedAndCountsWhatItHolds(t *testing.T) {
	held := map[int64]int{}
	s := newS3FIFO(1000, func(v int64) { held[v]-- })
	r := rand.New(rand.NewSource(1))
	for range 20000 {
		v := r.Int63n(300)
		k := cacheKey{uint64(v % 3), place{pos: v}}
		if _, ok := s.get(k, true); !ok {
			if !s.put(k, v, 1+v%20) {
				t.Fatal("not put")
			}
			held[v]++
		} else if s.put(k, v, 1) {
			t.Fatal("put twice")
		}
		if s.used > 1000 {
			t.Fatalf("%d bytes, of 1000", s.used)
		}
	}
	var bytes int64
	for v, n := range held {
		if n != 0 && n != 1 {
			t.Fatalf("%d is held %d times", v, n)
		}
		bytes += int64(n) * (1 + v%20)
	}
	if bytes != s.used || s.short.bytes+s.long.bytes != s.used {
		t.Errorf("counts %d bytes, holds %d", s.used, bytes)
	}
	if len(s.ghosts) > maxGhosts || len(s.ghosts) != len(s.ghostRing) {
		t.Errorf("remembers %d and %d", len(s.ghosts), len(s.ghostRing))
	}
	for owner := range uint64(3) {
		s.drop(owner)
	}
	if s.used != 0 || len(s.owners) != 0 || s.short.head != nil || s.long.tail != nil {
		t.Errorf("after all is dropped: %+v", s)
	}
}
