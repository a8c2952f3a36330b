// Package retry repeats what a store that is far away could not do just now. Its
// Store and its Bytes are wrappers with the shape of what they wrap.
//
// A driver makes one attempt a call and says how it failed. What is repeated, how
// often, and with which pauses is decided here, for every kind of store. Only
// backends.ErrUnavailable is worth an attempt more: all else would fail again.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"glanced/backends/stored"
)

// Policy says how long an operation is tried.
type Policy struct {
	Attempt   time.Duration // the most one attempt may take; 0 = as long as the driver lets it
	Total     time.Duration // the most that all of them may, with the pauses between them
	Pause     time.Duration // before the second attempt; before each one after it, twice as long
	LongPause time.Duration // the longest pause
}

// Policies for a store in the same data centre. A server that starts anew is sat
// out, or a proxy that moves to another one; who reads a disk does not wait until
// its kernel gives the disk up. To put the parts of a large upload together takes
// a store minutes.
var (
	Reads   = Policy{Attempt: 10 * time.Second, Total: 25 * time.Second, Pause: 100 * time.Millisecond, LongPause: 5 * time.Second}
	Changes = Policy{Attempt: 5 * time.Minute, Total: 10 * time.Minute, Pause: 100 * time.Millisecond, LongPause: 10 * time.Second}
)

// Do calls try until it succeeds or fails for good, until the next attempt would
// begin after Total, or until ctx ends. An attempt that takes too long ends with an
// ErrUnavailable as its context's cause. It returns the last attempt's error. try is
// told how many attempts were made before it.
//
// A pause is between half of its length and all of it, by chance, so that those who
// failed together do not come back together. One that the store asks for (After) is
// kept at least.
func (p Policy) Do(ctx context.Context, try func(ctx context.Context, before int) error) error {
	end := time.Now().Add(p.Total)
	pause := p.Pause
	for before := 0; ; before++ {
		err := p.once(ctx, end, before, try)
		if err == nil || !errors.Is(err, stored.ErrUnavailable) || ctx.Err() != nil {
			return err
		}
		wait := pause/2 + rand.N(pause/2+1)
		if asked := (*asked)(nil); errors.As(err, &asked) {
			wait = max(wait, asked.pause)
		}
		if time.Until(end) <= wait {
			return tried(err, before+1)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("%w, while waiting to try again after: %v", context.Cause(ctx), err)
		}
		pause = min(2*pause, p.LongPause)
	}
}

// once makes one attempt.
func (p Policy) once(ctx context.Context, end time.Time, before int, try func(context.Context, int) error) error {
	if p.Attempt == 0 {
		return try(ctx, before)
	}
	most := min(p.Attempt, time.Until(end))
	slow := fmt.Errorf("%w: no answer within %v", stored.ErrUnavailable, most.Round(time.Millisecond))
	attempt, cancel := context.WithTimeoutCause(ctx, most, slow)
	defer cancel()
	err := try(attempt, before)
	// Libraries tell of the deadline with an error of their own.
	if err != nil && ctx.Err() == nil && context.Cause(attempt) == slow && !errors.Is(err, stored.ErrUnavailable) {
		return fmt.Errorf("%w (%v)", slow, err)
	}
	return err
}

func tried(err error, times int) error {
	if times == 1 {
		return err
	}
	return fmt.Errorf("%w (tried %d times)", err, times)
}

// After is err, with the pause for which a store asked before it is tried again
// (RFC 9110, section 10.2.3). Longer than Policy.Total, it ends the operation.
func After(err error, pause time.Duration) error {
	if err == nil || pause <= 0 {
		return err
	}
	return &asked{err, pause}
}

type asked struct {
	error
	pause time.Duration
}

func (a *asked) Unwrap() error { return a.error }
