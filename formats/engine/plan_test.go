package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
)

// how is what a test wants of a piece.
type how struct {
	off, len int64
	how      How
	pos      int64 // InFile
}

func planned(p *Plan) (all []how) {
	for _, x := range p.Pieces() {
		h := how{off: x.Off, len: x.Len, how: x.How}
		if x.How == InFile {
			h.pos = x.File.Pos
		}
		all = append(all, h)
	}
	return all
}

func equalPlans(got, want []how) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] != want[i] {
			return false
		}
	}
	return true
}

func TestAPlanSaysHowEachPieceIsComeBy(t *testing.T) {
	d := chain(t)
	for _, c := range []struct {
		off, n int64
		want   []how
	}{
		{7200, 900, []how{{7200, 900, InFile, 32}}},     // two extents that adjoin
		{1000, 2000, []how{{1000, 2000, InFile, 1512}}}, // the parent's
		{4000, 200, []how{{4000, 96, InFile, 4512}, {4096, 104, Zeros, 0}}},
		{14336, 10, []how{{14336, 10, Moved, 0}}},
		{16384, 0, nil},
	} {
		var p Plan
		if err := d.Plan(t.Context(), &p, c.off, c.n, PlanOptions{}); err != nil {
			t.Fatal(err)
		}
		if got := planned(&p); !equalPlans(got, c.want) || p.End() != c.off+c.n {
			t.Errorf("%d bytes at %d: %+v up to %d, want %+v", c.n, c.off, got, p.End(), c.want)
		}
		p.Release()
	}
	var p Plan
	for _, r := range [][2]int64{{-1, 10}, {16384, 1}, {0, 16385}} {
		if err := d.Plan(t.Context(), &p, r[0], r[1], PlanOptions{}); !errors.Is(err, formats.ErrRange) {
			t.Errorf("%d bytes at %d: %v", r[1], r[0], err)
		}
	}
}

// halfLocal is a source of which only the beginning is in a local file.
type halfLocal struct {
	stored.Bytes
	file   stored.FileRanger
	local  int64
	held   atomic.Int64
	handed atomic.Int64
}

func (h *halfLocal) FileRange(off, n int64) (stored.FileRange, bool) {
	if off >= h.local {
		return stored.FileRange{}, false
	}
	r, ok := h.file.FileRange(off, min(n, h.local-off))
	if ok {
		h.held.Add(1)
		h.handed.Add(1)
		r.Hold = h
	}
	return r, ok
}
func (h *halfLocal) Release() { h.held.Add(-1) }

func TestWhatIsHeldIsGivenBack(t *testing.T) {
	data := compressible(rand.New(rand.NewSource(1)), 64<<10)
	file := newFileSource(t, data)
	files, _ := stored.As[stored.FileRanger](file)
	src := &halfLocal{Bytes: &memSource{data: data}, file: files, local: 10000}
	l := &tableLayout{size: 64 << 10, extents: []formats.Extent{{Len: 64 << 10, Kind: formats.Data, N: 64 << 10}}}
	d := openTable(t, newTestEngine(t, Options{}), l, src)
	var p Plan
	if err := d.Plan(t.Context(), &p, 100, 20000, PlanOptions{}); err != nil {
		t.Fatal(err)
	}
	if got, want := planned(&p), []how{{100, 9900, InFile, 100}, {10000, 10100, Moved, 0}}; !equalPlans(got, want) {
		t.Errorf("planned %+v, want %+v", got, want)
	}
	if src.held.Load() != 1 {
		t.Errorf("%d ranges are held during the plan", src.held.Load())
	}
	got := make([]byte, 20000)
	if err := p.ReadInto(t.Context(), got); err != nil || !bytes.Equal(got, data[100:20100]) {
		t.Errorf("read: %v, or other bytes", err)
	}
	mine := p.Pieces()[0].TakeFile()
	p.Release()
	p.Release()
	if src.held.Load() != 1 {
		t.Errorf("%d ranges are held by who took one", src.held.Load())
	}
	mine.Release()
	if err := d.ReadAt(t.Context(), got, 5000); err != nil || !bytes.Equal(got, data[5000:25000]) {
		t.Errorf("read: %v, or other bytes", err)
	}
	d.Prefetch(0, 64<<10)
	d.Close()
	if src.held.Load() != 0 || src.handed.Load() < 2 {
		t.Errorf("%d ranges of %d are held in the end", src.held.Load(), src.handed.Load())
	}
}

// farMap is a layout whose map is one table of its source.
type farMap struct {
	*tableLayout
	tables formats.Tables
}

func (l *farMap) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if _, err := l.tables.Read(ctx, 0, 4096); err != nil {
		return err
	}
	return l.tableLayout.Map(ctx, off, n, yield)
}

func (l *farMap) Close() error { l.tables.Close(); return nil }

