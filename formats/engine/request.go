package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"glanced/formats"
)

// request is one read under way, kept and used again. It moves a part of the
// guest range at a time, of at most maxPieces extents, in this order: zeros and
// clusters that are cached; then what this read has to fetch, neighbouring host
// ranges in one go; then clusters that other reads are fetching. So a read never
// waits for another one while another one waits for it.
type request struct {
	walk    walk
	take    sink // collects pieces
	takeOne sink // collects one, see Disk.FileRange
	one     []piece
	pieces  []piece
	led     []ledCluster
	joined  []joinedCluster
	jobs    []job
}

// piece is an extent, and the source that it lies in.
type piece struct {
	formats.Extent
	s *source
}

// ledCluster is a compressed cluster that this request decodes.
type ledCluster struct {
	piece
	dst    []byte // where the piece goes; nil: nowhere, it is read ahead
	flight *clusterFlight
	direct bool // dst is all of the cluster: decode into it
	part   bool // only its first bytes are wanted, see clusters.seal
	err    error
}

// joinedCluster is one that someone else decodes.
type joinedCluster struct {
	piece
	dst    []byte
	flight *clusterFlight
}

// job is one read of a source: a piece of data, or the coded bytes of clusters.
type job struct {
	s      *source
	pos, n int64
	data   []byte       // where data goes; nil for clusters
	led    []ledCluster // of request.led
}

const (
	maxPieces = 256
	// maxRun is how many coded bytes are read in one go for several clusters, and
	// maxGap what may lie between two of them, bytes.
	maxRun = 1 << 20
	maxGap = 4 << 10
	// maxJobs bounds how many reads one request has at a remote source at once.
	maxJobs = 8
)

func newRequest() any {
	r := new(request)
	r.take = func(x formats.Extent, s *source) bool {
		if n := len(r.pieces); n > 0 {
			if last := &r.pieces[n-1]; last.s == s && last.Join(&x) {
				return true
			}
			if n == maxPieces {
				return false
			}
		}
		r.pieces = append(r.pieces, piece{x, s})
		return true
	}
	r.takeOne = func(x formats.Extent, s *source) bool {
		if x.Kind != formats.Data {
			return false
		}
		if len(r.one) == 0 {
			r.one = append(r.one, piece{x, s})
			return true
		}
		return r.one[0].s == s && r.one[0].Join(&x)
	}
	return r
}

// release leaves the disks and gives r back to the pool.
func (r *request) release(e *Engine) {
	r.walk.release()
	clear(r.pieces)
	clear(r.one)
	e.requests.Put(r)
}

