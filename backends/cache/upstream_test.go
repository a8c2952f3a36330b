package cache

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/budget"
	"glanced/backends/stored"
)

// inBubble runs a test where time is not waited for, with a cache over a far store.
func inBubble(t *testing.T, l Limits, memory int64, delay func(backendtest.Op) time.Duration, test func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store)) {
	synctest.Test(t, func(t *testing.T) {
		far := backendtest.NewFar("far")
		far.Delay = delay
		c := mustOpen(t, t.TempDir(), 400, func(cfg *Config) { cfg.Memory = budget.New(memory) })
		test(t, c, far, c.Store(far, l))
		synctest.Wait()
		if n := c.Stats().MemoryInUse; n != 0 {
			t.Errorf("%d bytes of memory are not given back", n)
		}
	})
}

// reads makes reads, and nothing else, take d.
func reads(d time.Duration) func(backendtest.Op) time.Duration {
	return func(op backendtest.Op) time.Duration {
		if op == backendtest.OpRead {
			return d
		}
		return 0
	}
}

func TestAStoreThatHangsFailsAtTheDeadline(t *testing.T) {
	inBubble(t, Limits{}, 64<<20, reads(time.Hour), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		loc, _ := put(t, s, "k", 30*chunkSize)
		b := open(t, s, loc)
		start := time.Now()
		err := b.ReadAt(t.Context(), make([]byte, 10), 0)
		if took := time.Since(start); !errors.Is(err, stored.ErrUnavailable) || took != DefaultDeadline {
			t.Errorf("after %v: %v", took, err)
		}
		// Its own context, that of who reads, ends earlier.
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		if err := b.ReadAt(ctx, make([]byte, 10), 0); err == nil || err.Error() != "enough" {
			t.Errorf("%v", err)
		}
		synctest.Wait() // nobody wants it any more: it ends at once
		if n := c.Stats().MemoryInUse; n != 0 {
			t.Errorf("%d bytes are held for a fetch that nobody wants", n)
		}
	})
}

func TestWhoLeavesEarlyDoesNotFailTheOthers(t *testing.T) {
	inBubble(t, Limits{}, 64<<20, reads(10*time.Second), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		loc, content := put(t, s, "k", 30*chunkSize)
		first, second := open(t, s, loc), open(t, s, loc)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := first.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, context.Canceled) {
				t.Errorf("who left: %v", err)
			}
			first.Close() // the bytes that the fetch reads from
		})
		synctest.Wait()
		wg.Go(func() { wantRead(t, second, content, 5, chunkSize/2) })
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		if n := far.Count(backendtest.OpRead).Requests; n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

func TestAHungStoreLeavesMemoryToTheOthers(t *testing.T) {
	inBubble(t, Limits{}, 8<<20, reads(50*time.Second), func(t *testing.T, c *Cache, hung *backendtest.Far, s backends.Store) {
		loc, _ := put(t, s, "k", 300*chunkSize)
		b := open(t, s, loc)
		other := backendtest.NewFar("other")
		os := c.Store(other, Limits{})
		otherLoc, content := put(t, os, "o", 30*chunkSize)
		ob := open(t, os, otherLoc)
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() { b.ReadAt(t.Context(), make([]byte, 3*chunkSize), int64(3*i*chunkSize)) })
		}
		synctest.Wait()
		start := time.Now()
		if held := c.Stats().MemoryInUse; held < 1<<20 || held > 8<<20/4 {
			t.Errorf("the store that hangs holds %d bytes", held)
		}
		wantRead(t, ob, content, 0, len(content))
		if took := time.Since(start); took != 0 {
			t.Errorf("another store's read took %v", took)
		}
		wg.Wait()
	})
}

func TestForegroundGoesBeforeReadAhead(t *testing.T) {
	inBubble(t, Limits{Connections: 4}, 1<<30, reads(time.Second), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		loc, content := put(t, s, "k", 320*chunkSize)
		b := open(t, s, loc)
		b.Prefetch(0, 160*chunkSize) // ten requests, two at once: five seconds
		synctest.Wait()
		if n := far.Count(backendtest.OpRead).Requests; n != 2 {
			t.Errorf("%d of 4 connections are used for read-ahead", n)
		}
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() { wantRead(t, b, content, (200+30*i)*chunkSize, chunkSize) })
		}
		wg.Wait()
		// Two at once, and as these end, the other two, before more is read ahead.
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("four reads took %v", took)
		}
		wg.Go(func() { wantRead(t, b, content, 10, chunkSize) }) // joins what was read ahead
		wg.Wait()
		if n := mostConnections(s); n != 4 {
			t.Errorf("%d connections at once", n)
		}
		time.Sleep(10 * time.Second)
		cost := far.Count(backendtest.OpRead)
		wantRead(t, b, content, 0, 160*chunkSize)
		if now := far.Count(backendtest.OpRead); now != cost || cost.Requests != 14 {
			t.Errorf("read ahead in %+v requests, then %+v", cost, now)
		}

		// What is closed is not fetched for any more.
		b.Prefetch(160*chunkSize, 40*chunkSize)
		synctest.Wait()
		b.Close()
		synctest.Wait()
		if n := c.Stats().MemoryInUse; n != 0 {
			t.Errorf("%d bytes are held for who is gone", n)
		}
	})
}

