package cache

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
)

// A copy, as nbdcopy makes it: several streams, each of many small reads at once. What
// the server is asked for are few large ranges, whatever is short.
func TestACopyIsFewRequests(t *testing.T) {
	const streams, chunks = 4, 64 // chunks of each stream
	for name, x := range map[string]struct {
		limits Limits
		memory int64
		most   int64 // requests
	}{
		"nothing is short":         {Limits{}, 1 << 30, streams * chunks / 4},
		"connections are short":    {Limits{Connections: 2}, 1 << 30, streams * chunks / 4},
		"memory is short":          {Limits{}, 4 << 20, streams * chunks / 2},
		"there is next to nothing": {Limits{Connections: 1}, 1 << 20, streams * chunks},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, x.limits, x.memory, reads(20*time.Millisecond), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
				loc, content := put(t, s, "k", streams*chunks*chunkSize)
				b := open(t, s, loc)
				var wg sync.WaitGroup
				for stream := range streams {
					var next atomic.Int64
					for range chunks / 2 {
						wg.Go(func() {
							for i := int(next.Add(1)) - 1; i < chunks; i = int(next.Add(1)) - 1 {
								wantRead(t, b, content, (stream*chunks+i)*chunkSize, chunkSize)
							}
						})
					}
				}
				wg.Wait()
				if n := far.Count(backendtest.OpRead); n.Bytes != int64(len(content)) || n.Requests > x.most {
					t.Errorf("%d chunks came as %+v, want at most %d requests", streams*chunks, n, x.most)
				}
			})
		})
	}
}

// A guest that boots: of what it does not touch, nothing is fetched.
func TestReadsHereAndThereFetchWhatTheyTouch(t *testing.T) {
	inBubble(t, Limits{Connections: 4}, 64<<20, reads(20*time.Millisecond), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		const chunks = 300
		loc, content := put(t, s, "k", chunks*chunkSize)
		b := open(t, s, loc)
		random := rand.New(rand.NewPCG(1, 2))
		touched := map[int]bool{}
		var wg sync.WaitGroup
		for range 200 {
			off, n := random.IntN(chunks*chunkSize-20<<10), 1+random.IntN(20<<10)
			for i := off / chunkSize; i <= (off+n-1)/chunkSize; i++ {
				touched[i] = true
			}
			wg.Go(func() { wantRead(t, b, content, off, n) })
			if random.IntN(8) == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		wg.Wait()
		if n := far.Count(backendtest.OpRead); n.Bytes != int64(len(touched)*chunkSize) {
			t.Errorf("%d chunks were touched, and %d fetched", len(touched), n.Bytes/chunkSize)
		}
	})
}

func TestWhoReadsOneByOneWaitsForNobody(t *testing.T) {
	inBubble(t, Limits{}, 64<<20, reads(20*time.Millisecond), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		loc, content := put(t, s, "k", 300*chunkSize)
		b := open(t, s, loc)
		for i := range 20 {
			start := time.Now()
			wantRead(t, b, content, i*chunkSize, chunkSize)
			if took := time.Since(start); took != 20*time.Millisecond {
				t.Errorf("read %d took %v", i, took)
			}
			synctest.Wait() // it is on the disk
		}
		// Who follows somebody closely waits for others a moment, and no longer.
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() { wantRead(t, b, content, 100*chunkSize, chunkSize) })
		synctest.Wait()
		wg.Go(func() { wantRead(t, b, content, 101*chunkSize, chunkSize) })
		wg.Wait()
		if took := time.Since(start); took != 20*time.Millisecond+lingerTime {
			t.Errorf("two reads took %v", took)
		}
	})
}

// Of those who share a request, one that gives up takes nothing from the others.
func TestWhoLeavesASharedRequestFailsNobody(t *testing.T) {
	inBubble(t, Limits{Connections: 1}, 64<<20, reads(time.Second), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		loc, content := put(t, s, "k", 300*chunkSize)
		b := open(t, s, loc)
		var wg sync.WaitGroup
		wg.Go(func() { wantRead(t, b, content, 0, chunkSize) }) // has the connection
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 8 {
			wg.Go(func() {
				if i == 0 || i == 3 {
					if err := b.ReadAt(ctx, make([]byte, 10), int64(100+i)*chunkSize); !errors.Is(err, context.Canceled) {
						t.Errorf("who left: %v", err)
					}
					return
				}
				wantRead(t, b, content, (100+i)*chunkSize, chunkSize)
			})
			synctest.Wait()
		}
		time.Sleep(500 * time.Millisecond)
		cancel()
		wg.Wait()
		if n := far.Count(backendtest.OpRead); n.Requests != 2 || n.Bytes != 9*chunkSize {
			t.Errorf("eight neighbours came as %+v", n)
		}
	})
}
