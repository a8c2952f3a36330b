// Package locks has locks by name, for drivers whose stores know no conditions.
package locks

import (
	"context"
	"sync"
)

// Named are locks by name: a driver has what its process does to one object happen one
// after the other, so that a look and the change that follows from it are one step. Other
// processes are kept out by conditions, as far as a server knows them. The zero value is
// ready. Safe for concurrent use.
type Named struct {
	mu   sync.Mutex
	held map[string]*turn
}

type turn struct {
	next chan struct{} // has one element while nobody has the lock
	want int           // who has it or waits for it
}

// Lock waits for the lock called name, or for the end of ctx.
func (l *Named) Lock(ctx context.Context, name string) (unlock func(), err error) {
	l.mu.Lock()
	t := l.held[name]
	if t == nil {
		if l.held == nil {
			l.held = map[string]*turn{}
		}
		t = &turn{next: make(chan struct{}, 1)}
		t.next <- struct{}{}
		l.held[name] = t
	}
	t.want++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.want--; t.want == 0 {
			delete(l.held, name)
		}
	}
	select {
	case <-t.next:
		return func() { t.next <- struct{}{}; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}
