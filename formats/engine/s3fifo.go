package engine

import "glanced/formats"

// cacheKey names what a cache keeps: bytes of one open source, which owner stands for.
type cacheKey struct {
	owner uint64
	place place
}

// place is all that determines cached bytes, given their source: the host range
// and, for clusters, how it is coded and how much it decodes to.
type place struct {
	pos, n, full int64
	codec        formats.Codec
}

// s3fifo is a map bounded in bytes. What is to go when it is full is decided as
// in S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction",
// SOSP 2023): a newcomer waits in a short queue, and enters the long one only if
// it was used again, or comes back soon after it was pushed out. So one scan over
// a disk passes through the short queue and leaves the rest alone.
//
// An s3fifo has no lock: whoever embeds it does.
type s3fifo[V any] struct {
	budget  int64
	used    int64
	owners  map[uint64]map[place]*entry[V]
	short   fifo[V]
	long    fifo[V]
	dropped func(V) // told of each value that leaves

	ghosts    map[cacheKey]struct{} // pushed out lately
	ghostRing []cacheKey
	ghostNext int

	// worth says whether newcomers are worth their room: each costs one, and one
	// that is wanted again before it is forgotten earns two. See newcomer.
	worth int
}

type entry[V any] struct {
	key        cacheKey
	v          V
	size       int64
	uses       uint8 // since it joined its queue, at most maxUses
	inLong     bool
	prev, next *entry[V]
}

const (
	maxUses = 3
	// As many are remembered as the budget has room for, within these bounds: what
	// was gone for longer would not have been kept anyway.
	minGhosts, maxGhosts = 16, 2048
	shortPart            = 10 // the short queue's part of the budget: a tenth
	maxWorth             = 64
)

func newS3FIFO[V any](budget int64, dropped func(V)) s3fifo[V] {
	return s3fifo[V]{
		budget: budget, dropped: dropped,
		owners: make(map[uint64]map[place]*entry[V]),
		ghosts: make(map[cacheKey]struct{}),
	}
}

// get finds k's value; use says whether this counts as a use that argues for keeping it.
func (s *s3fifo[V]) get(k cacheKey, use bool) (v V, ok bool) {
	e := s.owners[k.owner][k.place]
	if e == nil {
		return v, false
	}
	if use && e.uses == 0 && !e.inLong {
		s.worth = min(s.worth+2, maxWorth)
	}
	if use && e.uses < maxUses {
		e.uses++
	}
	return e.v, true
}

// newcomer is told of a k that is wanted and not there. It reports whether k was
// here lately, and otherwise whether keeping k, size bytes large, would push out
// something although newcomers are seldom wanted again these days.
func (s *s3fifo[V]) newcomer(k cacheKey, size int64) (known, idle bool) {
	if s.remembered(k) {
		s.worth = min(s.worth+2, maxWorth)
		return true, false
	}
	s.worth = max(s.worth-1, -maxWorth)
	return false, s.worth < 0 && s.used+size > s.budget
}

// remembered reports whether k was here lately.
func (s *s3fifo[V]) remembered(k cacheKey) bool {
	_, ok := s.ghosts[k]
	return ok
}

// remember has k, size bytes large, treated as if it had been here lately.
func (s *s3fifo[V]) remember(k cacheKey, size int64) {
	if s.remembered(k) {
		return
	}
	if int64(len(s.ghostRing)) < min(max(s.budget/size, minGhosts), maxGhosts) {
		s.ghostRing = append(s.ghostRing, k)
	} else {
		delete(s.ghosts, s.ghostRing[s.ghostNext])
		s.ghostRing[s.ghostNext] = k
		s.ghostNext = (s.ghostNext + 1) % len(s.ghostRing)
	}
	s.ghosts[k] = struct{}{}
}

// put keeps v, size bytes large, and reports whether it did: it does not when k
// is there already. Others go to make room; v stays even if it alone is larger
// than the budget.
func (s *s3fifo[V]) put(k cacheKey, v V, size int64) bool {
	of := s.owners[k.owner]
	if of == nil {
		of = make(map[place]*entry[V])
		s.owners[k.owner] = of
	} else if of[k.place] != nil {
		return false
	}
	e := &entry[V]{key: k, v: v, size: size, inLong: s.remembered(k)}
	of[k.place] = e
	s.queue(e).push(e)
	s.used += size
	for s.used > s.budget && s.evict(e) {
	}
	return true
}

// evict makes one step towards room; false when only keep is left.
func (s *s3fifo[V]) evict(keep *entry[V]) bool {
	short, long := s.short.oldest(keep), s.long.oldest(keep)
	switch {
	case short == nil && long == nil:
		return false
	case long == nil, short != nil && s.short.bytes > s.budget/shortPart:
		if short.uses > 1 {
			s.short.remove(short)
			short.uses, short.inLong = 0, true
			s.long.push(short)
			return true
		}
		s.remember(short.key, short.size)
		s.remove(short)
	case long.uses > 0:
		long.uses--
		s.long.remove(long)
		s.long.push(long)
	default:
		s.remove(long)
	}
	return true
}

// drop removes all that owner has, in time proportional to that alone.
func (s *s3fifo[V]) drop(owner uint64) {
	for _, e := range s.owners[owner] {
		s.remove(e)
	}
}

func (s *s3fifo[V]) remove(e *entry[V]) {
	s.queue(e).remove(e)
	s.used -= e.size
	of := s.owners[e.key.owner]
	delete(of, e.key.place)
	if len(of) == 0 {
		delete(s.owners, e.key.owner)
	}
	if s.dropped != nil {
		s.dropped(e.v)
	}
}

func (s *s3fifo[V]) queue(e *entry[V]) *fifo[V] {
	if e.inLong {
		return &s.long
	}
	return &s.short
}

// fifo is a queue of entries, doubly linked so that any can leave.
type fifo[V any] struct {
	head, tail *entry[V] // newest, oldest
	bytes      int64
}

func (q *fifo[V]) push(e *entry[V]) {
	e.prev, e.next = nil, q.head
	if q.head != nil {
		q.head.prev = e
	} else {
		q.tail = e
	}
	q.head = e
	q.bytes += e.size
}

func (q *fifo[V]) remove(e *entry[V]) {
	if e.prev != nil {
		e.prev.next = e.next
	} else {
		q.head = e.next
	}
	if e.next != nil {
		e.next.prev = e.prev
	} else {
		q.tail = e.prev
	}
	e.prev, e.next = nil, nil
	q.bytes -= e.size
}

// oldest is the entry that is next to go, keep excepted.
func (q *fifo[V]) oldest(keep *entry[V]) *entry[V] {
	if q.tail == keep && keep != nil {
		return keep.prev
	}
	return q.tail
}

// shardCount divides a budget so that each part still holds several of the
// largest things kept, each bytes, and locks are rarely contended.
func shardCount(budget, each int64) int {
	n := 1
	for n < 16 && budget/int64(2*n) >= 8*each {
		n *= 2
	}
	return n
}

// shardOf spreads keys over n shards, a power of two (Fibonacci hashing).
func shardOf(k cacheKey, n int) int {
	h := (k.owner*0x9E3779B97F4A7C15 ^ uint64(k.place.pos)) * 0x9E3779B97F4A7C15
	return int(h>>32) & (n - 1)
}
