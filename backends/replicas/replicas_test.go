package replicas_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

var content = backendtest.Noise(1, 300_000)

// places are far stores, each with the content, and what each request to one of them
// fails with (nil: it does not).
type places struct {
	far    []*backendtest.Far
	fail   []atomic.Pointer[error]
	news   []string // what the reader told of
	mu     sync.Mutex
	opener []replicas.Opener
}

func newPlaces(t testing.TB, n int) *places {
	p := &places{fail: make([]atomic.Pointer[error], n)}
	for i := range n {
		far := backendtest.NewFar(fmt.Sprint("far", i))
		loc, err := backendtest.Put(t.Context(), far, "k", bytes.NewReader(content), -1)
		if err != nil {
			t.Fatal(err)
		}
		far.Fail = func(backendtest.Op) error {
			if err := p.fail[i].Load(); err != nil {
				return *err
			}
			return nil
		}
		p.far = append(p.far, far)
		p.opener = append(p.opener, func(ctx context.Context) (stored.Bytes, error) { return far.Open(ctx, loc) })
	}
	return p
}

func (p *places) open(t testing.TB) stored.Bytes {
	t.Helper()
	b, err := replicas.Open(t.Context(), p.opener, replicas.Options{Failed: p.failed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (p *places) failed(i int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.news = append(p.news, fmt.Sprint(i))
}

// breaks has requests to a place fail with err, from now on; nil: no more.
func (p *places) breaks(i int, err error) {
	if err == nil {
		p.fail[i].Store(nil)
	} else {
		p.fail[i].Store(&err)
	}
}

// reads is how many read requests each place has had.
func (p *places) reads() (n []int64) {
	for _, f := range p.far {
		n = append(n, f.Count(backendtest.OpRead).Requests)
	}
	return n
}

func wantRead(t testing.TB, b stored.Bytes, off, n int64) {
	t.Helper()
	p := make([]byte, n)
	if err := b.ReadAt(t.Context(), p, off); err != nil || !bytes.Equal(p, content[off:off+n]) {
		t.Errorf("%d bytes at %d: %v, or other bytes", n, off, err)
	}
}

func TestTheFirstThatOpensIsRead(t *testing.T) {
	for _, why := range []error{backends.ErrUnavailable, backends.ErrNotFound, backends.ErrDenied, backends.ErrChanged, errors.New("the disk is on fire")} {
		p := newPlaces(t, 3)
		p.breaks(0, why)
		b := p.open(t)
		if b.Size() != int64(len(content)) || b.Identity() == "" {
			t.Errorf("%d bytes, identity %q", b.Size(), b.Identity())
		}
		wantRead(t, b, 5, 1000)
		if got := p.reads(); !slices.Equal(got, []int64{0, 1, 0}) {
			t.Errorf("%v: reads went to %v", why, got)
		}
		if !slices.Equal(p.news, []string{"0"}) {
			t.Errorf("%v: told of %v", why, p.news)
		}
	}
}

func TestAReadGoesOnAtTheNext(t *testing.T) {
	for _, why := range []error{backends.ErrUnavailable, backends.ErrNotFound, backends.ErrDenied, backends.ErrChanged} {
		p := newPlaces(t, 3)
		b := p.open(t)
		id := b.Identity()
		wantRead(t, b, 0, 1000)
		p.breaks(0, fmt.Errorf("read: %w", why))
		wantRead(t, b, 1000, 1000)
		p.breaks(1, fmt.Errorf("read: %w", why))
		wantRead(t, b, 2000, 1000)
		wantRead(t, b, 3000, 1000)
		if got := p.reads(); !slices.Equal(got, []int64{2, 2, 2}) {
			t.Errorf("%v: reads went to %v", why, got)
		}
		if !slices.Equal(p.news, []string{"0", "1"}) {
			t.Errorf("%v: told of %v", why, p.news)
		}
		if b.Identity() != id || b.Size() != int64(len(content)) {
			t.Error("another identity or size")
		}
	}
}

func TestObjectsChangedUnderneathAreLeft(t *testing.T) {
	p := newPlaces(t, 3)
	b := p.open(t)
	p.far[0].Replace("k", backendtest.Noise(2, len(content)))
	wantRead(t, b, 0, 1000)
	p.far[1].Truncate("k", 10)
	wantRead(t, b, 0, 1000)
	p.far[2].Remove("k")
	err := b.ReadAt(t.Context(), make([]byte, 10), 0)
	if !errors.Is(err, backends.ErrChanged) || !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("nobody has the bytes, and the read says %v", err)
	}
}

func TestOtherErrorsAreTheReaders(t *testing.T) {
	p := newPlaces(t, 2)
	b := p.open(t)
	broken := errors.New("the disk is on fire")
	p.breaks(0, broken)
	if err := b.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, broken) {
		t.Error(err)
	}
	for _, r := range [][2]int64{{-1, 1}, {int64(len(content)), 1}, {1, int64(len(content))}} {
		if err := b.ReadAt(t.Context(), make([]byte, r[1]), r[0]); !errors.Is(err, stored.ErrRange) {
			t.Errorf("%v: %v", r, err)
		}
	}
	why := errors.New("the client hung up")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	p.breaks(0, nil)
	if err := b.ReadAt(ctx, make([]byte, 10), 0); !errors.Is(err, why) {
		t.Error(err)
	}
	if got := p.reads(); got[1] != 0 || len(p.news) != 0 {
		t.Errorf("reads went to %v, told of %v", got, p.news)
	}
}

func TestAllThatFailIsSaid(t *testing.T) {
	p := newPlaces(t, 2)
	p.breaks(0, fmt.Errorf("one: %w", backends.ErrUnavailable))
	p.breaks(1, fmt.Errorf("two: %w", backends.ErrNotFound))
	b, err := replicas.Open(t.Context(), p.opener, replicas.Options{})
	if b != nil || !errors.Is(err, backends.ErrUnavailable) || !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("opened: %v", err)
	}
	p.breaks(1, nil)
	b = p.open(t)
	p.breaks(1, fmt.Errorf("two: %w", backends.ErrChanged))
	err = b.ReadAt(t.Context(), make([]byte, 10), 0)
	if !errors.Is(err, backends.ErrUnavailable) || !errors.Is(err, backends.ErrChanged) {
		t.Errorf("read: %v", err)
	}
	// However lately they failed: when no other answers, they are asked.
	p.breaks(0, nil)
	wantRead(t, b, 0, 10)
}

