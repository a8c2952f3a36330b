// Package flight has work done once, however many want its result at a time.
package flight

import (
	"context"
	"sync"
)

// Group is work under way, by what it is for. The zero value is ready. Safe for
// concurrent use.
type Group[K comparable, V any] struct {
	mu    sync.Mutex
	calls map[K]*call[V]
}

type call[V any] struct {
	ctx     context.Context // of all who wait together
	cancel  context.CancelCauseFunc
	waiting int // who wants the result, with who does the work; the group's lock
	done    chan struct{}
	v       V // set before done is closed, with err
	err     error
}

// Do is what work returns. Whoever comes first for a key does the work, on its
// own goroutine; who comes meanwhile waits for the same result, or for its own ctx.
// work's context has ctx's values and ends when all have left, so that who does the
// work outstays its own ctx while others wait. What was left by all, nobody joins.
func (g *Group[K, V]) Do(ctx context.Context, key K, work func(context.Context) (V, error)) (V, error) {
	var none V
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	g.mu.Lock()
	if c := g.calls[key]; c != nil {
		c.waiting++
		g.mu.Unlock()
		select {
		case <-c.done:
			return c.v, c.err
		case <-ctx.Done():
			g.leave(key, c, context.Cause(ctx))
			return none, context.Cause(ctx)
		}
	}
	c := &call[V]{waiting: 1, done: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if g.calls == nil {
		g.calls = map[K]*call[V]{}
	}
	g.calls[key] = c
	g.mu.Unlock()

	stop := context.AfterFunc(ctx, func() { g.leave(key, c, context.Cause(ctx)) })
	defer func() { // also where work panics, so that nobody waits for ever
		stop()
		c.cancel(nil)
		g.forget(key, c)
		close(c.done)
	}()
	c.err = context.Canceled
	c.v, c.err = work(c.ctx)
	return c.v, c.err
}

// Waiting is how many want the result of the work under way for key, with who does
// it.
func (g *Group[K, V]) Waiting(key K) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[key]; c != nil {
		return c.waiting
	}
	return 0
}

// End cancels the work under way for key, if there is any: it fails with cause for
// all who wait, if it heeds its context. Who comes from now on begins anew.
func (g *Group[K, V]) End(key K, cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c := g.calls[key]; c != nil {
		delete(g.calls, key)
		c.cancel(cause)
	}
}

// leave takes off one who waits; the last one ends the work.
func (g *Group[K, V]) leave(key K, c *call[V], cause error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.waiting--; c.waiting == 0 {
		if g.calls[key] == c {
			delete(g.calls, key)
		}
		c.cancel(cause)
	}
}

func (g *Group[K, V]) forget(key K, c *call[V]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.calls[key] == c {
		delete(g.calls, key)
	}
}
