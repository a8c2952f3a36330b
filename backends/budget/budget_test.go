package budget_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

	"glanced/backends/budget"
)

const kib = 1 << 10

// fill has a share take pieces of n bytes until it gets no more.
func fill(s *budget.Share, n int64) (held int64) {
	for {
		got := s.TryTake(n, n)
		if got == 0 {
			return held
		}
		held += got
	}
}

func TestSomethingIsAlwaysLeftForTheNext(t *testing.T) {
	b := budget.New(10 * 1024 * kib)
	for i := range 12 {
		held := fill(b.Share(), 4*kib)
		if i == 0 && (held < b.Size()/6 || held > b.Size()/5) {
			t.Errorf("one alone got %d of %d bytes", held, b.Size())
		}
		if held == 0 {
			t.Fatalf("number %d got nothing; %d bytes are free", i, b.Free())
		}
	}
	if small := b.Share().TryTake(64*kib, 64*kib); small < 64*kib {
		t.Errorf("beside twelve greedy ones a small request gets %d bytes; %d are free", small, b.Free())
	}
}

func TestASmallRequestDoesNotWaitBehindALargeOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(1000 * kib)
		greedy := b.Share()
		held := fill(greedy, 10*kib)
		large := make(chan int64)
		go func() {
			n, err := greedy.Take(t.Context(), 500*kib, 500*kib)
			if err != nil {
				t.Error(err)
			}
			large <- n
		}()
		synctest.Wait()
		small := b.Share()
		if n, err := small.Take(t.Context(), 50*kib, 50*kib); n != 50*kib || err != nil {
			t.Errorf("the small one: %d, %v", n, err)
		}
		small.Give(50 * kib)
		greedy.Give(held) // what it holds nothing of, it may have whole
		if n := <-large; n != 500*kib {
			t.Errorf("the large one: %d", n)
		}
		greedy.Give(500 * kib)
		if b.Free() != b.Size() {
			t.Errorf("%d of %d bytes are free in the end", b.Free(), b.Size())
		}
	})
}

func TestWhoHoldsNothingGetsTheLeastItNeeds(t *testing.T) {
	b := budget.New(100)
	if n := b.Share().TryTake(90, 90); n != 90 {
		t.Errorf("of 100 free bytes, 90 are %d", n)
	}
	if n := b.Share().TryTake(5, 50); n != 5 {
		t.Errorf("of 10 free bytes, at least 5 are %d", n)
	}
	if n := b.Share().TryTake(6, 6); n != 0 {
		t.Errorf("of 5 free bytes, 6 are %d", n)
	}
}

func TestWhatIsLargerThanTheBudgetRunsAlone(t *testing.T) {
	b := budget.New(100)
	s := b.Share()
	if n, err := s.Take(t.Context(), 1000, 5000); n != 100 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	if n := b.Share().TryTake(1, 1); n != 0 {
		t.Errorf("beside it another got %d", n)
	}
	s.Give(100)
}

func TestWaitingEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(100)
		s := b.Share()
		s.TryTake(100, 100)
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		failed := make(chan error)
		go func() {
			_, err := b.Share().Take(ctx, 10, 10)
			failed <- err
		}()
		synctest.Wait()
		cancel(gone)
		if err := <-failed; !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		s.Give(100)
		if b.Free() != 100 {
			t.Errorf("%d bytes are free", b.Free())
		}
	})
}

func TestManyAtOnceNeverHoldMoreThanThereIs(t *testing.T) {
	b := budget.New(1 << 20)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			s := b.Share()
			for range 2000 {
				most := r.Int64N(2 << 20)
				n, err := s.Take(t.Context(), r.Int64N(most+1)/(1+r.Int64N(100)), most)
				if err != nil || n > 1<<20 {
					t.Errorf("took %d: %v", n, err)
					return
				}
				first := n / 3
				s.Give(first)
				s.Give(n - first)
			}
		})
	}
	wg.Wait()
	if b.Free() != b.Size() {
		t.Errorf("%d of %d bytes are free in the end", b.Free(), b.Size())
	}
}

// What is given back goes to the first who fits, not to the first.
func TestWhoWaitsForLittleIsServedBeforeWhoWaitsForMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(100)
		all := b.Share()
		all.TryTake(100, 100)
		served := make(chan int64, 2)
		for _, n := range []int64{80, 10} {
			go func() {
				s := b.Share()
				got, err := s.Take(t.Context(), n, n)
				if err != nil {
					t.Error(err)
				}
				served <- got
				s.Give(got)
			}()
			synctest.Wait()
		}
		all.Give(20)
		synctest.Wait()
		if len(served) != 1 || <-served != 10 {
			t.Error("of 20 bytes given back, who waits for 10 gets none")
		}
		all.Give(80)
		if got := <-served; got != 80 {
			t.Errorf("got %d", got)
		}
	})
}

// Whoever stops waiting at the moment when it is served has its bytes, or the budget has.
func TestNothingIsLostWhenWaitingEndsAtTheLastMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget.New(100)
		for range 50 {
			all, late := b.Share(), b.Share()
			all.TryTake(100, 100)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				if got, err := late.Take(ctx, 10, 10); err == nil {
					late.Give(got)
				}
				close(done)
			}()
			synctest.Wait()
			cancel()
			all.Give(100)
			<-done
			if b.Free() != 100 {
				t.Fatalf("%d of 100 bytes are free", b.Free())
			}
		}
	})
}

func TestMoreThanWasTakenIsNotTakenBack(t *testing.T) {
	b := budget.New(100)
	s, other := b.Share(), b.Share()
	other.TryTake(50, 50)
	s.TryTake(10, 10)
	defer func() {
		if recover() == nil {
			t.Error("a share gave back what another one holds")
		}
		if s.Held() != 10 || other.Held() != 50 {
			t.Errorf("they hold %d and %d", s.Held(), other.Held())
		}
	}()
	s.Give(11)
}
