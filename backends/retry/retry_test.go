package retry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/retry"
	"glanced/backends/stored"
)

// policy is easy to reckon with.
var policy = retry.Policy{Attempt: 4 * time.Second, Total: 30 * time.Second, Pause: 2 * time.Second, LongPause: 8 * time.Second}

var errDown = fmt.Errorf("%w: connection refused", stored.ErrUnavailable)

func TestWhatFailsForAMomentIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var tries []time.Duration
		err := policy.Do(t.Context(), func(_ context.Context, before int) error {
			if before != len(tries) {
				t.Errorf("attempt %d was told of %d before it", len(tries), before)
			}
			if tries = append(tries, time.Since(began)); len(tries) < 5 {
				return errDown
			}
			return nil
		})
		if err != nil || len(tries) != 5 {
			t.Fatalf("%v after %d attempts", err, len(tries))
		}
		for i, longest := range []time.Duration{2, 4, 8, 8} {
			longest *= time.Second
			if pause := tries[i+1] - tries[i]; pause < longest/2 || pause > longest {
				t.Errorf("pause %d took %v, want between half of %v and all", i, pause, longest)
			}
		}
	})
}

func TestPausesDifferByChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 20 {
			began := time.Now()
			policy.Do(t.Context(), func(_ context.Context, before int) error {
				if before == 0 {
					return errDown
				}
				return nil
			})
			seen[time.Since(began)] = true
		}
		if len(seen) < 15 {
			t.Errorf("20 clients that failed together came back at %d moments", len(seen))
		}
	})
}

func TestItGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		err := policy.Do(t.Context(), func(context.Context, int) error { return errDown })
		if took := time.Since(began); took > policy.Total || took < policy.Total-policy.LongPause {
			t.Errorf("gave up after %v", took)
		}
		if !errors.Is(err, stored.ErrUnavailable) || !strings.Contains(err.Error(), "connection refused (tried ") {
			t.Errorf("it says %v", err)
		}
	})
}

func TestWhatWouldFailAgainIsNotTriedAgain(t *testing.T) {
	for _, want := range []error{stored.ErrNotFound, stored.ErrChanged, backends.ErrExists, errors.New("no idea")} {
		n := 0
		if err := policy.Do(t.Context(), func(context.Context, int) error { n++; return want }); err != want || n != 1 {
			t.Errorf("%v after %d attempts at %v", err, n, want)
		}
	}
}

func TestAnAttemptThatHangsIsEnded(t *testing.T) {
	errLibrary := errors.New("operation timed out")
	for name, fails := range map[string]func(context.Context) error{
		"with the cause":      context.Cause,
		"with its own":        func(context.Context) error { return errLibrary },
		"as the context says": context.Context.Err,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, n := time.Now(), 0
				err := policy.Do(t.Context(), func(ctx context.Context, before int) error {
					n++
					<-ctx.Done()
					return fails(ctx)
				})
				if took := time.Since(began); took > policy.Total {
					t.Errorf("it took %v", took)
				}
				if n < 3 || !errors.Is(err, stored.ErrUnavailable) || !strings.Contains(err.Error(), "no answer within") {
					t.Errorf("%d attempts, then %v", n, err)
				}
			})
		})
	}
}

func TestAnAttemptMayTakeAsLongAsItsDriverLetsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		unbound := policy
		unbound.Attempt = 0
		err := unbound.Do(t.Context(), func(ctx context.Context, _ int) error {
			select {
			case <-time.After(time.Hour):
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestTheCallersEndIsTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := errors.New("the client is gone")
		for _, at := range []time.Duration{500 * time.Millisecond, 5 * time.Second} { // in a pause, in an attempt
			ctx, leave := context.WithCancelCause(t.Context())
			time.AfterFunc(at, func() { leave(left) })
			began := time.Now()
			err := policy.Do(ctx, func(ctx context.Context, before int) error {
				if before == 0 {
					return errDown
				}
				<-ctx.Done()
				return context.Cause(ctx)
			})
			if took := time.Since(began); took != at || !errors.Is(err, left) {
				t.Errorf("gone after %v: %v after %v", at, err, took)
			}
		}
	})
}

func TestThePauseThatAStoreAsksForIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			asked time.Duration
			tries int
		}{{10 * time.Second, 2}, {31 * time.Second, 1}} {
			began, n := time.Now(), 0
			err := policy.Do(t.Context(), func(context.Context, int) error {
				if n++; n == 1 {
					return fmt.Errorf("GET: %w", retry.After(errDown, c.asked))
				}
				return nil
			})
			if n != c.tries {
				t.Errorf("asked for %v: %d attempts, %v", c.asked, n, err)
			}
			if took := time.Since(began); n == 2 && took != c.asked {
				t.Errorf("asked for %v, came back after %v", c.asked, took)
			}
			if n == 1 && !errors.Is(err, stored.ErrUnavailable) {
				t.Errorf("asked for too long: %v", err)
			}
		}
	})
	if err := retry.After(nil, time.Second); err != nil {
		t.Errorf("no error became %v", err)
	}
}

// flaky fails every other call before it does its work, and loses every third
// answer, but none to a deletion, which would be an ErrNotFound.
func flaky(f *backendtest.Far) backends.Store {
	var calls, answers atomic.Int32
	f.Fail = func(op backendtest.Op) error {
		if repeatable(op) && calls.Add(1)%2 == 1 {
			return errDown
		}
		return nil
	}
	f.Lose = func(op backendtest.Op) error {
		if repeatable(op) && op != backendtest.OpDelete && answers.Add(1)%3 == 1 {
			return errDown
		}
		return nil
	}
	quick := retry.Policy{Attempt: time.Minute, Total: time.Minute, Pause: time.Microsecond, LongPause: time.Microsecond}
	return wrapped{retry.Store(f, quick, quick), f}
}

func repeatable(op backendtest.Op) bool {
	return op != backendtest.OpBegin && op != backendtest.OpWrite
}

type wrapped struct {
	backends.Store
	far *backendtest.Far
}

func TestAFlakyStoreKeepsTheContract(t *testing.T) {
	far := func(s backends.Store) *backendtest.Far { return s.(wrapped).far }
	backendtest.Suite{
		Big:   2 << 20,
		New:   func(testing.TB) backends.Store { return flaky(backendtest.NewFar("far")) },
		Again: func(_ testing.TB, s backends.Store) backends.Store { return flaky(far(s).Again()) },
		List:  func(_ testing.TB, s backends.Store) []string { return far(s).List() },
		Replace: func(_ testing.TB, s backends.Store, loc backends.Location, content []byte) {
			far(s).Replace(loc.URL[strings.LastIndex(loc.URL, "/")+1:], content)
		},
	}.Run(t)
}
