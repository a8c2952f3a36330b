package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glanced/backends/stored"
	"glanced/formats"
)

// Odd-sized reads by many goroutines, over a chain of three disks, whose
// extents are of every kind and codec, equal the reference byte for byte.
func TestReadsEqualTheReference(t *testing.T) {
	for _, o := range []Options{
		{CacheBytes: 64 << 20}, {CacheBytes: 0}, {CacheBytes: 300 << 10, BufferBytes: 64 << 10, Workers: 1}, {CacheBytes: 4 << 20, Workers: 5},
	} {
		for _, local := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v local %v", o, local), func(t *testing.T) {
				e := newTestEngine(t, o)
				r := rand.New(rand.NewSource(7))
				var top *synthetic
				var disk *Disk
				for _, size := range []int64{700 << 10, 900<<10 + 512, 1<<20 + 100} {
					top = newSynthetic(r, size, top, disk)
					var src stored.Bytes = &memSource{data: top.host}
					if local {
						src = newFileSource(t, top.host)
					}
					disk = openTable(t, e, top.layout, src)
				}
				var wg sync.WaitGroup
				for g := range 6 {
					wg.Go(func() { readRandomly(t, disk, top.want, int64(g)) })
				}
				wg.Wait()
			})
		}
	}
}

func readRandomly(t *testing.T, d *Disk, want []byte, seed int64) {
	r := rand.New(rand.NewSource(seed))
	size := int64(len(want))
	p := make([]byte, size)
	next := int64(0)
	for i := range 150 {
		n := 1 + r.Int63n([]int64{100, 5000, 70000, 400000}[r.Intn(4)])
		off := r.Int63n(size)
		if seed%2 == 0 { // a sequential reader
			off = next % size
		}
		n = min(n, size-off)
		next = off + n
		if r.Intn(20) == 0 {
			d.Prefetch(off, n)
		}
		if err := d.ReadAt(context.Background(), p[:n], off); err != nil {
			t.Errorf("read %d of reader %d: %v", i, seed, err)
			return
		}
		if !bytes.Equal(p[:n], want[off:off+n]) {
			t.Errorf("read %d of reader %d: %d bytes at %d differ", i, seed, n, off)
			return
		}
	}
	if err := d.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, want) {
		t.Errorf("the whole disk: %v", err)
	}
}

// gated holds up reads of a source until it is opened.
type gated struct {
	arrived chan int64
	open    chan struct{}
}

func newGated() *gated { return &gated{make(chan int64, 1000), make(chan struct{})} }

func (g *gated) before(ctx context.Context, off int64) error {
	g.arrived <- off
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestAClusterWantedByManyIsDecodedOnce(t *testing.T) {
	for _, cache := range []int64{0, 16 << 20} {
		for _, n := range []int64{4 << 10, 64 << 10} { // a part, all of it
			l, host, want := clustered(formats.Deflate, 64<<10, 2)
			g := newGated()
			src := &memSource{data: host, before: g.before}
			e := newTestEngine(t, Options{CacheBytes: cache})
			d := openTable(t, e, l, src)
			var wg sync.WaitGroup
			read := func() {
				p := make([]byte, n)
				if err := d.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, want[:n]) {
					t.Errorf("cache %d, %d bytes: %v", cache, n, err)
				}
			}
			wg.Go(read)
			<-g.arrived
			for range 20 {
				wg.Go(read)
			}
			waitFor(t, func() bool { return waiting(e, d, 0) == 20 })
			close(g.open)
			wg.Wait()
			if got := src.reads.Load(); got != 1 {
				t.Errorf("cache %d, %d bytes: 21 readers of one cluster caused %d fetches", cache, n, got)
			}
		}
	}
}

