package replicas

import (
	"sync/atomic"
	"time"
)

// Place is where replicas of several contents lie, a store. What one reader has found
// out, that it does not answer, the next one need not wait for: they leave it alone
// together, and one of them finds out whether it is back. The zero value is ready. Safe
// for concurrent use.
type Place struct {
	retry atomic.Int64 // when to try it again, as time.Time.UnixNano; 0: it answers, as far as is known
}

// rests tells whether it is to be left alone.
func (p *Place) rests(now time.Time) bool { return p.retry.Load() > now.UnixNano() }

// due tells whether it may be tried. If it failed before, that is told to one only.
func (p *Place) due(now time.Time) bool {
	at := p.retry.Load()
	return at == 0 || at <= now.UnixNano() && p.retry.CompareAndSwap(at, now.Add(RetryAfter).UnixNano())
}

func (p *Place) answered() {
	if p.retry.Load() != 0 {
		p.retry.Store(0)
	}
}

func (p *Place) fails(now time.Time) { p.retry.Store(now.Add(RetryAfter).UnixNano()) }
