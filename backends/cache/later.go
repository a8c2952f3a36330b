package cache

import (
	"context"
	"fmt"
	"sync"

	"glanced/backends"
	"glanced/backends/stored"
)

// later is an object of which something is cached, and which the store is asked for
// when something else is wanted: what is here is of the recorded version, whatever has
// become of the object since. So what is cached is read while its store is away, too.
type later struct {
	id   stored.Identity
	size int64
	open func(context.Context) (stored.Bytes, error)

	mu     sync.Mutex
	opened stored.Bytes // nil: not yet
	closed bool
}

// cachedAt is the object at loc, if something of it is cached, to be opened when the
// store is needed; nil elsewhere.
func (s *store) cachedAt(loc backends.Location) stored.Bytes {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	o := s.c.places[Place(loc)]
	if o == nil || len(o.chunks) == 0 || loc.Size != o.size {
		return nil
	}
	return &later{id: o.id, size: o.size, open: func(ctx context.Context) (stored.Bytes, error) {
		b, err := s.Store.Open(ctx, loc)
		s.c.heed(loc, err)
		return b, err
	}}
}

// Size implements stored.Bytes.
func (l *later) Size() int64 { return l.size }

// Identity implements stored.Bytes.
func (l *later) Identity() stored.Identity { return l.id }

// ReadAt implements stored.Bytes. Those who come while the object is opened ask for it
// too, as each has a deadline of its own; the first one's is kept.
func (l *later) ReadAt(ctx context.Context, p []byte, off int64) error {
	l.mu.Lock()
	b, closed := l.opened, l.closed
	l.mu.Unlock()
	if closed {
		return errClosed
	}
	if b == nil {
		var err error
		if b, err = l.ask(ctx); err != nil {
			return err
		}
	}
	return b.ReadAt(ctx, p, off)
}

func (l *later) ask(ctx context.Context) (stored.Bytes, error) {
	b, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	if b.Identity() != l.id || b.Size() != l.size {
		b.Close()
		return nil, fmt.Errorf("%w: the store opened another object than the one that is cached", stored.ErrChanged)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		b.Close()
		return nil, errClosed
	case l.opened != nil: // by another
		b.Close()
	default:
		l.opened = b
	}
	return l.opened, nil
}

// Close implements stored.Bytes.
func (l *later) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if l.opened == nil {
		return nil
	}
	return l.opened.Close()
}