// waiting is how many wait for cluster i of d.
func waiting(e *Engine, d *Disk, i int) int {
	x := d.layout.(*tableLayout).extents[i]
	k := (&placed{x, d.srcs[0]}).key()
	sh := e.clusters.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if f := sh.flights[k]; f != nil {
		return f.waiters
	}
	return -1
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	for range 10000 {
		if cond() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("waited in vain")
}

func TestAWaiterWhoseContextEndsLeavesAndTheOthersStay(t *testing.T) {
	l, host, want := clustered(formats.Zlib, 64<<10, 1)
	g := newGated()
	src := &memSource{data: host, before: g.before}
	e := newTestEngine(t, Options{CacheBytes: 16 << 20})
	d := openTable(t, e, l, src)

	leaderCtx, leaderEnds := context.WithCancel(context.Background())
	waiterCtx, waiterEnds := context.WithCancel(context.Background())
	leader, waiter, other := make(chan error, 1), make(chan error, 1), make(chan error, 1)
	go func() { leader <- d.ReadAt(leaderCtx, make([]byte, 100), 0) }()
	<-g.arrived
	go func() { waiter <- d.ReadAt(waiterCtx, make([]byte, 100), 0) }()
	p := make([]byte, 4096)
	go func() { other <- d.ReadAt(context.Background(), p, 0) }()
	waitFor(t, func() bool { return waiting(e, d, 0) == 2 })
	waiterEnds()
	if err := <-waiter; !errors.Is(err, context.Canceled) {
		t.Errorf("the waiter that left: %v", err)
	}
	leaderEnds() // one is left who wants it: it goes on
	close(g.open)
	if err := <-other; err != nil || !bytes.Equal(p, want[:4096]) {
		t.Errorf("the waiter that stayed: %v", err)
	}
	<-leader
	if got := src.reads.Load(); got != 1 {
		t.Errorf("%d fetches", got)
	}
	b := e.clusters.hit((&placed{l.extents[0], d.srcs[0]}).key(), false)
	defer b.release()
	if n := b.refs.Load(); n != 2 { // the cache, and this
		t.Errorf("the cluster is held %d times", n)
	}
}

func TestAFlightIsStoppedWhenTheLastOneLeaves(t *testing.T) {
	l, host, want := clustered(formats.Zlib, 64<<10, 1)
	g := newGated()
	src := &memSource{data: host, before: g.before}
	e := newTestEngine(t, Options{CacheBytes: 16 << 20})
	d := openTable(t, e, l, src)
	ctx, end := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- d.ReadAt(ctx, make([]byte, 100), 0) }()
	<-g.arrived
	go func() { done <- d.ReadAt(ctx, make([]byte, 100), 0) }()
	waitFor(t, func() bool { return waiting(e, d, 0) == 1 })
	end()
	for range 2 { // the gate is still shut: only the context can end the fetch
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	close(g.open)
	p := make([]byte, 64<<10)
	if err := d.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, want) {
		t.Errorf("a read after that: %v", err)
	}
}

// Waiters of a flight whose leader failed for being stopped try on their own,
// and find what another one of them has decoded by then.
func TestWaitersOfAStoppedFlightTryAgain(t *testing.T) {
	l, host, want := clustered(formats.Zlib, 64<<10, 1)
	var stopped atomic.Bool
	g := newGated()
	src := &memSource{data: host, before: func(ctx context.Context, off int64) error {
		if stopped.CompareAndSwap(false, true) {
			g.before(ctx, off)
			return fmt.Errorf("asked the server: %w", context.Canceled)
		}
		return nil
	}}
	e := newTestEngine(t, Options{CacheBytes: 16 << 20})
	d := openTable(t, e, l, src)
	leader := make(chan error, 1)
	go func() { leader <- d.ReadAt(context.Background(), make([]byte, 100), 0) }()
	<-g.arrived
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			p := make([]byte, 4096)
			if err := d.ReadAt(context.Background(), p, 8192); err != nil || !bytes.Equal(p, want[8192:8192+4096]) {
				t.Errorf("a waiter: %v", err)
			}
		})
	}
	waitFor(t, func() bool { return waiting(e, d, 0) == 10 })
	close(g.open)
	wg.Wait()
	if err := <-leader; !errors.Is(err, context.Canceled) {
		t.Errorf("the leader: %v", err)
	}
	if got := src.reads.Load(); got != 2 {
		t.Errorf("%d fetches", got)
	}
}

func TestACorruptClusterFailsItsReadersOnly(t *testing.T) {
	for _, codec := range []formats.Codec{formats.Deflate, formats.Zlib, formats.Zstd, formats.VMDKGrain} {
		l, host, want := clustered(codec, 64<<10, 8)
		bad := l.extents[3]
		for i := bad.Pos; i < bad.Pos+bad.N; i++ {
			host[i] = 0xFF
		}
		for _, cache := range []int64{0, 16 << 20} {
			d := openTable(t, newTestEngine(t, Options{CacheBytes: cache}), l, &memSource{data: host})
			p := make([]byte, len(want))
			for range 2 { // an error is not cached as data
				if err := d.ReadAt(context.Background(), p, 0); !errors.Is(err, formats.ErrCorrupt) {
					t.Errorf("%v: the whole disk: %v", codec, err)
				}
				if err := d.ReadAt(context.Background(), p[:4096], bad.Off+512); !errors.Is(err, formats.ErrCorrupt) {
					t.Errorf("%v: the corrupt cluster: %v", codec, err)
				}
				for i, x := range l.extents {
					err := d.ReadAt(context.Background(), p[:x.Len], x.Off)
					if i != 3 && (err != nil || !bytes.Equal(p[:x.Len], want[x.Off:x.End()])) {
						t.Errorf("%v: cluster %d beside the corrupt one: %v", codec, i, err)
					}
				}
			}
		}
	}
}

