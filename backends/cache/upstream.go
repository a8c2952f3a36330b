package cache

import (
	"container/list"
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"glanced/backends/budget"
)

// DefaultConnections is how many fetches from one store are under way at once, where
// nothing else is said.
const DefaultConnections = 16

// Limits of what is fetched from one store.
type Limits struct {
	Connections    int   // fetches under way at once; 0 = DefaultConnections
	BytesPerSecond int64 // 0 = no limit
}

// Upstream is what the fetches from one store share: its connections and bandwidth,
// and one share of the memory, so that a store that hangs holds no more than that.
// Safe for concurrent use.
type Upstream struct {
	c      *Cache
	memory *budget.Share
	// maxExtended is the most that a flight is extended to, bytes.
	maxExtended int64
	rate        *rate.Limiter // nil: no limit
	line        line
	purse       chan struct{} // who waits for memory holds it: one at a time, in order

	// Cache.mu's
	unfunded   int    // flights that wait for memory
	hints      []hint // to be fetched ahead, in order
	aheadBytes int64  // of flights ahead
	later      bool   // a timer is set to look at the hints again
}

// Upstream makes a new one.
func (c *Cache) Upstream(l Limits) *Upstream {
	if l.Connections <= 0 {
		l.Connections = DefaultConnections
	}
	u := &Upstream{c: c, memory: c.cfg.Memory.Share(), line: line{limit: l.Connections}, purse: make(chan struct{}, 1),
		maxExtended: max(c.cfg.ChunkSize, min(extendedFetch, c.cfg.Memory.Size()/extendedMemory))}
	if l.BytesPerSecond > 0 {
		// A tenth of a second may go out at once, and the longest fetch has to.
		u.rate = rate.NewLimiter(rate.Limit(l.BytesPerSecond), max(int(l.BytesPerSecond/10), maxFetch))
		u.rate.AllowN(time.Now(), u.rate.Burst()) // it begins empty
	}
	return u
}

// mayAhead takes n bytes of bandwidth for read-ahead, if foreground reads would not
// soon want them.
func (u *Upstream) mayAhead(n int64) bool {
	if u.rate == nil {
		return true
	}
	now := time.Now()
	return u.rate.TokensAt(now) >= float64(n+int64(u.rate.Burst())/2) && u.rate.AllowN(now, int(n))
}

// line is the connections of a store. Foreground goes first, and read-ahead has half
// of them at most. Safe for concurrent use.
type line struct {
	limit int

	mu       sync.Mutex
	busy     int
	ahead    int       // of them for read-ahead
	waiting  list.List // of chan struct{}: foreground
	patient  list.List // likewise, read-ahead that waits
	mostSeen int       // of busy
}

func (l *line) aheadLimit() int { return max(1, l.limit/2) }

// take waits for a connection.
func (l *line) take(ctx context.Context, ahead bool) error {
	l.mu.Lock()
	if l.may(ahead) {
		l.got(ahead)
		l.mu.Unlock()
		return nil
	}
	queue := &l.waiting
	if ahead {
		queue = &l.patient
	}
	turn := make(chan struct{})
	at := queue.PushBack(turn)
	l.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	select {
	case <-turn: // at the last moment
		l.mu.Unlock()
		l.give(ahead)
	default:
		queue.Remove(at)
		l.mu.Unlock()
	}
	return context.Cause(ctx)
}

// tryAhead takes a connection for read-ahead, if one may be had now.
func (l *line) tryAhead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.may(true) {
		return false
	}
	l.got(true)
	return true
}

func (l *line) may(ahead bool) bool {
	return l.busy < l.limit && l.waiting.Len() == 0 && (!ahead || l.ahead < l.aheadLimit())
}

func (l *line) got(ahead bool) {
	l.busy++
	l.mostSeen = max(l.mostSeen, l.busy)
	if ahead {
		l.ahead++
	}
}

// give gives a connection back, and wakes who comes next.
func (l *line) give(ahead bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
	if ahead {
		l.ahead--
	}
	for l.busy < l.limit {
		switch {
		case l.waiting.Len() > 0:
			l.got(false)
			close(l.waiting.Remove(l.waiting.Front()).(chan struct{}))
		case l.patient.Len() > 0 && l.ahead < l.aheadLimit():
			l.got(true)
			close(l.patient.Remove(l.patient.Front()).(chan struct{}))
		default:
			return
		}
	}
}
