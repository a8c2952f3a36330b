package replicas_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/replicas"
	"glanced/backends/stored"
)

const day = 24 * time.Hour

// slow has requests of one kind to a place take so long, from when it is set on.
func (p *places) slow(i int, op backendtest.Op) *atomic.Int64 {
	var takes atomic.Int64
	p.far[i].Delay = func(o backendtest.Op) time.Duration {
		if o != op {
			return 0
		}
		return time.Duration(takes.Load())
	}
	return &takes
}

// wantTime checks how long something took, by the clock of the bubble.
func wantTime(t testing.TB, what string, want time.Duration, do func()) {
	t.Helper()
	began := time.Now()
	do()
	if took := time.Since(began); took != want {
		t.Errorf("%s took %v, want %v", what, took, want)
	}
}

// Where another location has the bytes, nobody waits long for the first; and not again
// for a while.
func TestAReplicaThatHangsIsLeftForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, 2)
		takes := p.slow(0, backendtest.OpRead)
		b := p.open(t)
		takes.Store(int64(day))
		read := func() { wantRead(t, b, 0, 10) }
		wantTime(t, "the first read", replicas.Usual.First, read)
		for range 5 {
			wantTime(t, "a later read", 0, read)
		}
		time.Sleep(replicas.RetryAfter)
		wantTime(t, "the read that looks whether it is back", replicas.Usual.First, read)
		wantTime(t, "the next one", 0, read)
		if got := p.reads(); !slices.Equal(got, []int64{2, 8}) {
			t.Errorf("reads went to %v", got)
		}
		if !slices.Equal(p.news, []string{"0"}) {
			t.Errorf("told of %v", p.news)
		}
	})
}

func TestAReplicaThatDoesNotOpenInTimeIsLeftForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, 2)
		p.slow(0, backendtest.OpOpen).Store(int64(day))
		wantTime(t, "to open", replicas.Usual.First, func() {
			wantRead(t, p.open(t), 0, 10)
		})
		if got := p.reads(); !slices.Equal(got, []int64{0, 1}) {
			t.Errorf("reads went to %v", got)
		}
	})
}

// One that was slow is waited for when nobody else has the bytes.
func TestAReplicaThatIsSlowIsWaitedForWhenItIsTheOnlyOne(t *testing.T) {
	const slow = 10 * time.Second
	read := replicas.Usual.First + slow
	for name, c := range map[string]struct {
		fails error // of the second, which does not open; nil: it is slow too
		took  time.Duration
		reads []int64
	}{
		"the other has no such object":   {backends.ErrNotFound, read, []int64{2, 0}},
		"the other cannot be reached":    {backends.ErrUnavailable, read, []int64{2, 0}},
		"the other takes as long":        {nil, read, []int64{1, 1}},
		"the other holds something else": {backends.ErrChanged, read, []int64{2, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlaces(t, 2)
				first, second := p.slow(0, backendtest.OpRead), p.slow(1, backendtest.OpRead)
				b := p.open(t)
				first.Store(int64(slow))
				if c.fails == nil {
					second.Store(int64(slow))
				} else {
					p.breaks(1, c.fails)
				}
				wantTime(t, name+": a read", c.took, func() { wantRead(t, b, 0, 10) })
				if got := p.reads(); !slices.Equal(got, c.reads) {
					t.Errorf("reads went to %v, want %v", got, c.reads)
				}
			})
		})
	}
}

// The one that answers is not given up for one that failed a moment ago.
func TestTheReplicaInUseIsNotHurriedForOneThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, 2)
		takes := p.slow(1, backendtest.OpRead)
		b := p.open(t)
		p.breaks(0, backends.ErrUnavailable)
		wantRead(t, b, 0, 10)
		takes.Store(int64(10 * time.Second))
		wantTime(t, "a read", 10*time.Second, func() { wantRead(t, b, 0, 10) })
		if got := p.reads(); !slices.Equal(got, []int64{1, 2}) {
			t.Errorf("reads went to %v", got)
		}
	})
}

// Of two that failed a moment ago, the one that hangs keeps nobody from the other.
func TestOfTwoThatFailedOneIsLeftForTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, 2)
		takes := p.slow(0, backendtest.OpRead)
		b := p.open(t)
		p.breaks(0, backends.ErrUnavailable)
		p.breaks(1, backends.ErrUnavailable)
		if err := b.ReadAt(t.Context(), make([]byte, 10), 0); err == nil {
			t.Fatal("read from nowhere")
		}
		p.breaks(0, nil)
		p.breaks(1, nil)
		takes.Store(int64(day))
		wantTime(t, "a read", replicas.Usual.First, func() { wantRead(t, b, 0, 10) })
	})
}

// What one reader has found out, those of other contents in the same store know.
func TestReadersShareWhatTheyFindOutOfAPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, 2)
		takes := p.slow(0, backendtest.OpRead)
		at := []*replicas.Place{new(replicas.Place), new(replicas.Place)}
		open := func() stored.Bytes {
			b, err := replicas.Open(t.Context(), p.opener, replicas.Options{Places: at})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { b.Close() })
			return b
		}
		a, b := open(), open()
		takes.Store(int64(day))
		wantTime(t, "the first reader", replicas.Usual.First, func() { wantRead(t, a, 0, 10) })
		wantTime(t, "the second one", 0, func() { wantRead(t, b, 0, 10) })
		wantTime(t, "one that comes later", 0, func() { wantRead(t, open(), 0, 10) })
		time.Sleep(replicas.RetryAfter)
		var all sync.WaitGroup
		var waited atomic.Int64
		for _, r := range []stored.Bytes{a, b, a, b} {
			all.Go(func() {
				began := time.Now()
				wantRead(t, r, 0, 10)
				if time.Since(began) > 0 {
					waited.Add(1)
				}
			})
		}
		all.Wait()
		if waited.Load() != 1 {
			t.Errorf("%d of 4 looked whether it is back", waited.Load())
		}
		takes.Store(0)
		time.Sleep(replicas.RetryAfter)
		before := p.reads()
		wantRead(t, a, 0, 10)
		wantRead(t, b, 0, 10)
		wantRead(t, b, 0, 10)
		if after := p.reads(); after[0] != before[0]+3 || after[1] != before[1] {
			t.Errorf("when it is back, reads go from %v to %v", before, after)
		}
		// That an object is not there says nothing of the place.
		p.breaks(0, backends.ErrNotFound)
		wantRead(t, a, 0, 10)
		p.breaks(0, nil)
		before = p.reads()
		wantRead(t, b, 0, 10)
		if after := p.reads(); after[0] != before[0]+1 {
			t.Errorf("an object that is gone keeps readers of others away: from %v to %v", before, after)
		}
	})
}

// When much time has passed, no location is asked twice.
func TestPatienceEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, 3)
		first, second := p.slow(0, backendtest.OpRead), p.slow(1, backendtest.OpRead)
		third := p.slow(2, backendtest.OpOpen)
		b := p.open(t)
		first.Store(int64(day))
		second.Store(int64(day))
		third.Store(int64(replicas.Usual.All))
		p.breaks(2, backends.ErrUnavailable)
		wantTime(t, "a read that fails", 2*replicas.Usual.First+replicas.Usual.All, func() {
			if err := b.ReadAt(t.Context(), make([]byte, 10), 0); err == nil {
				t.Error("read from nowhere")
			}
		})
		if got := p.reads(); !slices.Equal(got, []int64{1, 1, 0}) {
			t.Errorf("reads went to %v", got)
		}
	})
}
