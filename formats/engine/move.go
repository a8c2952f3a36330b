package engine

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"glanced/formats"
)

// ledCluster is a compressed cluster that this read decodes.
type ledCluster struct {
	placed
	dst    []byte // where the extent goes; nil: nowhere, it is read ahead
	flight *clusterFlight
	direct bool // dst is all of the cluster: decode into it
	part   bool // only its first bytes are wanted, see clusters.seal
	err    error
}

// joinedCluster is one that someone else decodes.
type joinedCluster struct {
	placed
	dst    []byte
	flight *clusterFlight
}

// job is one read of a source: a piece of data, or the coded bytes of clusters.
type job struct {
	s      *source
	pos, n int64
	data   []byte       // where data goes; nil for clusters
	led    []ledCluster // of Plan.led
	off    int64        // where data's guest range begins
}

const (
	// leastRun and mostRun bound how many coded bytes are read in one go for several
	// clusters (Engine.maxRun); maxGap is what may lie between two of them, bytes.
	leastRun = 64 << 10
	mostRun  = 1 << 20
	maxGap   = 4 << 10
	// maxJobs bounds how many reads one Read has at a remote source at once.
	maxJobs = 8
)

// batch is what one read has to move: reads of sources, and clusters to decode or
// to wait for. It is kept and used again.
type batch struct {
	led    []ledCluster
	joined []joinedCluster
	jobs   []job
}

// Read fills the Dst of the pieces that have one, in this order: zeros and what is at
// hand; then what this read has to fetch, neighbouring host ranges in one go; then
// clusters that other reads are fetching. So a read never waits for another one while
// another one waits for it. It fails with a *ReadError, and what is in any Dst is
// undefined then. It returns early when ctx ends, except while it decodes a cluster
// that others wait for too.
func (p *Plan) Read(ctx context.Context) error {
	b := &p.batch
	coded, remote := false, false
	for i := range p.pieces {
		x := &p.pieces[i]
		switch {
		case x.Dst == nil:
		case x.How == Zeros:
			clear(x.Dst)
		case x.How == InMemory:
			copy(x.Dst, x.Memory)
		case x.at.Kind == formats.Data:
			b.jobs = append(b.jobs, job{s: x.at.s, pos: x.at.Pos, n: x.at.N, data: x.Dst, off: x.Off})
		default:
			coded = true
			remote = remote || !x.at.s.local(x.at.Pos, x.at.N)
		}
	}
	defer b.reset()
	if !coded {
		return b.work(ctx, nil)
	}
	f := newFetch(ctx, remote)
	for i := range p.pieces {
		if x := &p.pieces[i]; x.Dst != nil && x.How == Moved && x.at.Kind == formats.Compressed {
			b.claim(f.fetch, &x.at, x.Dst, !p.scan)
		}
	}
	b.group()
	err := b.work(ctx, f.fetch)
	f.done()
	for i := range b.joined {
		j := &b.joined[i]
		if err != nil {
			j.s.e.clusters.leave(j.key(), j.flight)
		} else if e := j.await(ctx); e != nil {
			err = &ReadError{j.Off, e}
		}
	}
	if err != nil && ctx.Err() != nil {
		return &ReadError{p.off, ctx.Err()}
	}
	return err
}

// reset forgets what was moved: a batch that is kept is not to hold on to its
// callers' memory.
func (b *batch) reset() {
	clear(b.led)
	clear(b.joined)
	clear(b.jobs)
	b.led, b.joined, b.jobs = b.led[:0], b.joined[:0], b.jobs[:0]
}

// claim copies a cached cluster, or has it led or joined.
func (b *batch) claim(f *fetch, x *placed, dst []byte, use bool) {
	c := x.s.e.clusters.claim(x.key(), f, x.want(), use)
	switch {
	case c.hit != nil:
		copy(dst, c.hit.bytes[x.Skip:])
		c.hit.release()
	case c.join != nil:
		b.joined = append(b.joined, joinedCluster{*x, dst, c.join})
	default:
		// A cluster that is wanted whole, for the first time in a while, needs no
		// copy of ours.
		direct := x.Len == x.Full && !c.known
		b.led = append(b.led, ledCluster{placed: *x, dst: dst, flight: c.led, direct: direct, part: c.part})
	}
}

