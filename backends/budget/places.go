package budget

import (
	"container/list"
	"context"
	"sync"
)

// Places are a fixed number of places, each for one piece of work, that many share by
// name, of a project, say. Nobody takes so many that none is left for who comes next: a
// name may have another place while more are free than it has, so that one alone has
// half of them. Of those who wait, the one whose name has the fewest places is first, and
// among equals who came first. Safe for concurrent use.
type Places struct {
	mu      sync.Mutex
	free    int
	held    map[string]int
	waiting list.List // of *placeWaiter
}

type placeWaiter struct {
	name string
	done chan struct{} // closed when it has its place
}

// NewPlaces makes n places, at least 1.
func NewPlaces(n int) *Places {
	return &Places{free: max(n, 1), held: map[string]int{}}
}

// Take waits for a place under name, or for ctx. release gives it back, and is called once.
func (p *Places) Take(ctx context.Context, name string) (release func(), err error) {
	release = func() { p.give(name) }
	p.mu.Lock()
	if p.may(name) {
		p.take(name)
		p.mu.Unlock()
		return release, nil
	}
	w := &placeWaiter{name, make(chan struct{})}
	at := p.waiting.PushBack(w)
	p.mu.Unlock()
	select {
	case <-w.done:
		return release, nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-w.done: // at the last moment
		return release, nil
	default:
		p.waiting.Remove(at)
		return nil, context.Cause(ctx)
	}
}

// may tells whether name may have another place now. p.mu is held.
func (p *Places) may(name string) bool {
	return p.free > p.held[name]
}

func (p *Places) take(name string) {
	p.free--
	p.held[name]++
}

func (p *Places) give(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free++
	if p.held[name]--; p.held[name] == 0 {
		delete(p.held, name)
	}
	for at := p.next(); at != nil; at = p.next() {
		w := p.waiting.Remove(at).(*placeWaiter)
		p.take(w.name)
		close(w.done)
	}
}

// next is the one of those who wait that gets the next place; nil: none may. p.mu is held.
func (p *Places) next() (next *list.Element) {
	for at := p.waiting.Front(); at != nil; at = at.Next() {
		name := at.Value.(*placeWaiter).name
		if p.may(name) && (next == nil || p.held[name] < p.held[next.Value.(*placeWaiter).name]) {
			next = at
		}
	}
	return next
}
