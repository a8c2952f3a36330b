package replicas_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/localfile"
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
	b, err := replicas.Open(t.Context(), p.opener, p.failed)
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
	for _, why := range []error{backends.ErrUnavailable, backends.ErrNotFound, backends.ErrChanged, errors.New("the disk is on fire")} {
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
	for _, why := range []error{backends.ErrUnavailable, backends.ErrNotFound, backends.ErrChanged} {
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
	b, err := replicas.Open(t.Context(), p.opener, nil)
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

// A local file and a far store hold the same bytes.
func mixed(t *testing.T, localFirst bool) (b stored.Bytes, file string, fail *atomic.Pointer[error]) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "k")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPlaces(t, 1)
	local := func(context.Context) (stored.Bytes, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", backends.ErrNotFound, err)
		}
		return localfile.New(f, "")
	}
	if localFirst {
		p.opener = []replicas.Opener{local, p.opener[0]}
	} else {
		p.opener = []replicas.Opener{p.opener[0], local}
	}
	return p.open(t), file, &p.fail[0]
}

func TestAbilitiesAreThoseOfTheReplicaInUse(t *testing.T) {
	b, _, fail := mixed(t, false)
	_, files := b.(stored.FileRanger).FileRange(0, 10)
	_, whole := b.(stored.WholeFiler).WholeFile()
	if files || whole {
		t.Error("a far store's bytes lie in a local file")
	}
	holes := 0
	err := b.(stored.Extenter).Extents(t.Context(), 10, 20, func(off, n int64, hole bool) bool {
		if off != 10 || n != 20 || hole {
			t.Errorf("run of %d at %d, hole %v", n, off, hole)
		}
		holes++
		return true
	})
	if err != nil || holes != 1 {
		t.Errorf("%d runs, %v", holes, err)
	}
	b.(stored.Prefetcher).Prefetch(0, 10)
	if err := b.(stored.Verifier).Verify(t.Context()); err != nil {
		t.Error(err)
	}

	fail.Store(&backends.ErrUnavailable)
	wantRead(t, b, 0, 10)
	r, ok := b.(stored.FileRanger).FileRange(1000, 500)
	p := make([]byte, 500)
	if !ok || r.Len != 500 {
		t.Fatalf("range %+v, %v", r, ok)
	}
	if _, err := r.File.ReadAt(p, r.Pos); err != nil || !bytes.Equal(p, content[1000:1500]) {
		t.Errorf("the file's range: %v, or other bytes", err)
	}
	r.Release()
	if w, ok := b.(stored.WholeFiler).WholeFile(); !ok || w.Len != int64(len(content)) {
		t.Errorf("whole file %+v, %v", w, ok)
	} else {
		w.Release()
	}
	if _, ok := b.(stored.FileRanger).FileRange(int64(len(content)), 1); ok {
		t.Error("a range past the end was given")
	}
}

// Who holds a range of a file reads on, although reads have moved on.
func TestAHeldFileStaysOpen(t *testing.T) {
	b, file, _ := mixed(t, true)
	held, ok := b.(stored.FileRanger).FileRange(0, 100)
	if !ok {
		t.Fatal("not in a local file")
	}
	if err := os.Truncate(file, 1000); err != nil {
		t.Fatal(err)
	}
	wantRead(t, b, 5000, 100) // from the far store: the file was cut off
	if _, ok := b.(stored.FileRanger).FileRange(0, 100); ok {
		t.Error("a range of the file that has changed was given")
	}
	p := make([]byte, 100)
	if _, err := held.File.ReadAt(p, held.Pos); err != nil || !bytes.Equal(p, content[:100]) {
		t.Errorf("the held range: %v, or other bytes", err)
	}
	held.Release()
	if _, err := held.File.ReadAt(p, held.Pos); !errors.Is(err, os.ErrClosed) {
		t.Errorf("nobody holds the file, and reading it says %v", err)
	}
}

func TestWhatFailedGivesNoFile(t *testing.T) {
	b, file, fail := mixed(t, true)
	fail.Store(&backends.ErrUnavailable)
	if err := os.Truncate(file, 1000); err != nil {
		t.Fatal(err)
	}
	err := b.ReadAt(t.Context(), make([]byte, 10), 5000)
	if !errors.Is(err, backends.ErrChanged) || !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
	if _, ok := b.(stored.FileRanger).FileRange(0, 100); ok {
		t.Error("a range of the file that has changed was given")
	}
}

// torn knows holes, and fails in the middle of telling them.
type torn struct {
	stored.Bytes
	verify error
}

func (b torn) Extents(_ context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	yield(off, n/2, true)
	return backends.ErrUnavailable
}

func (b torn) Verify(context.Context) error { return b.verify }

func TestExtentsGoOnAtTheNext(t *testing.T) {
	p := newPlaces(t, 2)
	first := p.opener[0]
	p.opener[0] = func(ctx context.Context) (stored.Bytes, error) {
		b, err := first(ctx)
		return torn{Bytes: b}, err
	}
	b := p.open(t)
	var runs []string
	err := b.(stored.Extenter).Extents(t.Context(), 100, 50, func(off, n int64, hole bool) bool {
		runs = append(runs, fmt.Sprintf("%d+%d %v", off, n, hole))
		return true
	})
	if want := []string{"100+25 true", "125+25 false"}; err != nil || !slices.Equal(runs, want) {
		t.Errorf("runs %v, %v; want %v", runs, err, want)
	}
	if err := b.(stored.Extenter).Extents(t.Context(), 1, b.Size(), nil); !errors.Is(err, stored.ErrRange) {
		t.Error(err)
	}
}

func TestVerifyLeavesWhatHasChanged(t *testing.T) {
	p := newPlaces(t, 2)
	first := p.opener[0]
	p.opener[0] = func(ctx context.Context) (stored.Bytes, error) {
		b, err := first(ctx)
		return torn{b, backends.ErrChanged}, err
	}
	b := p.open(t)
	if err := b.(stored.Verifier).Verify(t.Context()); err != nil {
		t.Errorf("another replica is as it was, and %v", err)
	}
	wantRead(t, b, 0, 10)
	if got := p.reads(); !slices.Equal(got, []int64{0, 1}) {
		t.Errorf("reads went to %v", got)
	}
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
	b, err := replicas.Open(t.Context(), p.opener, nil)
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
