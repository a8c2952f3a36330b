package raw

import (
	"context"
	"errors"
	"math/rand"
	"reflect"
	"testing"

	"glanced/formats"
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

func mapped(t *testing.T, l formats.Layout, off, n int64) (all []formats.Extent) {
	t.Helper()
	if err := l.Map(context.Background(), off, n, func(x formats.Extent) bool {
		all = append(all, x)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func opened(t *testing.T, src formats.Source) formats.Layout {
	t.Helper()
	l, err := open(context.Background(), []formats.Source{src}, nil, formats.Options{})
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
		var want []formats.Extent
		src.Extents(context.Background(), off, n, func(off, n int64, hole bool) bool {
			x := formats.Extent{Off: off, Len: n, Kind: formats.Zero}
			if !hole {
				x.Kind, x.Pos, x.N = formats.Data, off, n
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
	if err := l.Map(context.Background(), src.Size()-1, 2, nil); !errors.Is(err, formats.ErrRange) {
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
	if _, err := open(context.Background(), []formats.Source{src}, nil, formats.Options{}); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestWithoutHolesAllIsData(t *testing.T) {
	l := opened(t, struct{ formats.Source }{&sparse{runs: []int64{1 << 20}}})
	want := []formats.Extent{{Off: 5, Len: 10, Kind: formats.Data, Pos: 5, N: 10}}
	if got := mapped(t, l, 5, 10); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	if got := mapped(t, l, 1<<20, 0); got != nil {
		t.Errorf("an empty range: %+v", got)
	}
}