// read fills p from guest offset off of d.
func (r *request) read(ctx context.Context, d *Disk, p []byte, off int64) error {
	for len(p) > 0 {
		r.pieces = r.pieces[:0]
		if err := r.walk.disk(ctx, d, off, int64(len(p)), r.take); err != nil {
			return err
		}
		n := r.pieces[len(r.pieces)-1].End() - off
		if err := r.move(ctx, d, p[:n], off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// move fills p, the guest range that r.pieces are of.
func (r *request) move(ctx context.Context, d *Disk, p []byte, off int64) error {
	coded := false
	for i := range r.pieces {
		x := &r.pieces[i]
		switch x.Kind {
		case formats.Absent, formats.Zero:
			clear(p[x.Off-off : x.End()-off])
		case formats.Compressed:
			coded = true
		}
	}
	scan := false
	if coded || d.ahead {
		scan = d.noteRead(off, int64(len(p)), coded)
	}
	if !coded {
		return r.moveData(ctx, p, off)
	}
	return r.moveCoded(ctx, p, off, !scan)
}

// moveData is move for pieces none of which are compressed.
func (r *request) moveData(ctx context.Context, p []byte, off int64) error {
	r.jobs = r.jobs[:0]
	for i := range r.pieces {
		if x := &r.pieces[i]; x.Kind == formats.Data {
			r.jobs = append(r.jobs, job{s: x.s, pos: x.Pos, n: x.N, data: p[x.Off-off : x.End()-off]})
		}
	}
	err := r.work(ctx, nil)
	clear(r.jobs) // the pool is not to hold on to the caller's memory
	return err
}

// moveCoded is move for pieces some of which are compressed; use: see s3fifo.get.
func (r *request) moveCoded(ctx context.Context, p []byte, off int64, use bool) error {
	f := r.newFetch(ctx)
	r.led, r.joined, r.jobs = r.led[:0], r.joined[:0], r.jobs[:0]
	for i := range r.pieces {
		x := &r.pieces[i]
		dst := p[x.Off-off : x.End()-off]
		switch x.Kind {
		case formats.Data:
			r.jobs = append(r.jobs, job{s: x.s, pos: x.Pos, n: x.N, data: dst})
		case formats.Compressed:
			r.claim(f.fetch, x, dst, use)
		}
	}
	r.group()
	err := r.work(ctx, f.fetch)
	f.done()
	for i := range r.joined {
		j := &r.joined[i]
		if err != nil {
			j.s.e.clusters.leave(j.key(), j.flight)
		} else {
			err = r.await(ctx, j)
		}
	}
	clear(r.jobs)
	clear(r.led)
	clear(r.joined)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// claim copies a cached cluster, or has it led or joined.
func (r *request) claim(f *fetch, x *piece, dst []byte, use bool) {
	c := x.s.e.clusters.claim(x.key(), f, x.want(), use)
	switch {
	case c.hit != nil:
		copy(dst, c.hit.bytes[x.Skip:])
		c.hit.release()
	case c.join != nil:
		r.joined = append(r.joined, joinedCluster{*x, dst, c.join})
	default:
		// A cluster that is wanted whole, for the first time in a while, needs no
		// copy of ours.
		direct := x.Len == x.Full && !c.known
		r.led = append(r.led, ledCluster{piece: *x, dst: dst, flight: c.led, direct: direct, part: c.part})
	}
}

// want is how many of the cluster's first bytes have to be decoded for the piece.
// Of the codecs, Zlib and VMDK's have a checksum, which is of the whole, and of
// zstd a cluster is one block, or few: decoding less would save little.
func (x *piece) want() int64 {
	if x.Codec == formats.Deflate {
		return x.Skip + x.Len
	}
	return x.Full
}

// await waits for a joined cluster. Where its leader gave up, or decoded less of it
// than this request needs, this request leads.
func (r *request) await(ctx context.Context, j *joinedCluster) error {
	x, dst := j.piece, j.dst
	for {
		b, err := j.s.e.clusters.wait(ctx, j.key(), j.flight)
		if err == nil {
			enough := int64(len(b.bytes)) >= x.Skip+x.Len
			if enough {
				copy(dst, b.bytes[x.Skip:])
			}
			b.release()
			if enough {
				return nil
			}
		} else if ctx.Err() != nil || !errors.Is(err, context.Canceled) {
			return err
		}
		one := request{pieces: []piece{x}}
		f := one.newFetch(ctx)
		one.claim(f.fetch, &x, dst, true)
		one.group()
		err = one.work(ctx, f.fetch)
		f.done()
		if len(one.joined) == 0 {
			return err
		}
		*j = one.joined[0]
	}
}

func (x *piece) key() cacheKey {
	return cacheKey{x.s.id, place{x.Pos, x.N, x.Full, x.Codec}}
}

// ownFetch is a fetch as its leader has it.
type ownFetch struct {
	*fetch
	stop func() bool // stops listening to the leader's context; nil: it did not
}

// newFetch makes the fetch for r.pieces. It takes a context that can end only
// where a source is not a local file.
func (r *request) newFetch(ctx context.Context) ownFetch {
	f := &fetch{ctx: context.Background()}
	f.wanted.Store(1)
	own := ownFetch{fetch: f}
	if ctx.Done() == nil {
		return own
	}
	for i := range r.pieces {
		if x := &r.pieces[i]; x.Kind == formats.Compressed && !x.s.local(x.Pos, x.N) {
			f.ctx, f.cancel = context.WithCancel(f.ctx)
			own.stop = context.AfterFunc(ctx, f.leave)
			break
		}
	}
	return own
}

// done frees the context, when the leader has finished all flights.
func (f ownFetch) done() {
	if f.stop != nil {
		f.stop()
		f.cancel()
	}
}

// group makes jobs of r.led: clusters whose coded bytes are near each other are
// read together.
func (r *request) group() {
	for i := 0; i < len(r.led); {
		x := &r.led[i]
		start, end := x.Pos, x.Pos+x.N
		n := i + 1
		for ; n < len(r.led); n++ {
			y := &r.led[n]
			if y.s != x.s || y.Pos < start || y.Pos > end+maxGap || y.Pos+y.N > start+maxRun {
				break
			}
			end = max(end, y.Pos+y.N)
		}
		r.jobs = append(r.jobs, job{s: x.s, pos: start, n: end - start, led: r.led[i:n]})
		i = n
	}
}

// work does r.jobs: those at local files one after the other, remote ones at
// once. Every led flight is finished when it returns.
func (r *request) work(ctx context.Context, f *fetch) error {
	remote := false
	if len(r.jobs) > 1 {
		for i := range r.jobs {
			if j := &r.jobs[i]; !j.s.local(j.pos, j.n) {
				remote = true
				break
			}
		}
	}
	if !remote {
		var err error
		for i := range r.jobs {
			if e := r.jobs[i].do(ctx, f, err != nil); err == nil {
				err = e
			}
		}
		return err
	}

	var (
		next   atomic.Int64
		failed atomic.Pointer[error]
		wg     sync.WaitGroup
	)
	jobs := r.jobs
	for range min(len(jobs), maxJobs) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(jobs); i = int(next.Add(1)) - 1 {
				if err := jobs[i].do(ctx, f, failed.Load() != nil); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// do does one job; after a failure of another one, it only ends its flights.
func (j *job) do(ctx context.Context, f *fetch, failed bool) error {
	switch {
	case j.led == nil && failed:
		return nil
	case j.led == nil:
		return j.s.ReadAt(ctx, j.data, j.pos)
	case failed:
		j.fail(context.Canceled) // who waits tries on its own
		return nil
	}
	return j.decode(ctx, f)
}