func openFar(t *testing.T, e *Engine, l *tableLayout, src stored.Bytes) *Disk {
	t.Helper()
	open := func(_ context.Context, src stored.Bytes, o formats.Options) (formats.Layout, error) {
		return &farMap{l, o.TablesOf(src)}, nil
	}
	d, err := e.Open(t.Context(), formats.Driver{Name: "far", Open: open}, src, OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestAPlanWithoutIOSaysSoBeforeItDoesAny(t *testing.T) {
	l, host, want := clustered(formats.Deflate, 8<<10, 4)
	src := &memSource{data: append(host, make([]byte, 8192)...)}
	d := openFar(t, newTestEngine(t, Options{CacheBytes: 1 << 20, TableBytes: 1 << 20}), l, src)
	var p Plan
	defer p.Release()
	quick := PlanOptions{WithoutIO: true}
	if err := d.Plan(t.Context(), &p, 0, 100, quick); !errors.Is(err, formats.ErrWouldWait) || src.reads.Load() != 0 {
		t.Fatalf("without the table: %v after %d reads", err, src.reads.Load())
	}
	if err := d.Plan(t.Context(), &p, 0, 100, PlanOptions{}); err != nil {
		t.Fatal(err)
	}
	reads := src.reads.Load()
	if err := d.Plan(t.Context(), &p, 0, 100, quick); err != nil || p.Pieces()[0].How != Moved {
		t.Fatalf("with the table: %v, %+v", err, planned(&p))
	}
	got := make([]byte, 100)
	if p.ReadNow(got) || src.reads.Load() != reads {
		t.Errorf("what has to be moved was read at once, by %d reads", src.reads.Load()-reads)
	}
	for range 2 { // a cluster is kept when it comes back
		if err := d.ReadAt(t.Context(), got, 0); err != nil {
			t.Fatal(err)
		}
	}
	reads = src.reads.Load()
	if err := d.Plan(t.Context(), &p, 50, 100, quick); err != nil {
		t.Fatal(err)
	}
	if !p.ReadNow(got) || !bytes.Equal(got, want[50:150]) || src.reads.Load() != reads {
		t.Errorf("a cluster that is cached: %+v, %d reads, or other bytes", planned(&p), src.reads.Load()-reads)
	}
}

// A table of a local file that is in the page cache costs no waiting either.
func TestAPlanWithoutIOReadsTablesFromThePageCache(t *testing.T) {
	l := &tableLayout{size: 8192, extents: []formats.Extent{{Len: 8192, Kind: formats.Data, N: 8192}}}
	data := compressible(rand.New(rand.NewSource(1)), 8192)
	d := openFar(t, newTestEngine(t, Options{TableBytes: 1 << 20}), l, newFileSource(t, data))
	var p Plan
	defer p.Release()
	got := make([]byte, 8192)
	if err := d.Plan(t.Context(), &p, 0, 8192, PlanOptions{WithoutIO: true}); err != nil || !p.ReadNow(got) || !bytes.Equal(got, data) {
		t.Errorf("%v, %+v", err, planned(&p))
	}
}

// A disk of more pieces than a plan has is planned part by part.
func TestAPlanOfVeryManyPiecesGoesAsFarAsItCan(t *testing.T) {
	l := &tableLayout{size: 4 * maxPieces * 512}
	for off := int64(0); off < l.size; off += 1024 {
		l.extents = append(l.extents, formats.Extent{Off: off, Len: 512, Kind: formats.Data, Pos: off, N: 512}, formats.Extent{Off: off + 512, Len: 512, Kind: formats.Zero})
	}
	d := openTable(t, newTestEngine(t, Options{}), l, newFileSource(t, make([]byte, l.size)))
	var p Plan
	defer p.Release()
	off := int64(0)
	for range 4 {
		if err := d.Plan(t.Context(), &p, off, l.size-off, PlanOptions{}); err != nil {
			t.Fatal(err)
		}
		at := off
		for _, x := range p.Pieces() {
			if x.Off != at {
				t.Fatalf("a piece at %d, where %d is next", x.Off, at)
			}
			at = x.End()
		}
		if at != p.End() || p.End() != off+maxPieces*512 {
			t.Fatalf("from %d on the plan ends at %d, its pieces at %d", off, p.End(), at)
		}
		off = at
	}
	if off != l.size {
		t.Errorf("four plans end at %d of %d", off, l.size)
	}
}

func TestOnlyWhatHasADestinationIsRead(t *testing.T) {
	l, host, want := clustered(formats.Deflate, 4096, 8)
	src := &memSource{data: host}
	d := openTable(t, newTestEngine(t, Options{}), l, src)
	var p Plan
	defer p.Release()
	if err := d.Plan(t.Context(), &p, 0, d.Size(), PlanOptions{}); err != nil {
		t.Fatal(err)
	}
	third := make([]byte, 4096)
	p.Pieces()[2].Dst = third
	if err := p.Read(t.Context()); err != nil || !bytes.Equal(third, want[8192:12288]) {
		t.Errorf("%v, or other bytes", err)
	}
	if src.reads.Load() != 1 {
		t.Errorf("%d reads for one cluster", src.reads.Load())
	}
}

func TestAFailedReadSaysWhere(t *testing.T) {
	torn := errors.New("torn")
	src := &memSource{data: make([]byte, 100_000), before: func(_ context.Context, off int64) error {
		if off == 50_000 {
			return torn
		}
		return nil
	}}
	l := &tableLayout{size: 3000, extents: []formats.Extent{
		{Len: 1000, Kind: formats.Data, N: 1000}, {Off: 1000, Len: 1000, Kind: formats.Data, Pos: 50_000, N: 1000}, {Off: 2000, Len: 1000, Kind: formats.Zero},
	}}
	d := openTable(t, newTestEngine(t, Options{}), l, src)
	var failed *ReadError
	if err := d.ReadAt(t.Context(), make([]byte, 2500), 500); !errors.As(err, &failed) || failed.Off != 1000 || !errors.Is(err, torn) {
		t.Errorf("got %v", err)
	}
}

// A disk is not closed under a plan.
func TestCloseWaitsForPlans(t *testing.T) {
	l := &tableLayout{size: 4096, extents: []formats.Extent{{Len: 4096, Kind: formats.Data, N: 4096}}}
	d := openTable(t, newTestEngine(t, Options{}), l, newFileSource(t, make([]byte, 4096)))
	var p Plan
	if err := d.Plan(t.Context(), &p, 0, 4096, PlanOptions{}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { d.Close() })
	var other Plan
	for d.Plan(t.Context(), &other, 0, 1, PlanOptions{}) == nil { // until Close has begun
		other.Release()
	}
	if _, err := p.Pieces()[0].File.File.Stat(); errors.Is(err, os.ErrClosed) {
		t.Error("the file is closed under the plan")
	}
	p.Release()
	wg.Wait()
}

func TestAWarmReadAllocatesNothing(t *testing.T) {
	raw := &tableLayout{size: 1 << 20, extents: []formats.Extent{{Len: 1 << 19, Kind: formats.Data, N: 1 << 19}, {Off: 1 << 19, Len: 1 << 19, Kind: formats.Absent}}}
	coded, host, _ := clustered(formats.Deflate, 64<<10, 16)
	e := newTestEngine(t, Options{CacheBytes: 64 << 20})
	for name, d := range map[string]*Disk{
		"a local file":    openTable(t, e, raw, newFileSource(t, make([]byte, 1<<20))),
		"cached clusters": openTable(t, e, coded, newFileSource(t, host)),
	} {
		p, b := new(Plan), make([]byte, 4096)
		read := func(off int64) {
			if err := d.Plan(context.Background(), p, off, 4096, PlanOptions{WithoutIO: true}); err != nil || !p.ReadNow(b) {
				if err := d.ReadAt(context.Background(), b, off); err != nil {
					t.Fatal(err)
				}
			}
			p.Release()
		}
		for range 3 {
			for off := int64(0); off < d.Size(); off += 4096 {
				read(off)
			}
		}
		off := int64(0)
		if n := testing.AllocsPerRun(200, func() { read(off % d.Size()); off += 36 << 10 / 4096 * 4096 }); n > 0 {
			t.Errorf("%s: %v allocations for a read", name, n)
		}
	}
}

// A plan that has to wait, for a fetch or because its owner does, holds no cached
// clusters meanwhile: the cache may give them up, and nobody would count them.
func TestAPlanThatWaitsHoldsNoClusters(t *testing.T) {
	l, host, want := clustered(formats.Zlib, 64<<10, 2)
	e := newTestEngine(t, Options{CacheBytes: 16 << 20})
	d := openTable(t, e, l, &memSource{data: host})
	if err := d.ReadAt(t.Context(), make([]byte, 100), 0); err != nil {
		t.Fatal(err)
	}
	k := (&placed{l.extents[0], d.srcs[0]}).key()
	holders := func() int32 {
		b := e.clusters.hit(k, false)
		defer b.release()
		return b.refs.Load() - 2 // the cache, and this
	}
	var p Plan
	const edge = 64<<10 - 50
	plan := func(n int64) {
		t.Helper()
		if err := d.Plan(t.Context(), &p, edge, n, PlanOptions{WithoutIO: true}); err != nil {
			t.Fatal(err)
		}
	}
	defer p.Release()
	plan(100)
	if p.Still() || holders() != 0 {
		t.Errorf("a plan of what is cached and what is not: still %v, it holds %d clusters", p.Still(), holders())
	}
	plan(50)
	if !p.Still() || holders() != 1 {
		t.Errorf("a plan of what is cached: still %v, it holds %d clusters", p.Still(), holders())
	}
	p.Unpin()
	if p.Still() || holders() != 0 {
		t.Errorf("unpinned: still %v, it holds %d clusters", p.Still(), holders())
	}
	b := make([]byte, 50)
	if err := p.ReadInto(t.Context(), b); err != nil || !bytes.Equal(b, want[edge:edge+50]) {
		t.Errorf("read: %v, or other bytes", err)
	}
	plan(50)
	if p.Release(); holders() != 0 {
		t.Errorf("released, it holds %d clusters", holders())
	}
}
