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

// Patience is how long a replica is waited for. What is below may try for longer by
// itself (backends/retry).
type Patience struct {
	// First is the most that a replica may take to answer while another one is left to be
	// asked that has not failed lately; of replicas that have all failed lately, while any
	// other one is left. A replica that takes longer counts as failed.
	First time.Duration
	// All is how long after its beginning a read still asks those once more that took
	// longer than First, if all others have failed. They have as long as they take then.
	All time.Duration
}

// Usual is the patience where Options has none. A reader whose first location is away
// has its bytes from the second one long before its kernel gives the disk up. A reader
// whose locations are all away waits for one of them as backends/retry does, and for each
// of the others for First.
var Usual = Patience{First: 3 * time.Second, All: 25 * time.Second}

// Opener opens the bytes at one location. It is called again when what it opened
// turned out to have changed or gone.
type Opener func(ctx context.Context) (stored.Bytes, error)

// Options of one Open.
type Options struct {
	Patience Patience // of openings and reads; zero: Usual
	Places   []*Place // where each replica lies; nil: each at one of its own
	// Failed is told of a replica (its index) that stops to answer, once until it answers
	// again. It is called concurrently; nil: nobody is told.
	Failed func(i int, err error)
}

// Open opens the first replica, in this order, that opens, and says why each failed
// where none does.
//
// What it returns reads from the first replica that answers. A read that fails with
// ErrUnavailable, ErrNotFound, ErrDenied or ErrChanged, or takes too long, is made again
// at the next one, and the one that failed is tried again later, or when no other
// answers. Its size and its identity are those of the replica that was opened first; one
// of another size is ErrChanged. Its abilities are those of the replica in use.
func Open(ctx context.Context, replicas []Opener, o Options) (stored.Bytes, error) {
	if o.Patience == (Patience{}) {
		o.Patience = Usual
	}
	r := &reader{size: -1, inUse: -1, failed: o.Failed, replicas: make([]replica, len(replicas)), dropped: map[*connection]struct{}{}, patience: o.Patience,
		slow: fmt.Errorf("%w: no answer within %v, and there is another location to ask", stored.ErrUnavailable, o.Patience.First)}
	for i, open := range replicas {
		r.replicas[i] = replica{open: open, at: new(Place)}
		if o.Places != nil {
			r.replicas[i].at = o.Places[i]
		}
	}
	if err := r.try(ctx, func(context.Context, *connection) error { return nil }); err != nil {
		return nil, err
	}
	return r, nil
}

// reader implements stored.Bytes.
type reader struct {
	failed   func(int, error)
	patience Patience
	slow     error // of a replica that did not answer in time
	opening  flight.Group[int, struct{}]

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
	at    *Place
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

// asked is what came of asking a replica, in one try.
type asked int

const (
	not    asked = iota
	late         // no answer in time
	failed       // an error, or no answer though it was waited for
)

// try has one replica after the other do something, until one can.
func (r *reader) try(ctx context.Context, do func(context.Context, *connection) error) error {
	began := time.Now()
	var errs []error
	have := make([]asked, len(r.replicas))
	for {
		i, hurry := r.next(have, time.Since(began) >= r.patience.All)
		if i < 0 {
			return errors.Join(errs...)
		}
		c, err := r.ask(ctx, i, hurry, do)
		switch {
		case err == nil:
			r.answered(i)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case c != nil && !movesOn(err): // one that did not open moves on, whatever it was
			return err
		}
		if have[i] = failed; hurry && err == r.slow {
			have[i] = late
		}
		r.fails(i, c, err)
		errs = append(errs, err)
	}
}

// ask has one replica do something: within the patience for the first, and r.slow if it
// does not, if there is hurry. The connection is nil where it did not open.
func (r *reader) ask(ctx context.Context, i int, hurry bool, do func(context.Context, *connection) error) (*connection, error) {
	if hurry {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.patience.First, r.slow)
		defer cancel()
	}
	c, err := r.acquire(ctx, i)
	if err == nil {
		err = do(ctx, c)
		r.release(c)
	}
	if err != nil && context.Cause(ctx) == r.slow {
		err = r.slow // libraries tell of a deadline in words of their own
	}
	return c, err
}

// movesOn tells whether another replica may do better.
func movesOn(err error) bool {
	return errors.Is(err, stored.ErrUnavailable) || errors.Is(err, stored.ErrNotFound) || errors.Is(err, stored.ErrChanged) || errors.Is(err, stored.ErrDenied)
}

// next chooses the replica to ask: the first that answers as far as is known, or is
// due to be asked again; else any that was not; else, unless time is up, one that did
// not answer in time. -1 = none is left. There is hurry as long as another one is left
// that may do as well, and when time is up.
func (r *reader) next(have []asked, timeIsUp bool) (i int, hurry bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var good, others, again []int
	now := time.Now()
	for k := range r.replicas {
		x := &r.replicas[k]
		switch {
		case have[k] == late:
			again = append(again, k)
		case have[k] != not:
		case now.Before(x.retry), x.at.rests(now):
			others = append(others, k)
		default:
			good = append(good, k)
		}
	}
	for len(good) > 0 {
		i, good = good[0], good[1:]
		if r.replicas[i].due(now) {
			return i, timeIsUp || len(good) > 0
		}
		others = append(others, i)
	}
	switch {
	case len(others) > 0:
		return others[0], timeIsUp || len(others) > 1
	case len(again) > 0 && !timeIsUp:
		return again[0], false
	}
	return -1, false
}

// due tells whether it may be tried. If it failed before, one read finds out, and the
// others do not wait for it. The reader's lock is held.
func (x *replica) due(now time.Time) bool {
	if !x.at.due(now) {
		return false
	}
	if !x.retry.IsZero() {
		x.retry = now.Add(RetryAfter)
	}
	return true
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
	r.replicas[i].at.answered()
}

// fails notes that one did not; c is nil where it did not even open.
func (r *reader) fails(i int, c *connection, err error) {
	r.mu.Lock()
	x := &r.replicas[i]
	news, now := x.retry.IsZero(), time.Now()
	x.retry = now.Add(RetryAfter)
	if errors.Is(err, stored.ErrUnavailable) {
		x.at.fails(now)
	}
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
	return r.try(ctx, func(ctx context.Context, c *connection) error { return c.ReadAt(ctx, p, off) })
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
