package stored_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/backends/localfile"
	"glanced/backends/stored"
)

// plain has no abilities.
type plain struct{ stored.Bytes }

// retried is a wrapper that neither moves nor changes bytes.
type retried struct{ plain }

func (r retried) Unwrap() stored.Bytes { return r.plain.Bytes }

// noted takes note of what it is told to prefetch.
type noted struct {
	plain
	off, n int64
}

func (p *noted) Prefetch(off, n int64) { p.off, p.n = off, n }

// file holds 4 KiB of "a", a hole of 1 MiB, and 4 KiB of "b".
func file(t *testing.T, id stored.Identity) *localfile.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	for at, c := range map[int64]string{0: "a", 4<<10 + 1<<20: "b"} {
		if _, err := f.WriteAt([]byte(strings.Repeat(c, 4<<10)), at); err != nil {
			t.Fatal(err)
		}
	}
	b, err := localfile.New(f, id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func TestAbilitiesAreFoundThroughWrappers(t *testing.T) {
	f := file(t, "")
	if _, ok := stored.As[stored.FileRanger](retried{plain{f}}); !ok {
		t.Error("a wrapper hides the file")
	}
	if _, ok := stored.As[stored.WholeFiler](retried{plain{retried{plain{f}}}}); !ok {
		t.Error("two wrappers hide the file")
	}
	if _, ok := stored.As[stored.FileRanger](plain{f}); ok {
		t.Error("the file is found through what does not say that it wraps")
	}
	if _, ok := stored.As[stored.Prefetcher](f); ok {
		t.Error("a file can be prefetched")
	}
}

func TestASectionIsThoseBytesAndNoOthers(t *testing.T) {
	f := file(t, "whole")
	const off, n = 2 << 10, 1<<20 + 4<<10
	hints := &noted{plain: plain{f}}
	for name, b := range map[string]stored.Bytes{"with all abilities": f, "behind a wrapper": retried{plain{f}}, "with none": plain{f}, "with hints": hints} {
		t.Run(name, func(t *testing.T) {
			closed := false
			s := stored.Section(b, off, n, func() error { closed = true; return nil })
			if s.Size() != n {
				t.Errorf("size %d", s.Size())
			}
			p := make([]byte, n)
			if err := s.ReadAt(t.Context(), p, 0); err != nil || p[0] != 'a' || p[n-1] != 'b' || p[4<<10] != 0 {
				t.Errorf("read %q … %q: %v", p[0], p[n-1], err)
			}
			for _, r := range [][2]int64{{-1, 1}, {n, 1}, {n - 1, 2}} {
				if err := s.ReadAt(t.Context(), make([]byte, r[1]), r[0]); !errors.Is(err, stored.ErrRange) {
					t.Errorf("read %v: %v", r, err)
				}
				if _, ok := s.(stored.FileRanger).FileRange(r[0], r[1]); ok {
					t.Errorf("the file's range %v is given", r)
				}
				if err := s.(stored.Extenter).Extents(t.Context(), r[0], r[1], nil); !errors.Is(err, stored.ErrRange) {
					t.Errorf("extents of %v: %v", r, err)
				}
			}

			_, files := stored.As[stored.FileRanger](b)
			r, ok := s.(stored.FileRanger).FileRange(100, 50)
			if ok != files || ok && (r.Pos != off+100 || r.Len != 50) {
				t.Errorf("the file's range is %+v, %v", r, ok)
			}
			next, holes := int64(0), int64(0)
			err := s.(stored.Extenter).Extents(t.Context(), 0, n, func(at, n int64, hole bool) bool {
				if at != next {
					t.Errorf("a run at %d, where %d is next", at, next)
				}
				next = at + n
				if hole {
					holes += n
				}
				return true
			})
			if _, knows := stored.As[stored.Extenter](b); err != nil || next != n || holes != 1<<20 && knows || holes > 0 && !knows {
				t.Errorf("extents end at %d, with %d bytes of holes: %v", next, holes, err)
			}

			*hints = noted{plain: hints.plain}
			s.(stored.Prefetcher).Prefetch(n-1, 2)
			s.(stored.Prefetcher).Prefetch(10, 20)
			if b == stored.Bytes(hints) && (hints.off != off+10 || hints.n != 20) {
				t.Errorf("told to prefetch %d bytes at %d", hints.n, hints.off)
			}
			if s.Close(); !closed {
				t.Error("not closed")
			}
		})
	}
}

func TestIdentitiesAreOfStorePlaceAndVersion(t *testing.T) {
	seen := map[stored.Identity]string{}
	for name, id := range map[string]stored.Identity{
		"one":             stored.NewIdentity("s", "p", "v"),
		"another store":   stored.NewIdentity("s2", "p", "v"),
		"another place":   stored.NewIdentity("s", "p2", "v"),
		"another version": stored.NewIdentity("s", "p", "v2"),
		"shifted":         stored.NewIdentity("sp", "", "v"),
		"a section":       stored.NewIdentity("s", "p", "v").Section(0, 10),
		"a longer one":    stored.NewIdentity("s", "p", "v").Section(0, 11),
		"one within":      stored.NewIdentity("s", "p", "v").Section(0, 10).Section(0, 10),
	} {
		if other, ok := seen[id]; ok || id == "" {
			t.Errorf("%s is %q, as %s", name, id, other)
		}
		seen[id] = name
	}
	if id := stored.NewIdentity("s", "p", ""); id != "" || id.Section(0, 1) != "" {
		t.Error("what has no version has an identity")
	}
	same := map[stored.Identity]bool{}
	for range 2 {
		same[stored.NewIdentity("s", "p", "v")] = true
	}
	if len(same) != 1 {
		t.Error("the same is told apart")
	}
}

func TestARangeKnowsWhetherItIsCached(t *testing.T) {
	f := file(t, "")
	r, _ := f.FileRange(0, f.Size())
	p := make([]byte, 8<<10)
	if err := f.ReadAt(context.Background(), p, 0); err != nil { // now it is
		t.Fatal(err)
	}
	q := make([]byte, 8<<10)
	if !r.ReadCached(q) || string(p) != string(q) {
		t.Error("what was just read is not in the page cache")
	}
	if !r.Part(0, 4<<10).Cached() {
		t.Error("its part is not")
	}
	if r.Part(f.Size()-1, 2).ReadCached(make([]byte, 2)) {
		t.Error("a range past the end was read")
	}
}