func TestAFailedSourceReadIsToldAndNotKept(t *testing.T) {
	l, host, want := clustered(formats.Zstd, 64<<10, 4)
	broken := errors.New("broken")
	var fails atomic.Bool
	fails.Store(true)
	src := &memSource{data: host, before: func(context.Context, int64) error {
		if fails.Load() {
			return broken
		}
		return nil
	}}
	d := openTable(t, newTestEngine(t, Options{CacheBytes: 16 << 20}), l, src)
	p := make([]byte, len(want))
	if err := d.ReadAt(context.Background(), p, 0); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	fails.Store(false)
	if err := d.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, want) {
		t.Errorf("when the source is well again: %v", err)
	}
}

func TestNeighbouringClustersAreFetchedTogether(t *testing.T) {
	l, host, _ := clustered(formats.Deflate, 64<<10, 16)
	src := &memSource{data: host}
	d := openTable(t, newTestEngine(t, Options{}), l, src)
	if err := d.ReadAt(context.Background(), make([]byte, 15*64<<10), 32<<10); err != nil {
		t.Fatal(err)
	}
	if got := src.reads.Load(); got != 1 {
		t.Errorf("16 neighbours took %d reads", got)
	}

	// What lies far apart is not fetched with all that is between.
	l, host, _ = clustered(formats.Deflate, 4096, 2)
	far := int64(256 << 10)
	l.extents[1].Pos = far
	apart := append(host, make([]byte, far)...)
	copy(apart[far:], host[l.extents[0].N:])
	src = &memSource{data: apart}
	d = openTable(t, newTestEngine(t, Options{}), l, src)
	if err := d.ReadAt(context.Background(), make([]byte, 8192), 0); err != nil {
		t.Fatal(err)
	}
	if got := src.reads.Load(); got != 2 {
		t.Errorf("2 clusters that lie apart took %d reads", got)
	}
}

func TestMapsThatMakeNoSenseAreRefused(t *testing.T) {
	e := newTestEngine(t, Options{CacheBytes: 1 << 20})
	for what, c := range map[string]struct {
		x    formats.Extent
		want error
	}{
		"past the end of the source": {formats.Extent{Len: 4096, Kind: formats.Data, Pos: 9000, N: 4096}, formats.ErrCorrupt},
		"negative":                   {formats.Extent{Len: 4096, Kind: formats.Data, Pos: -1, N: 4096}, formats.ErrCorrupt},
		"overflow":                   {formats.Extent{Len: 4096, Kind: formats.Data, Pos: 1<<63 - 1, N: 4096}, formats.ErrCorrupt},
		"no such source":             {formats.Extent{Len: 4096, Kind: formats.Data, Src: 1, N: 4096}, formats.ErrCorrupt},
		"no such kind":               {formats.Extent{Len: 4096, Kind: 9, N: 4096}, formats.ErrCorrupt},
		"shorter than asked":         {formats.Extent{Len: 2048, Kind: formats.Zero}, formats.ErrCorrupt},
		"skips past the cluster":     {formats.Extent{Len: 4096, Kind: formats.Compressed, N: 100, Skip: 1, Full: 4096, Codec: formats.Deflate}, formats.ErrCorrupt},
		"skip overflows":             {formats.Extent{Len: 4096, Kind: formats.Compressed, N: 100, Skip: 1<<63 - 1, Full: 4096, Codec: formats.Deflate}, formats.ErrCorrupt},
		"huge cluster":               {formats.Extent{Len: 4096, Kind: formats.Compressed, N: 100, Full: 1 << 40, Codec: formats.Deflate}, formats.ErrLimit},
		"no codec":                   {formats.Extent{Len: 4096, Kind: formats.Compressed, N: 100, Full: 4096}, formats.ErrUnsupported},
	} {
		d := openTable(t, e, &tableLayout{size: 4096, extents: []formats.Extent{c.x}}, &memSource{data: make([]byte, 10000)})
		if err := d.ReadAt(context.Background(), make([]byte, 4096), 0); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", what, err, c.want)
		}
		// No more than the codec is left for the decoder to find.
		err := d.Extents(context.Background(), 0, 4096, func(formats.Extent) bool { return true })
		if c.want != formats.ErrUnsupported && !errors.Is(err, c.want) {
			t.Errorf("%s: the map is taken: %v, want %v", what, err, c.want)
		}
	}
}

