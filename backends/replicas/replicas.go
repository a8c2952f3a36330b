// Package replicas reads bytes that lie at several locations, from one of them at a
// time: a wrapper with the shape of what it wraps. A read that fails because of
// where it reads goes on at the next location, in the middle of the bytes too.
//
// Vocabulary. Replica: the same bytes at one location, open or not. Connection: what
// was opened there. The replica in use: the one that last answered.
package replicas

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"glanced/backends/flight"
	"glanced/backends/stored"
)

// RetryAfter is how long a replica that failed is left alone, as long as another one
// answers.
const RetryAfter = 30 * time.Second

// Opener opens the bytes at one location. It is called again when what it opened
// turned out to have changed or gone.
type Opener func(ctx context.Context) (stored.Bytes, error)

// Open opens the first replica, in this order, that opens, and says why each failed
// where none does. failed is told of a replica (its index) that stops to answer, once
// until it answers again; it is called concurrently, and may be nil.
//
// What it returns reads from the first replica that answers. A read that fails with
// ErrUnavailable, ErrNotFound, ErrDenied or ErrChanged is made again at the next one, and the
// one that failed is tried again later, or when no other answers. Its size and its
// identity are those of the replica that was opened first; one of another size is
// ErrChanged. Its abilities are those of the replica in use.
func Open(ctx context.Context, replicas []Opener, failed func(i int, err error)) (stored.Bytes, error) {
	r := &reader{size: -1, inUse: -1, failed: failed, replicas: make([]replica, len(replicas)), dropped: map[*connection]struct{}{}}
	for i, open := range replicas {
		r.replicas[i].open = open
	}
	if err := r.try(ctx, func(*connection) error { return nil }); err != nil {
		return nil, err
	}
	return r, nil
}

// reader implements stored.Bytes.
type reader struct {
	failed  func(int, error)
	opening flight.Group[int, struct{}]

	mu       sync.Mutex
	size     int64 // of all replicas; -1 = none was open yet
	id       stored.Identity
	replicas []replica
	inUse    int                      // index of the replica; -1 = none
	dropped  map[*connection]struct{} // that no replica has any more, but somebody uses
	closed   bool
}

type replica struct {
	open  Opener
	conn  *connection // nil: not open
	retry time.Time   // when to try it again; zero: it answers, or was not tried yet
}

// connection is an open replica and its abilities; nil: it has not.
type connection struct {
	stored.Bytes
	files    stored.FileRanger
	whole    stored.WholeFiler
	holes    stored.Extenter
	ahead    stored.Prefetcher
	verifier stored.Verifier
	users    int // reads and holds; the reader's lock
}

func connect(b stored.Bytes) *connection {
	c := &connection{Bytes: b}
	c.files, _ = stored.As[stored.FileRanger](b)
	c.whole, _ = stored.As[stored.WholeFiler](b)
	c.holes, _ = stored.As[stored.Extenter](b)
	c.ahead, _ = stored.As[stored.Prefetcher](b)
	c.verifier, _ = stored.As[stored.Verifier](b)
	return c
}

var errClosed = errors.New("the bytes are closed")

// try has one replica after the other do something, until one can.
func (r *reader) try(ctx context.Context, do func(*connection) error) error {
	var errs []error
	tried := make([]bool, len(r.replicas))
	for {
		i := r.next(tried)
		if i < 0 {
			return errors.Join(errs...)
		}
		tried[i] = true
		c, err := r.acquire(ctx, i)
		moves := true // whatever it was that did not open
		if err == nil {
			err = do(c)
			moves = movesOn(err)
			r.release(c)
		}
		switch {
		case err == nil:
			r.answered(i)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !moves:
			return err
		}
		r.fails(i, c, err)
		errs = append(errs, err)
	}
}

// movesOn tells whether another replica may do better.
func movesOn(err error) bool {
	return errors.Is(err, stored.ErrUnavailable) || errors.Is(err, stored.ErrNotFound) || errors.Is(err, stored.ErrChanged) || errors.Is(err, stored.ErrDenied)
}

