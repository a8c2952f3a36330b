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
	asked int     // times
	bytes int64   // in all
	fail  error
	shift int64 // makes it say nonsense
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
	s.bytes += n
	at := s.shift
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
	l, err := NewFlat(src, Info{VirtualSize: src.Size()}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// Holes shorter than holeBlock may be told as data, and the others as a block less at
// either end; everything else is as it is.
func TestHolesAreToldAsTheyAre(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for _, aligned := range []bool{true, false} {
		src := &sparse{}
		for i := range 1001 {
			n := (1 + r.Int63n(20)) << 12
			if i%100 == 0 {
				n = (1 + r.Int63n(40_000)) << 12 // over some windows
			}
			if !aligned {
				n += r.Int63n(4096)
			}
			src.runs = append(src.runs, n)
		}
		l := opened(t, src)
		for range 2000 {
			off := r.Int63n(src.Size())
			n := 1 + r.Int63n(min(1<<uint(10+r.Intn(20)), src.Size()-off))
			want := src.truth(off, n, aligned)
			if got := mapped(t, l, off, n); !reflect.DeepEqual(got, want) {
				t.Fatalf("%d bytes at %d:\n got %+v\nwant %+v", n, off, got, want)
			}
		}
		if err := l.Map(context.Background(), src.Size()-1, 2, nil); !errors.Is(err, ErrRange) {
			t.Errorf("past the end: %v", err)
		}
	}
}

// truth is what Map should say, found block by block unless the runs are whole blocks.
func (s *sparse) truth(off, n int64, aligned bool) (all []Extent) {
	run, _ := NewRun(s.Size(), off, n, func(x Extent) bool { all = append(all, x); return true })
	at, done := int64(0), int64(0)
	for i, length := range s.runs {
		from, to := at, at+length
		if at += length; i%2 == 1 {
			if !aligned {
				if from = (from + 4095) &^ 4095; to < s.Size() {
					to &^= 4095
				}
			}
			if from < to {
				run.Add(Extent{Off: done, Len: from - done, Kind: Data, Pos: done})
				run.Add(Extent{Off: from, Len: to - from, Kind: Zero})
				done = to
			}
		}
	}
	run.Add(Extent{Off: done, Len: s.Size() - done, Kind: Data, Pos: done})
	run.Flush()
	return all
}

// What is asked does not grow with the disk, and an opening asks nothing.
func TestOnlyTheHolesThatARangeNeedsAreAskedFor(t *testing.T) {
	src := &sparse{runs: []int64{1 << 20, 1 << 50}}
	l := opened(t, src)
	if src.asked != 0 {
		t.Errorf("the opening asks %d times", src.asked)
	}
	mapped(t, l, 1<<40, 4096)
	if src.asked != 1 || src.bytes > holeWindow {
		t.Errorf("4 KiB made it ask %d times, of %d bytes", src.asked, src.bytes)
	}
}

func TestASourceThatCannotTellItsHolesFailsTheMap(t *testing.T) {
	broken := errors.New("broken")
	for _, src := range []*sparse{{runs: []int64{4096, 4096}, fail: broken}, {runs: []int64{4096, 4096}, shift: 1}} {
		err := opened(t, src).Map(context.Background(), 0, 1, func(Extent) bool { return true })
		if err == nil || src.fail != nil && !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
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
	l, err := NewFlat(src, Info{VirtualSize: 10000}, Options{})
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
	if _, err := NewFlat(src, Info{VirtualSize: src.Size() + 1}, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a disk longer than its file: %v", err)
	}
}