// want is how many of the cluster's first bytes have to be decoded for the piece.
// Of the codecs, Zlib and VMDK's have a checksum, which is of the whole, and of
// zstd a cluster is one block, or few: decoding less would save little.
func (x *placed) want() int64 {
	if x.Codec == formats.Deflate {
		return x.Skip + x.Len
	}
	return x.Full
}

// await waits for the cluster. Where its leader gave up, or decoded less of it than is
// wanted here, this read leads.
func (j *joinedCluster) await(ctx context.Context) error {
	for {
		b, err := j.s.e.clusters.wait(ctx, j.key(), j.flight)
		if err == nil {
			enough := int64(len(b.bytes)) >= j.Skip+j.Len
			if enough {
				copy(j.dst, b.bytes[j.Skip:])
			}
			b.release()
			if enough {
				return nil
			}
		} else if ctx.Err() != nil || !errors.Is(err, context.Canceled) {
			return err
		}
		var one batch
		f := newFetch(ctx, !j.s.local(j.Pos, j.N))
		one.claim(f.fetch, &j.placed, j.dst, true)
		one.group()
		err = one.work(ctx, f.fetch)
		f.done()
		if len(one.joined) == 0 {
			return err
		}
		*j = one.joined[0]
	}
}

func (x *placed) key() cacheKey {
	return cacheKey{x.s.id, place{x.Pos, x.N, x.Full, x.Codec}}
}

// ownFetch is a fetch as its leader has it.
type ownFetch struct {
	*fetch
	stop func() bool // stops listening to the leader's context; nil: it did not
}

// newFetch makes a fetch. It can be stopped only where something is remote: reading
// local files takes no time worth that.
func newFetch(ctx context.Context, remote bool) ownFetch {
	f := &fetch{ctx: context.Background()}
	f.wanted.Store(1)
	own := ownFetch{fetch: f}
	if remote && ctx.Done() != nil {
		f.ctx, f.cancel = context.WithCancel(f.ctx)
		own.stop = context.AfterFunc(ctx, f.leave)
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

// group makes jobs of b.led: clusters whose coded bytes are near each other are
// read together.
func (b *batch) group() {
	for i := 0; i < len(b.led); {
		x := &b.led[i]
		start, end := x.Pos, x.Pos+x.N
		n := i + 1
		for ; n < len(b.led); n++ {
			y := &b.led[n]
			if y.s != x.s || y.Pos < start || y.Pos > end+maxGap || y.Pos+y.N > start+x.s.e.maxRun {
				break
			}
			end = max(end, y.Pos+y.N)
		}
		b.jobs = append(b.jobs, job{s: x.s, pos: start, n: end - start, led: b.led[i:n]})
		i = n
	}
}

// work does the jobs: those at local files one after the other, remote ones at
// once. Every led flight is finished when it returns.
func (b *batch) work(ctx context.Context, f *fetch) error {
	remote := false
	if len(b.jobs) > 1 {
		for i := range b.jobs {
			if j := &b.jobs[i]; !j.s.local(j.pos, j.n) {
				remote = true
				break
			}
		}
	}
	if !remote {
		var err error
		for i := range b.jobs {
			if e := b.jobs[i].do(ctx, f, err != nil); err == nil {
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
	jobs := b.jobs
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
		if err := j.s.ReadAt(ctx, j.data, j.pos); err != nil {
			return &ReadError{j.off, err}
		}
		return nil
	case failed:
		j.fail(context.Canceled) // who waits tries on its own
		return nil
	}
	if err := j.decode(ctx, f); err != nil {
		return &ReadError{j.led[0].Off, err}
	}
	return nil
}
