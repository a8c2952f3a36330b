//go:build ceph

package rbd

import (
	"context"
	"fmt"
)

// calls has a place for each call of the libraries that may be under way.
type calls chan struct{}

// user has a use of what a call needs, a session or a handle, and ends it with leave.
type user interface{ leave() }

// enter waits for a place.
func (c calls) enter(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case c <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w, while all calls of the store waited for the cluster", context.Cause(ctx))
	}
}

// do makes a call as soon as there is a place for it, and waits for it, or for the end of
// ctx. A call whose caller is gone keeps its place until it returns; what it returned is
// given to undo then, where that is not nil. u is left when the call has returned, or will
// not be made.
func do[T any](ctx context.Context, places calls, u user, call func() (T, error), undo func(T)) (T, error) {
	if err := places.enter(ctx); err != nil {
		u.leave()
		var none T
		return none, err
	}
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome) // without room, so that exactly one side has the outcome
	go func() {
		v, err := call()
		u.leave()
		<-places
		select {
		case done <- outcome{v, err}:
		case <-ctx.Done():
			if err == nil && undo != nil {
				undo(v)
			}
		}
	}()
	select {
	case o := <-done:
		return o.v, o.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// locked is a user that holds a lock too.
type locked struct {
	user
	unlock func()
}

func (l locked) leave() {
	l.user.leave()
	l.unlock()
}

// change makes a call that changes an object, by a session of its own use, under the lock
// on the object's name: it is held until the call has returned, whoever waits for it.
func change[T any](ctx context.Context, s *Store, name string, call func(*session) (T, error)) (v T, err error) {
	unlock, err := changing.Lock(ctx, s.cfg.Pool+"/"+name)
	if err != nil {
		return v, err
	}
	ses, err := s.session(ctx)
	if err != nil {
		unlock()
		return v, err
	}
	return do(ctx, s.writes, locked{ses, unlock}, func() (T, error) {
		v, err := call(ses)
		return v, s.heed(ses, err)
	}, nil)
}
