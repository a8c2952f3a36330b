package all

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends/backendtest"
	"glanced/backends/budget"
	"glanced/backends/cache"
	"glanced/backends/replicas"
	"glanced/backends/retry"
	"glanced/backends/stored"
)

// moment is longer than the cache waits for neighbours of a read to go with it.
const moment = 10 * time.Millisecond

// The wrappers stacked as the daemon has them, over a store that never answers: a read
// fails within what retry.Reads allows. Where there is another replica, it has the bytes
// much earlier, and those that come later do not wait.
func TestAStoreThatNeverAnswersCostsNoMoreThanItsDeadline(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		c, err := cache.Open(cache.Config{Dir: dir, Size: 64 << 20, ChunkSize: chunk, Memory: budget.New(16 << 20)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		content := backendtest.Noise(1, 4<<20)
		var silent atomic.Bool
		opener := func(id string, hangs bool) replicas.Opener {
			far := backendtest.NewFar(id)
			loc, err := backendtest.Put(t.Context(), far, "k", bytes.NewReader(content), -1)
			if err != nil {
				t.Fatal(err)
			}
			far.Delay = func(op backendtest.Op) time.Duration {
				if hangs && silent.Load() && op == backendtest.OpRead {
					return 24 * time.Hour
				}
				return 0
			}
			s := c.Store(retry.Store(far, retry.Reads, retry.Changes), cache.Limits{})
			return func(ctx context.Context) (stored.Bytes, error) { return s.Open(ctx, loc) }
		}
		open := func(from ...replicas.Opener) stored.Bytes {
			b, err := replicas.Open(t.Context(), from, replicas.Options{})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		read := func(b stored.Bytes, off int) (time.Duration, error) {
			began, got := time.Now(), make([]byte, 1000)
			err := b.ReadAt(t.Context(), got, int64(off))
			if err == nil && !bytes.Equal(got, content[off:off+1000]) {
				t.Errorf("other bytes at %d", off)
			}
			return time.Since(began), err
		}
		hung := opener("hung", true)
		alone, both, none := open(hung), open(hung, opener("fine", false)), open(hung, opener("hung too", true))
		defer alone.Close()
		defer both.Close()
		defer none.Close()
		if _, err := read(both, 0); err != nil {
			t.Fatal(err)
		}
		silent.Store(true)
		if took, err := read(alone, 1<<20); !errors.Is(err, stored.ErrUnavailable) || took > retry.Reads.Total+moment {
			t.Errorf("the only store hangs: %v after %v", err, took)
		}
		if took, err := read(both, 1<<20); err != nil || took > replicas.Usual.First+moment {
			t.Errorf("the first of two hangs: %v after %v", err, took)
		}
		for off := 2 << 20; off < 3<<20; off += 100_000 {
			if took, err := read(both, off); err != nil || took > moment {
				t.Errorf("a later read: %v after %v", err, took)
			}
		}
		if took, err := read(none, 1<<20); !errors.Is(err, stored.ErrUnavailable) || took > replicas.Usual.First+retry.Reads.Total+moment {
			t.Errorf("both hang: %v after %v", err, took)
		}
		// One tries the first store again, in a while; who comes meanwhile does not.
		time.Sleep(replicas.RetryAfter)
		var waited atomic.Int64
		var readers sync.WaitGroup
		for i := range 10 {
			readers.Go(func() {
				took, err := read(both, 3<<20+i*90_000)
				if err != nil {
					t.Error(err)
				}
				if took > moment {
					waited.Add(1)
				}
			})
		}
		readers.Wait()
		if waited.Load() != 1 {
			t.Errorf("%d of 10 waited for the store that hangs", waited.Load())
		}
		silent.Store(false)
		if took, err := read(alone, 1<<20); err != nil || took > moment {
			t.Errorf("when it answers again: %v after %v", err, took)
		}
	})
}
