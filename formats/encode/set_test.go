package encode

import (
	"errors"
	"math/rand/v2"
	"testing"

	"glanced/formats"
)

// Ranks and runs are those of a plain list of the members, in sets of any pattern:
// single numbers, runs within a page, runs over page ends, full pages, gaps.
func TestSetIsWhatWasAdded(t *testing.T) {
	for seed := range uint64(40) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var b setBuilder
		in := make([]bool, 14*pageLen)
		for at := int64(0); ; {
			from := at + rnd.Int64N(int64(1)<<rnd.IntN(14))
			to := from + 1 + rnd.Int64N(int64(1)<<rnd.IntN(14))
			if rnd.IntN(3) == 0 {
				from, to = ceil(from, pageLen)*pageLen, ceil(to, pageLen)*pageLen
			}
			if to > int64(len(in)) {
				break
			}
			if err := b.add(from, to); err != nil {
				t.Fatal(err)
			}
			for i := from; i < to; i++ {
				in[i] = true
			}
			at = to
			if rnd.IntN(3) == 0 && to > from { // the next may begin with the last number again
				at--
			}
		}
		s, err := b.done()
		if err != nil {
			t.Fatal(err)
		}
		checkSet(t, &s, in)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// checkSet compares s with in, which says of each number whether it is a member.
func checkSet(t *testing.T, s *set, in []bool) {
	t.Helper()
	// How many members follow each other from each number on.
	follow := make([]int64, len(in)+1)
	for i := len(in) - 1; i >= 0; i-- {
		if in[i] {
			follow[i] = follow[i+1] + 1
		}
	}
	rank := int64(0)
	for i, member := range in {
		if got := s.rank(int64(i)); got != rank {
			t.Errorf("rank(%d) = %d, want %d", i, got, rank)
			return
		}
		if !member {
			continue
		}
		for _, limit := range []int64{1, 100, int64(len(in))} {
			if first, n := s.run(rank, limit); first != int64(i) || n != min(follow[i], limit) {
				t.Errorf("run(%d, %d) = %d, %d; want %d, %d", rank, limit, first, n, i, min(follow[i], limit))
				return
			}
		}
		rank++
	}
	if s.len != rank || s.rank(int64(len(in))) != rank || s.rank(1<<40) != rank {
		t.Errorf("%d members, and %d below the end, want %d", s.len, s.rank(int64(len(in))), rank)
	}
}

func TestSetRefusesTooManyPages(t *testing.T) {
	var b setBuilder
	for i := range int64(maxMixed) {
		if err := b.add(2*i*pageLen, 2*i*pageLen+1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.done(); err != nil {
		t.Fatal(err)
	}
	if err := b.add(1<<40, 1<<40+1); err != nil {
		t.Fatal(err)
	}
	if _, err := b.done(); !errors.Is(err, formats.ErrLimit) {
		t.Errorf("%d pages that are not full: %v, want ErrLimit", maxMixed+1, err)
	}
}
