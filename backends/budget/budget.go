// Package budget shares a bounded number of bytes among many who take and give
// back: connections, sources, kernels' requests. Nobody's share can starve
// another's.
//
// What one may hold depends on what is left: at most a part of it, a quarter where
// nothing else is said (dynamic thresholds, Choudhury and Hahne, "Dynamic Queue Length Thresholds for
// Shared-Memory Packet Switches", IEEE/ACM ToN 1998). With a quarter, one alone gets a fifth of
// the budget, the next a fifth of the rest, and something is left for who comes
// after them. Those who wait are served in their order, but no further than they
// fit: a small request does not wait behind a large one.
package budget

import (
	"container/list"
	"context"
	"sync"
)

// defaultPart is what a share may hold at most: what is left free, divided by it.
const defaultPart = 4

// Budget is bytes to be shared. Safe for concurrent use.
type Budget struct {
	size int64
	part int64 // a share holds at most what is left free, divided by it

	mu      sync.Mutex
	free    int64
	waiting list.List // of *waiter
}

// New makes a budget of size bytes, at least 1.
func New(size int64) *Budget { return NewOf(size, defaultPart) }

// NewOf makes a budget of size bytes, at least 1, of which a share may hold at most
// what is left free, divided by part, at least 1. 1 is for few who need much: one alone
// gets half of the budget, two a third each.
func NewOf(size, part int64) *Budget {
	return &Budget{size: max(size, 1), free: max(size, 1), part: max(part, 1)}
}

// Size is all there is, bytes.
func (b *Budget) Size() int64 { return b.size }

// Free is what nobody holds now, bytes.
func (b *Budget) Free() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.free
}

// Share is what one of many holds of a Budget. Safe for concurrent use.
type Share struct {
	b    *Budget
	held int64 // b.mu's
}

// Share opens an account. It needs no closing: what it holds is given back.
func (b *Budget) Share() *Share { return &Share{b: b} }

// Budget is what the share is of.
func (s *Share) Budget() *Budget { return s.b }

// Held is what the share holds now, bytes.
func (s *Share) Held() int64 {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.held
}

// waiter waits for between least and most bytes.
type waiter struct {
	s           *Share
	least, most int64
	got         int64
	done        chan struct{} // closed when got is set
}

// room is how many more bytes s may take now. A share that holds nothing may take
// the least that it needs, if that is free: it would wait for ever otherwise.
func (s *Share) room(least int64) int64 {
	room := (s.b.free - s.b.part*s.held) / (s.b.part + 1)
	if s.held == 0 && least <= s.b.free {
		room = max(room, least)
	}
	return room
}

// cap keeps a request within what could ever be had: one that is larger than the
// whole budget takes all of it, and so runs alone.
func (s *Share) cap(least, most int64) (int64, int64) {
	least = min(max(least, 0), s.b.size)
	return least, max(min(most, s.b.size), least)
}

// TryTake takes between least and most bytes if so many may be had now, and says
// how many; 0 = none.
func (s *Share) TryTake(least, most int64) (got int64) {
	least, most = s.cap(least, most)
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.take(least, most)
}

func (s *Share) take(least, most int64) int64 {
	got := min(s.room(least), most)
	if got < least {
		return 0
	}
	s.b.free -= got
	s.held += got
	return got
}

// Take waits for between least and most bytes, or for ctx, and says how many it
// took. They are given back in one piece or in several.
func (s *Share) Take(ctx context.Context, least, most int64) (got int64, err error) {
	least, most = s.cap(least, most)
	b := s.b
	b.mu.Lock()
	if got := s.take(least, most); got >= least && (got > 0 || least == 0) {
		b.mu.Unlock()
		return got, nil
	}
	w := &waiter{s: s, least: least, most: most, done: make(chan struct{})}
	at := b.waiting.PushBack(w)
	b.mu.Unlock()
	select {
	case <-w.done:
		return w.got, nil
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-w.done: // at the last moment
		return w.got, nil
	default:
		b.waiting.Remove(at)
		return 0, context.Cause(ctx)
	}
}

// Give returns n bytes of those taken.
func (s *Share) Give(n int64) {
	if n == 0 {
		return
	}
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if n < 0 || n > s.held {
		panic("budget: more is given back than was taken") // and the bound would be none
	}
	s.held -= n
	b.free += n
	for at := b.waiting.Front(); at != nil && b.free > 0; {
		w, next := at.Value.(*waiter), at.Next()
		if got := w.s.take(w.least, w.most); got > 0 {
			w.got = got
			b.waiting.Remove(at)
			close(w.done)
		}
		at = next
	}
}
