package cache

import "hash/maphash"

// Which chunk goes when room is needed is decided as in S3-FIFO (Yang et al., "FIFO
// queues are all you need for cache eviction", SOSP 2023): a newcomer waits in a
// short queue, a tenth of the cache, and enters the long one only if it was used
// again, or comes back soon after it was pushed out. So a scan, however long, passes
// through the short queue. A hit moves nothing: it only counts.
//
// A reader in small steps uses each chunk many times in a row. That is one use: it
// counts only after usesApart, as InnoDB counts for its old blocks
// (innodb_old_blocks_time), and the first use after the chunk came is none.

const (
	shortPart = 10 // the short queue's part of the cache: a tenth
	maxUses   = 3
	usesApart = 10 // seconds
	// maxGhosts bounds what is remembered of chunks that were pushed out.
	maxGhosts = 1 << 16
	// maxSteps bounds how far one search for a victim goes past chunks that are held.
	maxSteps = 4096
)

// chunk is one that is on disk.
type chunk struct {
	o          *object
	i          uint32
	sum        uint32
	holds      int32
	used       uint32 // Cache.second of when it came, or of its last use that counted
	uses       uint8  // since it joined its queue
	long       bool   // in the long queue
	verified   bool   // its bytes fit sum, or came from the store in this life
	zeros      bool   // verified, and nothing but zeros
	dropped    bool   // not to be read any more, and gone once nobody holds it
	prev, next *chunk
}

// busy tells whether somebody reads the chunk's part of the file.
func (ch *chunk) busy() bool { return ch.holds > 0 || ch.o.whole > 0 }

// held tells whether the chunk is not to be evicted now.
func (ch *chunk) held() bool { return ch.busy() || ch.o.pinned }

// use counts a use, now being Cache.second.
func (ch *chunk) use(now uint32) {
	if now-ch.used >= usesApart {
		ch.used = now
		ch.uses = min(ch.uses+1, maxUses)
	}
}

// queues are all chunks on disk, in the order in which they may go.
type queues struct {
	size        int64
	short, long fifo
	seed        maphash.Seed
	ghosts      map[uint64]struct{} // pushed out of the short queue lately
	ring        []uint64            // they, in the order in which they are forgotten
	next        int
}

func (q *queues) init(size, chunk int64) {
	q.size, q.seed, q.ghosts = size, maphash.MakeSeed(), map[uint64]struct{}{}
	q.ring = make([]uint64, 0, min(size/chunk, maxGhosts))
}

func (q *queues) ghost(ch *chunk) uint64 {
	return maphash.Comparable(q.seed, struct {
		name string
		i    uint32
	}{ch.o.name, ch.i})
}

// add enters a chunk that has come.
func (q *queues) add(ch *chunk) {
	g := q.ghost(ch)
	if _, back := q.ghosts[g]; back {
		ch.long = true
	}
	q.of(ch).push(ch)
}

// remove takes a chunk out.
func (q *queues) remove(ch *chunk) { q.of(ch).remove(ch) }

func (q *queues) of(ch *chunk) *fifo {
	if ch.long {
		return &q.long
	}
	return &q.short
}

// victim takes out the chunk that is to go next; nil: all are held, as far as was
// looked.
func (q *queues) victim() *chunk {
	for range maxSteps {
		from := &q.long
		if q.short.tail != nil && (q.long.tail == nil || q.short.bytes > q.size/shortPart) {
			from = &q.short
		}
		if from.tail == nil {
			return nil
		}
		stuck := from == &q.short && from.tail.held()
		v := q.step(from)
		if v == nil && stuck && q.long.tail != nil { // held newcomers do not keep the others
			v = q.step(&q.long)
		}
		if v != nil {
			return v
		}
	}
	return nil
}

// step looks at the oldest of a queue: it is taken out, or goes to the front of one.
func (q *queues) step(from *fifo) *chunk {
	ch := from.tail
	switch {
	case ch.held():
		from.remove(ch)
		from.push(ch)
	case ch.uses > 0:
		from.remove(ch)
		if ch.long {
			ch.uses--
		} else {
			ch.uses, ch.long = 0, true
		}
		q.long.push(ch)
	default:
		from.remove(ch)
		if !ch.long {
			q.remember(q.ghost(ch))
		}
		return ch
	}
	return nil
}

func (q *queues) remember(g uint64) {
	if _, known := q.ghosts[g]; known || cap(q.ring) == 0 {
		return
	}
	if len(q.ring) < cap(q.ring) {
		q.ring = append(q.ring, g)
	} else {
		delete(q.ghosts, q.ring[q.next])
		q.ring[q.next] = g
		q.next = (q.next + 1) % len(q.ring)
	}
	q.ghosts[g] = struct{}{}
}

// fifo is a queue of chunks, doubly linked so that any can leave.
type fifo struct {
	head, tail *chunk // newest, oldest
	bytes      int64
}

func (f *fifo) push(ch *chunk) {
	ch.prev, ch.next = nil, f.head
	if f.head != nil {
		f.head.prev = ch
	} else {
		f.tail = ch
	}
	f.head = ch
	f.bytes += ch.o.allocated(ch.i)
}

func (f *fifo) remove(ch *chunk) {
	if ch.prev != nil {
		ch.prev.next = ch.next
	} else {
		f.head = ch.next
	}
	if ch.next != nil {
		ch.next.prev = ch.prev
	} else {
		f.tail = ch.prev
	}
	ch.prev, ch.next = nil, nil
	f.bytes -= ch.o.allocated(ch.i)
}