func TestRangesOutsideTheDiskAreRefused(t *testing.T) {
	l, host, _ := clustered(formats.Deflate, 4096, 2)
	d := openTable(t, newTestEngine(t, Options{}), l, &memSource{data: host})
	for _, off := range []int64{-1, 8192 - 99, 1 << 62, 1<<63 - 1} {
		if err := d.ReadAt(context.Background(), make([]byte, 100), off); !errors.Is(err, formats.ErrRange) {
			t.Errorf("100 bytes at %d: %v", off, err)
		}
	}
	if err := d.ReadAt(context.Background(), nil, 8192); err != nil {
		t.Errorf("nothing at the end: %v", err)
	}
}

func TestAfterCloseEveryCallFails(t *testing.T) {
	l, host, _ := clustered(formats.Deflate, 64<<10, 4)
	g := newGated()
	src := &memSource{data: host, before: g.before}
	e := New(Options{CacheBytes: 16 << 20})
	d := openTable(t, e, l, src)
	d.Prefetch(0, 4*64<<10) // under way, and stuck: Close stops it
	<-g.arrived
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !src.closed.Load() {
		t.Error("the source is still open")
	}
	if err := d.ReadAt(context.Background(), make([]byte, 1), 0); !errors.Is(err, formats.ErrClosed) {
		t.Errorf("ReadAt: %v", err)
	}
	if err := d.Extents(context.Background(), 0, 1, func(formats.Extent) bool { return true }); !errors.Is(err, formats.ErrClosed) {
		t.Errorf("Extents: %v", err)
	}
	if err := d.Plan(context.Background(), new(Plan), 0, 1, PlanOptions{}); !errors.Is(err, formats.ErrClosed) {
		t.Errorf("Plan after Close: %v", err)
	}
	d.Prefetch(0, 1)
	if err := d.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

// The cache, what is being worked on and what is kept of closed disks stay
// within the budget while many disks are read at once.
func TestTheBudgetIsKept(t *testing.T) {
	const budget = 8 << 20
	e := newTestEngine(t, Options{CacheBytes: budget, BufferBytes: 2 << 20})
	l, host, want := clustered(formats.Zstd, 64<<10, 40)
	var disks []*Disk
	for range 10 {
		disks = append(disks, openTable(t, e, l, &memSource{data: host}))
	}
	var wg sync.WaitGroup
	for i, d := range disks {
		wg.Go(func() {
			r := rand.New(rand.NewSource(int64(i)))
			p := make([]byte, 4096)
			for range 200 {
				off := r.Int63n(int64(len(want)) - 4096)
				if err := d.ReadAt(context.Background(), p, off); err != nil || !bytes.Equal(p, want[off:off+4096]) {
					t.Errorf("disk %d: %v", i, err)
				}
				if used := cacheUsed(e); used > budget {
					t.Errorf("%d bytes are cached, of %d", used, budget)
				}
			}
		})
	}
	wg.Wait()
	if cacheUsed(e) < budget/2 {
		t.Errorf("only %d bytes are cached: the test shows nothing", cacheUsed(e))
	}
	if e.working.Free() != 2<<20 {
		t.Error("working memory was not given back")
	}
	for _, d := range disks {
		d.Close()
	}
	if used := cacheUsed(e); used != 0 {
		t.Errorf("closed disks hold %d bytes", used)
	}
}

func TestAClusterLargerThanTheCacheIsNotKept(t *testing.T) {
	l, host, want := clustered(formats.Zstd, 64<<10, 2)
	e := newTestEngine(t, Options{CacheBytes: 60 << 10})
	d := openTable(t, e, l, &memSource{data: host})
	p := make([]byte, 4096)
	if err := d.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, want[:4096]) {
		t.Fatal(err)
	}
	if used := cacheUsed(e); used != 0 {
		t.Errorf("%d bytes are cached", used)
	}
}

func cacheUsed(e *Engine) (n int64) {
	for i := range e.clusters.shards {
		sh := &e.clusters.shards[i]
		sh.mu.Lock()
		n += sh.cache.used
		sh.mu.Unlock()
	}
	return n
}