func TestHintsAreBounded(t *testing.T) {
	inBubble(t, Limits{Connections: 2}, 64<<20, reads(time.Second), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		loc, _ := put(t, s, "k", 300*chunkSize)
		b := open(t, s, loc)
		for i := range 300 {
			b.Prefetch(int64(i*chunkSize), 1)
		}
		for _, odd := range [][2]int64{{-1, 10}, {0, -1}, {1 << 62, 1}, {5, 1 << 62}, {-1 << 62, 1 << 62}, {300 * chunkSize, 1}} {
			b.Prefetch(odd[0], odd[1])
		}
		c.mu.Lock()
		if n := len(s.(*store).up.hints); n > maxHints {
			t.Errorf("%d hints wait", n)
		}
		c.mu.Unlock()
		time.Sleep(10 * time.Minute)
		if n := far.Count(backendtest.OpRead).Requests; n < maxHints || n > maxHints+2 {
			t.Errorf("%d were fetched", n)
		}
	})
}

func TestBandwidthIsBounded(t *testing.T) {
	inBubble(t, Limits{BytesPerSecond: chunkSize * 10}, 64<<20, nil, func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		loc, content := put(t, s, "k", 300*chunkSize)
		b := open(t, s, loc)
		start := time.Now()
		for i := range 150 {
			wantRead(t, b, content, i*chunkSize, chunkSize)
		}
		if took := time.Since(start); took < 14900*time.Millisecond || took > 15100*time.Millisecond {
			t.Errorf("150 chunks at 10 a second took %v", took)
		}
		// Read-ahead takes what is left over, and leaves half of what may burst.
		b.Prefetch(150*chunkSize, 150*chunkSize)
		time.Sleep(100 * time.Second)
		if n := far.Count(backendtest.OpRead).Bytes; n != 300*chunkSize {
			t.Errorf("%d bytes were fetched", n)
		}
	})
}

func TestAFailedFetchFailsThoseWhoWaitAndNobodyElse(t *testing.T) {
	far := backendtest.NewFar("far")
	var fail atomic.Bool
	far.Fail = func(op backendtest.Op) error {
		if op == backendtest.OpRead && fail.Load() {
			return stored.ErrUnavailable
		}
		return nil
	}
	c := mustOpen(t, t.TempDir(), 40)
	s := c.Store(far, Limits{})
	loc, content := put(t, s, "k", 30*chunkSize)
	b := open(t, s, loc)
	wantRead(t, b, content, 0, 5*chunkSize)
	settle(t, c)
	fail.Store(true)
	if err := b.ReadAt(t.Context(), make([]byte, 3*chunkSize), 4*chunkSize); !errors.Is(err, stored.ErrUnavailable) {
		t.Errorf("%v", err)
	}
	wantRead(t, b, content, 0, 5*chunkSize)
	fail.Store(false)
	wantRead(t, b, content, 0, len(content))
}

func TestAClosedCacheEndsWhatIsUnderWay(t *testing.T) {
	inBubble(t, Limits{}, 64<<20, reads(time.Hour), func(t *testing.T, c *Cache, far *backendtest.Far, s backends.Store) {
		loc, _ := put(t, s, "k", 30*chunkSize)
		b := open(t, s, loc)
		errs := make(chan error)
		go func() { errs <- b.ReadAt(t.Context(), make([]byte, 10), 0) }()
		b.Prefetch(10*chunkSize, chunkSize)
		synctest.Wait()
		c.Close()
		if err := <-errs; !errors.Is(err, errClosed) {
			t.Errorf("%v", err)
		}
		if err := b.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, errClosed) {
			t.Errorf("%v", err)
		}
		if _, ok := b.FileRange(0, 1); ok {
			t.Error("a range")
		}
	})
}

func TestALineServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := line{limit: 1}
		l.take(t.Context(), false)
		var mu sync.Mutex
		var order []int
		for i, ahead := range []bool{true, false, true, false} {
			go func() {
				l.take(t.Context(), ahead)
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				l.give(ahead)
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.take(ctx, false); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		l.give(false)
		synctest.Wait()
		if !slices.Equal(order, []int{1, 3, 0, 2}) || l.busy != 0 || l.ahead != 0 {
			t.Errorf("served in order %v; %d are busy", order, l.busy)
		}
	})
}
