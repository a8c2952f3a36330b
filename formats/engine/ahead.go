package engine

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"

	"glanced/formats"
)

// Read-ahead. The engine alone decides it: sources and layouts do not know who
// reads what. Local files have the kernel's; so it is for compressed clusters,
// which are decoded into the cache, and for sources that take Prefetch.

const (
	maxStreams = 8
	// maxWindow is the most that is read ahead of one stream, bytes.
	maxWindow = 4 << 20
	// minScan is from how many bytes in a row on a stream counts as a scan.
	minScan = 128 << 10
	// busyRead is how many bytes of one read are work enough for one decoder.
	busyRead = 128 << 10
	// aheadStep is how much is claimed at once, bytes: who comes to want a part of
	// it waits for as much at most.
	aheadStep = 1 << 20
	// maxPrefetch is the most that one Prefetch asks for, bytes.
	maxPrefetch = 64 << 20
)

// streams notices sequential readers of a disk, several at once.
type streams struct {
	mu   sync.Mutex
	tick uint64
	all  [maxStreams]stream
}

type stream struct {
	next  int64 // guest offset where its next read is expected
	run   int64 // bytes read in a row
	ahead int64 // guest offset up to which was read ahead
	used  uint64
}

// note records a read of n bytes at off. scan: it goes on a sequential run.
// [from, to): what is to be read ahead now, at most window bytes; often nothing.
func (st *streams) note(off, n, window int64) (scan bool, from, to int64) {
	// What is noticed late is no harm; waiting is.
	if !st.mu.TryLock() {
		return false, 0, 0
	}
	defer st.mu.Unlock()
	st.tick++
	s := &st.all[0]
	for i := range st.all {
		t := &st.all[i]
		// Several reads of one stream may be under way, and arrive out of order.
		if t.run > 0 && off >= t.next-4*n && off <= t.next+4*n {
			s = t
			break
		}
		if t.used < s.used {
			s = t
		}
		if i == maxStreams-1 {
			*s = stream{next: off, ahead: off}
		}
	}
	s.used = st.tick
	s.next = max(s.next, off+n)
	s.run += n
	if s.run < max(minScan, 3*n) {
		return false, 0, 0
	}
	s.ahead = max(s.ahead, s.next)
	window = min(window, s.run)
	if window > 0 && s.ahead-s.next <= window/2 {
		from, to = s.ahead, s.next+window
		s.ahead = to
	}
	return true, from, to
}

// noteRead records a read that may gain from read-ahead, starts that, and
// reports whether the read is part of a scan. coded: it met compressed clusters.
func (d *Disk) noteRead(off, n int64, coded bool) (scan bool) {
	window := d.e.window
	if d.ahead && (window == 0 || !coded) {
		window = maxWindow
	}
	// Several reads at once, a large one, or an earlier read-ahead keep the
	// decoders busy; decoding into the cache and copying would only cost more.
	if d.calls.n.Load() > 1 || coded && n >= int64(d.e.workers)*busyRead {
		window = 0
	}
	scan, from, to := d.streams.note(off, n, window)
	if to = min(to, d.Size()); from < to {
		d.inBackground(from, to, false)
	}
	return scan
}

// Prefetch makes a later read of the range cheaper where it can: a local file's
// bytes are asked of the kernel, a remote source is told, compressed clusters are
// decoded into the cache, up to a twentieth of it. It waits for nothing, does at
// most 64 MiB, and nothing while the engine is busy enough with such.
func (d *Disk) Prefetch(off, n int64) {
	if d.inside(off, n) == nil {
		d.inBackground(off, off+min(n, maxPrefetch), true)
	}
}

// inBackground has guest range [from, to) fetched, unless too much is already.
// advise: the kernel is asked for what lies in local files.
func (d *Disk) inBackground(from, to int64, advise bool) {
	select {
	case d.e.background <- struct{}{}:
	default:
		return
	}
	if !d.calls.enter() {
		<-d.e.background
		return
	}
	go func() {
		d.fetchAhead(from, to, advise)
		d.calls.leave()
		<-d.e.background
	}()
}

// fetchAhead fetches guest range [from, to). A failure ends it, and shows again
// when the range is read.
func (d *Disk) fetchAhead(from, to int64, advise bool) {
	p := d.e.plans.Get().(*Plan)
	defer d.e.keep(p)
	if p.take == nil {
		p.take = p.collect
	}
	// More would pass through the cache before it is read.
	room := d.e.clusters.budget() / shortPart / 2
	for from < to && d.life.Err() == nil {
		p.found = p.found[:0]
		if err := p.walk.disk(d.life, d, from, min(to-from, aheadStep), p.take); err != nil {
			return
		}
		from = p.found[len(p.found)-1].End()

		f := &fetch{}
		f.ctx, f.cancel = context.WithCancel(d.life)
		f.wanted.Store(1)
		for i := range p.found {
			x := &p.found[i]
			switch {
			case !x.Kind.Stored():
			case x.Kind == formats.Data || x.Full > room:
				x.s.prefetch(x.Pos, x.N, advise)
			default:
				if led := x.s.e.clusters.lead(x.key(), f); led != nil {
					p.batch.led = append(p.batch.led, ledCluster{placed: *x, flight: led})
					room -= x.Full
				}
			}
		}
		p.batch.group()
		err := p.batch.work(d.life, f)
		p.batch.reset()
		f.cancel()
		if err != nil {
			return
		}
	}
}

// prefetch asks for host range [pos, pos+n), waiting for nothing.
func (s *source) prefetch(pos, n int64, advise bool) {
	if s.files != nil {
		if r, ok := s.files.FileRange(pos, n); ok {
			if conn, err := r.File.SyscallConn(); err == nil && advise {
				conn.Control(func(fd uintptr) {
					unix.Fadvise(int(fd), r.Pos, r.Len, unix.FADV_WILLNEED) // a hint: failing is no harm
				})
			}
			r.Release()
			if pos, n = pos+r.Len, n-r.Len; n == 0 {
				return
			}
		}
	}
	if s.ahead != nil {
		s.ahead.Prefetch(pos, n)
	}
}