// next chooses the replica to try: the first that answers as far as is known, or is
// due to be tried again; else any that was not tried. -1 = none is left.
func (r *reader) next(tried []bool) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, last := time.Now(), -1
	for i := range r.replicas {
		x := &r.replicas[i]
		switch {
		case tried[i]:
		case x.retry.IsZero():
			return i
		case !now.Before(x.retry):
			x.retry = now.Add(RetryAfter) // one finds out, the others do not wait for it
			return i
		case last < 0:
			last = i
		}
	}
	return last
}

// acquire opens a replica, if it is not open, and adds a user to its connection.
func (r *reader) acquire(ctx context.Context, i int) (*connection, error) {
	for {
		r.mu.Lock()
		c, closed := r.replicas[i].conn, r.closed
		if c != nil {
			c.users++
		}
		r.mu.Unlock()
		if closed {
			return nil, errClosed
		}
		if c != nil {
			return c, nil
		}
		_, err := r.opening.Do(ctx, i, func(ctx context.Context) (struct{}, error) { return struct{}{}, r.connect(ctx, i) })
		if err != nil {
			return nil, err
		}
	}
}

// connect opens a replica.
func (r *reader) connect(ctx context.Context, i int) error {
	b, err := r.replicas[i].open(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	switch {
	case r.closed:
		err = errClosed
	case r.replicas[i].conn != nil:
		err = nil // by who came just before; b is one too many
	case r.size >= 0 && r.size != b.Size():
		err = fmt.Errorf("%w: %d bytes, elsewhere it is %d", stored.ErrChanged, b.Size(), r.size)
	default:
		if r.size < 0 {
			r.size, r.id = b.Size(), b.Identity()
		}
		r.replicas[i].conn = connect(b)
		b = nil
	}
	r.mu.Unlock()
	if b != nil {
		b.Close()
	}
	return err
}

// release takes a user away. One that was dropped is closed with its last user.
func (r *reader) release(c *connection) {
	r.mu.Lock()
	c.users--
	_, unused := r.dropped[c]
	unused = unused && c.users == 0
	if unused {
		delete(r.dropped, c)
	}
	r.mu.Unlock()
	if unused {
		c.Close()
	}
}

// answered notes that a replica did what was asked of it.
func (r *reader) answered(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inUse = i
	r.replicas[i].retry = time.Time{}
}

// fails notes that one did not; c is nil where it did not even open.
func (r *reader) fails(i int, c *connection, err error) {
	r.mu.Lock()
	x := &r.replicas[i]
	news := x.retry.IsZero()
	x.retry = time.Now().Add(RetryAfter)
	// One that cannot be reached may be again. One that has changed stays as it is.
	unused := false
	if c != nil && x.conn == c && !errors.Is(err, stored.ErrUnavailable) {
		x.conn = nil
		if unused = c.users == 0; !unused {
			r.dropped[c] = struct{}{}
		}
	}
	r.mu.Unlock()
	if unused {
		c.Close()
	}
	if news && r.failed != nil {
		r.failed(i, err)
	}
}

// ReadAt implements stored.Bytes.
func (r *reader) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := stored.Inside(r, off, int64(len(p))); err != nil {
		return err
	}
	return r.try(ctx, func(c *connection) error { return c.ReadAt(ctx, p, off) })
}

// Size implements stored.Bytes.
func (r *reader) Size() int64 { return r.size }

// Identity implements stored.Bytes.
func (r *reader) Identity() stored.Identity { return r.id }

// Close closes all that is open of all replicas, whoever still holds ranges of it.
func (r *reader) Close() error {
	r.mu.Lock()
	r.closed, r.inUse = true, -1
	var open []*connection
	for i := range r.replicas {
		if c := r.replicas[i].conn; c != nil {
			open = append(open, c)
			r.replicas[i].conn = nil
		}
	}
	for c := range r.dropped {
		open = append(open, c)
	}
	clear(r.dropped)
	r.mu.Unlock()
	var errs []error
	for _, c := range open {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}