func TestWhatFailedIsTriedAgainLater(t *testing.T) {
	for _, why := range []error{backends.ErrUnavailable, backends.ErrChanged} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlaces(t, 2)
			b := p.open(t)
			p.breaks(0, why)
			wantRead(t, b, 0, 10)
			p.breaks(0, nil)
			for range 5 {
				wantRead(t, b, 0, 10)
			}
			if got := p.reads(); !slices.Equal(got, []int64{1, 6}) {
				t.Errorf("%v: at once, reads went to %v", why, got)
			}
			time.Sleep(replicas.RetryAfter)
			wantRead(t, b, 0, 10)
			wantRead(t, b, 0, 10)
			if got := p.reads(); !slices.Equal(got, []int64{3, 6}) {
				t.Errorf("%v: later, reads went to %v", why, got)
			}
			opens := int64(1)
			if why != backends.ErrUnavailable { // what has changed is opened anew
				opens = 2
			}
			if got := p.far[0].Count(backendtest.OpOpen).Requests; got != opens {
				t.Errorf("%v: opened %d times", why, got)
			}
			if !slices.Equal(p.news, []string{"0"}) {
				t.Errorf("%v: told of %v", why, p.news)
			}
		})
	}
}

func TestItIsToldOnceThatAReplicaFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, 2)
		b := p.open(t)
		for n := range 2 {
			p.breaks(0, backends.ErrUnavailable)
			for range 3 {
				wantRead(t, b, 0, 10)
				time.Sleep(replicas.RetryAfter)
			}
			p.breaks(0, nil)
			wantRead(t, b, 0, 10)
			if len(p.news) != n+1 {
				t.Errorf("it failed %d times for a while, and that was told %d times", n+1, len(p.news))
			}
		}
	})
}

// One read finds out whether a replica is back; the others do not wait for it.
func TestOneReadTriesWhatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(t, 2)
		p.far[0].Delay = func(backendtest.Op) time.Duration { return time.Second }
		b := p.open(t)
		p.breaks(0, backends.ErrUnavailable)
		wantRead(t, b, 0, 10)
		time.Sleep(replicas.RetryAfter)
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { wantRead(t, b, 0, 10) })
		}
		all.Wait()
		if got := p.reads(); !slices.Equal(got, []int64{2, 11}) {
			t.Errorf("reads went to %v", got)
		}
	})
}

func TestAReplicaOfAnotherSizeIsNone(t *testing.T) {
	p := newPlaces(t, 3)
	other := backendtest.NewFar("other")
	loc, err := backendtest.Put(t.Context(), other, "k", bytes.NewReader(content[1:]), -1)
	if err != nil {
		t.Fatal(err)
	}
	p.opener[1] = func(ctx context.Context) (stored.Bytes, error) { return other.Open(ctx, loc) }
	b := p.open(t)
	p.breaks(0, backends.ErrUnavailable)
	wantRead(t, b, int64(len(content))-10, 10)
	if got := p.reads(); !slices.Equal(got, []int64{1, 0, 1}) || other.Count(backendtest.OpRead).Requests != 0 {
		t.Errorf("reads went to %v", got)
	}
	p.breaks(2, backends.ErrUnavailable)
	if err := b.ReadAt(t.Context(), make([]byte, 10), 0); !errors.Is(err, stored.ErrChanged) {
		t.Errorf("a read that has only the other left: %v", err)
	}
}

func TestManyReadersMoveOnTogether(t *testing.T) {
	p := newPlaces(t, 3)
	b := p.open(t)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range int64(200) {
				if i == 0 && n == 50 {
					p.breaks(0, backends.ErrChanged)
				}
				if i == 1 && n == 100 {
					p.breaks(1, backends.ErrUnavailable)
				}
				wantRead(t, b, n*1000, 1000)
			}
		})
	}
	all.Wait()
}

func TestNothingIsLeftOpen(t *testing.T) {
	p := newPlaces(t, 2)
	var open atomic.Int64
	for i, opener := range p.opener {
		p.opener[i] = func(ctx context.Context) (stored.Bytes, error) {
			b, err := opener(ctx)
			if err != nil {
				return nil, err
			}
			open.Add(1)
			return closes{b, &open}, nil
		}
	}
	b, err := replicas.Open(t.Context(), p.opener, replicas.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.breaks(0, backends.ErrChanged)
	wantRead(t, b, 0, 10)
	if open.Load() != 1 {
		t.Errorf("%d are open after one has changed", open.Load())
	}
	if err := b.Close(); err != nil || open.Load() != 0 {
		t.Errorf("%d are open after the end, %v", open.Load(), err)
	}
	if err := b.ReadAt(t.Context(), make([]byte, 1), 0); err == nil {
		t.Error("read after the end")
	}
}

type closes struct {
	stored.Bytes
	open *atomic.Int64
}

func (b closes) Close() error {
	b.open.Add(-1)
	return b.Bytes.Close()
}
