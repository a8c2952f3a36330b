package budget_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"glanced/backends/budget"
)

// takeAll takes places under name until it would have to wait.
func takeAll(t *testing.T, p *budget.Places, name string) (release []func()) {
	t.Helper()
	now, cancel := context.WithCancel(t.Context())
	cancel()
	for {
		r, err := p.Take(now, name)
		if err != nil {
			return release
		}
		release = append(release, r)
	}
}

func TestAPlaceIsLeftForTheNext(t *testing.T) {
	p := budget.NewPlaces(10)
	first := takeAll(t, p, "greedy")
	if len(first) != 5 {
		t.Errorf("one alone got %d of 10 places", len(first))
	}
	for _, name := range []string{"b", "c"} {
		if got := takeAll(t, p, name); len(got) == 0 {
			t.Errorf("%s got none", name)
		}
	}
	first[0]()
	if got := takeAll(t, p, "greedy"); len(got) != 0 {
		t.Errorf("with four places of its own, and few free ones, greedy got %d more", len(got))
	}
	if got := takeAll(t, budget.NewPlaces(2), "a"); len(got) != 1 {
		t.Errorf("one alone got %d of 2 places", len(got))
	}
	if got := takeAll(t, budget.NewPlaces(1), "a"); len(got) != 1 {
		t.Errorf("one alone got %d of 1", len(got))
	}
}

func TestWhoHasFewestPlacesIsNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := budget.NewPlaces(4)
		greedy, other := takeAll(t, p, "greedy"), takeAll(t, p, "other")
		takeAll(t, p, "third")
		order := make(chan string, 3)
		for _, name := range []string{"greedy", "other", "fourth"} {
			go func() {
				if _, err := p.Take(t.Context(), name); err != nil {
					t.Error(err)
				}
				order <- name
			}()
			synctest.Wait()
		}
		greedy[0]()
		synctest.Wait()
		if len(order) != 1 || <-order != "fourth" {
			t.Error("who has no place is not the first to get one")
		}
		other[0]()
		if got := <-order; got != "other" {
			t.Errorf("%s is next", got)
		}
		greedy[1]()
		if got := <-order; got != "greedy" {
			t.Errorf("%s is last", got)
		}
	})
}

func TestAPlaceIsNotLostWhenWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := budget.NewPlaces(1)
		for range 50 {
			release, err := p.Take(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			gone := errors.New("gone")
			done := make(chan struct{})
			go func() {
				r, err := p.Take(ctx, "b")
				if err == nil {
					r()
				} else if !errors.Is(err, gone) {
					t.Error(err)
				}
				close(done)
			}()
			synctest.Wait()
			go cancel(gone)
			go release()
			<-done
			synctest.Wait()
			if got := takeAll(t, p, "c"); len(got) != 1 {
				t.Fatal("the place is gone")
			} else {
				got[0]()
			}
		}
	})
}

func TestWhatIsTakenUnderANameCountsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(1000)
		a := b.Accounts()
		first, err := a.Take(t.Context(), "greedy", 100, 1000)
		if err != nil || first.Bytes() != 200 {
			t.Fatalf("%d, %v", first.Bytes(), err)
		}
		soon, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Take(soon, "greedy", 100, 1000); err == nil {
			t.Error("under the same name there is as much again")
		}
		other, err := a.Take(soon, "other", 100, 1000)
		if err != nil {
			t.Fatalf("another name gets nothing: %v", err)
		}
		first.Keep(10)
		if again, err := a.Take(soon, "greedy", 100, 100); err != nil {
			t.Errorf("what was given back is not to be had: %v", err)
		} else {
			again.Release()
		}
		first.Release()
		other.Release()
		if b.Free() != 1000 {
			t.Errorf("%d of 1000 bytes are free in the end", b.Free())
		}
	})
}
