package replicas_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"glanced/backends"
	"glanced/backends/localfile"
	"glanced/backends/replicas"
	"glanced/backends/stored"
)

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
