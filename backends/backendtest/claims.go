package backendtest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"unicode/utf8"

	"glanced/backends"
)

// stages are how far an upload of "k" gets before it is abandoned.
var stages = []struct {
	name string
	run  func(t testing.TB, w backends.Writer)
}{
	{"begun", func(testing.TB, backends.Writer) {}},
	{"written in part", func(t testing.TB, w backends.Writer) { write(t, w, Noise(30, 3<<20)) }},
	{"committed", func(t testing.TB, w backends.Writer) { write(t, w, Noise(30, 3<<20)); commit(t, w) }},
}

func abandon(t testing.TB, s backends.Store, c backends.Claim) {
	t.Helper()
	if err := s.Abandon(context.WithoutCancel(t.Context()), c); err != nil {
		t.Errorf("abandon %s: %v", c, err)
	}
}

func testAbandon(t *testing.T, suite Suite, s backends.Store) {
	again := suite.Again(t, s)
	defer again.Close()
	for _, stage := range stages {
		for _, by := range []struct {
			name string
			run  func(backends.Writer)
		}{
			{"by its writer", func(w backends.Writer) { abort(t, w); abort(t, w) }},
			{"by its store", func(w backends.Writer) { abandon(t, s, w.Claim()) }},
			{"by another store on the same place", func(w backends.Writer) { abandon(t, again, w.Claim()) }},
			{"twice", func(w backends.Writer) { abandon(t, s, w.Claim()); abandon(t, again, w.Claim()) }},
		} {
			w := begin(t, s, "k", -1)
			claim := w.Claim()
			stage.run(t, w)
			if w.Claim() != claim {
				t.Errorf("%s: the claim was %s, now it is %s", stage.name, claim, w.Claim())
			}
			by.run(w)
			if stage.name == "committed" {
				suite.wantEmpty(t, s, stage.name+", abandoned "+by.name)
			}
			abort(t, w)
			suite.wantEmpty(t, s, stage.name+", abandoned "+by.name+" and aborted")
			if _, err := w.Write([]byte("x")); err == nil {
				t.Errorf("%s: written to after the abort", stage.name)
			}
			if loc, err := w.Commit(t.Context()); err == nil {
				t.Errorf("%s: committed to %+v after the abort", stage.name, loc)
			}
			// The key is free again, and a store that opens now finds nothing wrong.
			loc := put(t, s, "k", []byte("x"))
			wantStored(t, s, loc, []byte("x"))
			remove(t, s, loc)
		}
	}
	// What was deleted as an object is nothing to abandon.
	w := begin(t, s, "k", -1)
	loc := commit(t, w)
	remove(t, s, loc)
	abandon(t, s, w.Claim())
	abort(t, w)
}

func testAbandonSuccessor(t *testing.T, suite Suite, s backends.Store) {
	again := suite.Again(t, s)
	defer again.Close()
	content := Noise(31, 100_000)
	for _, stage := range stages {
		for range 20 { // some stores use what was freed at once again
			first := begin(t, s, "k", -1)
			stage.run(t, first)
			if stage.name == "committed" {
				remove(t, s, commit(t, first))
			} else {
				abort(t, first)
			}
			second := begin(t, s, "k", int64(len(content)))
			abandon(t, s, first.Claim())
			write(t, second, content)
			abandon(t, again, first.Claim())
			loc := commit(t, second)
			abandon(t, s, first.Claim())
			abandon(t, again, first.Claim())
			abort(t, first)
			wantStored(t, s, loc, content)
			abort(t, second)
			suite.wantEmpty(t, s, "after the successor was aborted too")
		}
	}
}

// testAbortRival has two uploads of one key under way at once.
func testAbortRival(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(32, 100_000)
	slow, fast := begin(t, s, "k", -1), begin(t, s, "k", -1)
	write(t, slow, content[:70_000])
	write(t, fast, content)
	loc := commit(t, fast)
	_, err := slow.Commit(t.Context())
	wantErr(t, err, backends.ErrExists)
	abort(t, slow)
	wantStored(t, s, loc, content)
	remove(t, s, loc)
}

// testAbandonRace has an object deleted and its upload abandoned, by several at once,
// while the next upload of its key waits to be let in.
func testAbandonRace(t *testing.T, suite Suite, s backends.Store) {
	again := suite.Again(t, s)
	defer again.Close()
	ctx := context.WithoutCancel(t.Context())
	for i := range 30 {
		first := begin(t, s, "k", -1)
		write(t, first, Noise(33, 10))
		loc := commit(t, first)
		var all sync.WaitGroup
		for _, remove := range []func() error{
			func() error { return s.Abandon(ctx, first.Claim()) },
			func() error { return again.Abandon(ctx, first.Claim()) },
			func() error { return first.Abort(ctx) },
			func() error {
				err := again.Delete(ctx, loc)
				if errors.Is(err, backends.ErrNotFound) || errors.Is(err, backends.ErrChanged) {
					return nil // another was faster
				}
				return err
			},
		} {
			all.Go(func() {
				if err := remove(); err != nil {
					t.Errorf("remove: %v", err)
				}
			})
		}
		content := Noise(byte(34+i), 100)
		var second backends.Location
		for {
			var err error
			if second, err = Put(ctx, s, "k", bytes.NewReader(content), -1); err == nil {
				break
			}
			if !errors.Is(err, backends.ErrExists) {
				t.Fatal(err)
			}
		}
		all.Wait()
		wantStored(t, s, second, content)
		remove(t, s, second)
	}
}

func testClaimsDiffer(t *testing.T, _ Suite, s backends.Store) {
	seen := map[backends.Claim]bool{}
	for i := range 20 {
		w := begin(t, s, "k with space%41ả", -1)
		c := w.Claim()
		if seen[c] || c == "" || len(c) > 4<<10 || !utf8.ValidString(string(c)) {
			t.Errorf("claim %q is not new, or not short text", c)
		}
		seen[c] = true
		if i%2 == 0 {
			loc := commit(t, w)
			remove(t, s, loc)
		} else {
			abort(t, w)
		}
	}
}

func testForeignClaims(t *testing.T, _ Suite, s backends.Store) {
	loc := put(t, s, "k", []byte("x"))
	defer remove(t, s, loc)
	for _, c := range []backends.Claim{"", "k", "\x00", "../k", "unknown:k", "1:", "1:key=k", "{}", "1:%zz"} {
		wantErr(t, s.Abandon(t.Context(), c), backends.ErrBadLocation)
	}
	wantStored(t, s, loc, []byte("x"))
}
