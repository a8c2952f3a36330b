package engine

import (
	"context"
	"sync"

	"golang.org/x/sys/unix"

	"glanced/formats"
)

// Read-ahead. The engine alone decides it: sources and layouts do not know who
// reads what. The kernel reads ahead of local files; the engine does so for compressed
// clusters, which it decodes into the cache, and for sources that take Prefetch.

const (
	// maxStreams is how many sequential readers of a disk are told apart.
	maxStreams = 8
	// maxWindow is the most that is read ahead of one stream, bytes.
	maxWindow = 4 << 20
	// minScan is how many bytes a stream has to read in a row before it counts as a scan,
	// which nothing is kept in the cache for.
	minScan = 128 << 10
	// busyRead is how many bytes of one read keep one decoder busy. A read of this much
	// for each decoder leaves none for read-ahead.
	busyRead = 128 << 10
	// aheadStep is how much read-ahead claims at once, bytes. Whoever comes to want a part
	// of it meanwhile waits for as much at most.
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

// stream is one sequential reader, as far as its reads show one.
type stream struct {
	next  int64  // guest offset where its next read is expected
	run   int64  // bytes that it has read in a row
	until int64  // guest offset up to which was read ahead for it
	used  uint64 // when it last read, by streams.tick
}

// note records a read of n bytes at off. It reports whether the read goes on a scan,
// and which guest range [from, to), of at most window bytes, is to be read ahead now;
// often that is empty.
func (st *streams) note(off, n, window int64) (scan bool, from, to int64) {
	// A read that is not noted does no harm; one that waits does.
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
			*s = stream{next: off, until: off}
		}
	}
	s.used = st.tick
	s.next = max(s.next, off+n)
	s.run += n
	if s.run < max(minScan, 3*n) {
		return false, 0, 0
	}
	s.until = max(s.until, s.next)
	window = min(window, s.run)
	if window > 0 && s.until-s.next <= window/2 {
		from, to = s.until, s.next+window
		s.until = to
	}
	return true, from, to
}

// noteRead records a read, starts the read-ahead that it gives reason for, and reports
// whether the read is part of a scan. coded: the read meets compressed clusters.
func (d *Disk) noteRead(off, n int64, coded bool) (scan bool) {
	window := d.e.window
	if d.prefetches && (window == 0 || !coded) {
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
	if s.prefetcher != nil {
		s.prefetcher.Prefetch(pos, n)
	}
}
