package formats

import (
	"context"
	"errors"
	"math/rand"
	"reflect"
	"testing"

	"glanced/backends/stored"
)

// sparse is a source that knows its holes: runs alternate, data first.
type sparse struct {
	runs  []int64 // lengths
	asked int
	fail  error
}

func (s *sparse) Size() (n int64) {
	for _, r := range s.runs {
		n += r
	}
	return n
}
func (s *sparse) ReadAt(context.Context, []byte, int64) error { return nil }
func (s *sparse) Close() error                                { return nil }
func (s *sparse) Identity() stored.Identity                   { return "" }
func (s *sparse) Extents(_ context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	s.asked++
	at := int64(0)
	for i, r := range s.runs {
		from, to := max(at, off), min(at+r, off+n)
		if from < to && !yield(from, to-from, i%2 == 1) {
			return nil
		}
		at += r
	}
	return s.fail
}

func mapped(t *testing.T, l Layout, off, n int64) (all []Extent) {
	t.Helper()
	if err := l.Map(context.Background(), off, n, func(x Extent) bool {
		all = append(all, x)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func opened(t *testing.T, src stored.Bytes) Layout {
	t.Helper()
	l, err := NewFlat(context.Background(), src, Info{VirtualSize: src.Size()})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestHolesAreAskedForOnceAndToldAsTheyAre(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	src := &sparse{}
	for range 501 {
		src.runs = append(src.runs, 1+r.Int63n(20000))
	}
	l := opened(t, src)
	for range 2000 {
		off := r.Int63n(src.Size())
		n := 1 + r.Int63n(min(100000, src.Size()-off))
		var want []Extent
		src.Extents(context.Background(), off, n, func(off, n int64, hole bool) bool {
			x := Extent{Off: off, Len: n, Kind: Zero}
			if !hole {
				x.Kind, x.Pos, x.N = Data, off, n
			}
			want = append(want, x)
			return true
		})
		src.asked--
		if got := mapped(t, l, off, n); !reflect.DeepEqual(got, want) {
			t.Fatalf("%d bytes at %d:\n got %+v\nwant %+v", n, off, got, want)
		}
	}
	if src.asked != 1 {
		t.Errorf("the source was asked %d times", src.asked)
	}
	if err := l.Map(context.Background(), src.Size()-1, 2, nil); !errors.Is(err, ErrRange) {
		t.Errorf("past the end: %v", err)
	}
}

func TestOfTooManyHolesTheSmallestAreToldAsData(t *testing.T) {
	src := &sparse{}
	for i := range 2000 { // every tenth hole is large
		src.runs = append(src.runs, 4096, 4096)
		if i%10 == 0 {
			src.runs[len(src.runs)-1] = 1 << 20
		}
	}
	holes, err := findHoles(context.Background(), src, src.Size(), 300)
	if err != nil {
		t.Fatal(err)
	}
	if len(holes) > 300 {
		t.Errorf("%d holes are kept, of at most 300", len(holes))
	}
	large := 0
	for _, h := range holes {
		if h.end-h.off == 1<<20 {
			large++
		}
	}
	if large != 200 {
		t.Errorf("%d of 200 large holes are kept", large)
	}
}

func TestASourceThatCannotTellItsHolesIsNotOpened(t *testing.T) {
	broken := errors.New("broken")
	src := &sparse{runs: []int64{4096, 4096}, fail: broken}
	if _, err := NewFlat(context.Background(), src, Info{VirtualSize: src.Size()}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestWithoutHolesAllIsData(t *testing.T) {
	l := opened(t, struct{ stored.Bytes }{&sparse{runs: []int64{1 << 20}}})
	want := []Extent{{Off: 5, Len: 10, Kind: Data, Pos: 5, N: 10}}
	if got := mapped(t, l, 5, 10); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if got := mapped(t, l, 1<<20, 0); got != nil {
		t.Errorf("an empty range: %+v", got)
	}
}

func TestAFlatDiskEndsBeforeItsTrailer(t *testing.T) {
	src := &sparse{runs: []int64{4096, 8192, 512}}
	l, err := NewFlat(context.Background(), src, Info{VirtualSize: 10000})
	if err != nil {
		t.Fatal(err)
	}
	want := []Extent{
		{Off: 0, Len: 4096, Kind: Data, N: 4096},
		{Off: 4096, Len: 10000 - 4096, Kind: Zero},
	}
	if got := mapped(t, l, 0, l.Size()); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if _, err := NewFlat(context.Background(), src, Info{VirtualSize: src.Size() + 1}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a disk longer than its file: %v", err)
	}
}
