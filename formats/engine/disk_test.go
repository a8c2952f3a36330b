package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"reflect"
	"testing"

	"glanced/formats"
)

func extentsOf(t *testing.T, d *Disk, off, n int64) (all []formats.Extent) {
	t.Helper()
	if err := d.Extents(context.Background(), off, n, func(x formats.Extent) bool {
		all = append(all, x)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

// chain is a disk over a shorter parent, both in local files.
func chain(t *testing.T) *Disk {
	t.Helper()
	e := newTestEngine(t, Options{CacheBytes: 1 << 20})
	base := openTable(t, e, &tableLayout{size: 10000, extents: []formats.Extent{
		{Off: 0, Len: 4096, Kind: formats.Data, Pos: 512, N: 4096},
		{Off: 4096, Len: 4096, Kind: formats.Absent},
		{Off: 8192, Len: 1808, Kind: formats.Data, Pos: 9000, N: 1808},
	}}, newFileSource(t, make([]byte, 20000)))
	return openTable(t, e, &tableLayout{size: 16384, parent: base, extents: []formats.Extent{
		{Off: 0, Len: 2048, Kind: formats.Absent},
		{Off: 2048, Len: 2048, Kind: formats.Absent},
		{Off: 4096, Len: 1024, Kind: formats.Absent},
		{Off: 5120, Len: 1024, Kind: formats.Zero},
		{Off: 6144, Len: 1024, Kind: formats.Zero},
		{Off: 7168, Len: 512, Kind: formats.Data, Pos: 0, N: 512},
		{Off: 7680, Len: 512, Kind: formats.Data, Pos: 512, N: 512},
		{Off: 8192, Len: 4096, Kind: formats.Absent},
		{Off: 12288, Len: 2048, Kind: formats.Absent},
		{Off: 14336, Len: 1024, Kind: formats.Compressed, Pos: 100, N: 50, Codec: formats.Zstd, Full: 1024},
		{Off: 15360, Len: 1024, Kind: formats.Compressed, Pos: 150, N: 50, Codec: formats.Zstd, Full: 1024},
	}}, newFileSource(t, make([]byte, 4096)))
}

func TestExtentsFollowTheParentsAndMergeNeighbours(t *testing.T) {
	d := chain(t)
	want := []formats.Extent{
		{Off: 0, Len: 4096, Kind: formats.Data, Pos: 512, N: 4096, Depth: 1},
		{Off: 4096, Len: 1024, Kind: formats.Absent},
		{Off: 5120, Len: 2048, Kind: formats.Zero},
		{Off: 7168, Len: 1024, Kind: formats.Data, Pos: 0, N: 1024},
		{Off: 8192, Len: 1808, Kind: formats.Data, Pos: 9000, N: 1808, Depth: 1},
		{Off: 10000, Len: 4336, Kind: formats.Absent}, // the parent is shorter
		{Off: 14336, Len: 1024, Kind: formats.Compressed, Pos: 100, N: 50, Codec: formats.Zstd, Full: 1024},
		{Off: 15360, Len: 1024, Kind: formats.Compressed, Pos: 150, N: 50, Codec: formats.Zstd, Full: 1024},
	}
	if got := extentsOf(t, d, 0, d.Size()); !reflect.DeepEqual(got, want) {
		t.Errorf("the whole disk:\n got %+v\nwant %+v", got, want)
	}
	want = []formats.Extent{{Off: 3000, Len: 1096, Kind: formats.Data, Pos: 3512, N: 1096, Depth: 1}, {Off: 4096, Len: 904, Kind: formats.Absent}}
	if got := extentsOf(t, d, 3000, 2000); !reflect.DeepEqual(got, want) {
		t.Errorf("a part: %+v", got)
	}
	calls := 0
	if err := d.Extents(context.Background(), 0, d.Size(), func(formats.Extent) bool { calls++; return calls < 2 }); err != nil || calls != 2 {
		t.Errorf("yield returned false the second time, and was called %d times: %v", calls, err)
	}
	if err := d.Extents(context.Background(), 1, d.Size(), nil); !errors.Is(err, formats.ErrRange) {
		t.Errorf("past the end: %v", err)
	}
}

func TestAChainThatLeadsBackToItselfIsRefused(t *testing.T) {
	l := &tableLayout{size: 4096, extents: []formats.Extent{{Len: 4096, Kind: formats.Absent}}}
	d := openTable(t, newTestEngine(t, Options{}), l, &memSource{})
	d.parent = d
	if err := d.ReadAt(context.Background(), make([]byte, 1), 0); !errors.Is(err, formats.ErrLimit) {
		t.Errorf("got %v", err)
	}
}

func TestPrefetchedClustersCostNoFetch(t *testing.T) {
	l, host, want := clustered(formats.Zstd, 64<<10, 32)
	src := &memSource{data: host}
	e := newTestEngine(t, Options{CacheBytes: 64 << 20})
	d := openTable(t, e, l, src)
	d.Prefetch(0, d.Size())
	waitFor(t, func() bool { return cacheUsed(e) == d.Size() && len(e.background) == 0 })
	reads := src.reads.Load()
	p := make([]byte, len(want))
	if err := d.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, want) {
		t.Fatal(err)
	}
	if got := src.reads.Load() - reads; got != 0 {
		t.Errorf("%d fetches of what was prefetched", got)
	}
}

func TestASequentialReaderIsReadAheadOf(t *testing.T) {
	l, host, want := clustered(formats.Zstd, 64<<10, 64)
	e := newTestEngine(t, Options{CacheBytes: 64 << 20})
	d := openTable(t, e, l, &memSource{data: host})
	// Another stream and random reads lie between its reads.
	p, q := make([]byte, 32<<10), make([]byte, 512)
	r := rand.New(rand.NewSource(1))
	off := int64(0)
	for ; off < 512<<10; off += int64(len(p)) {
		for _, o := range []int64{3<<20 - off, r.Int63n(512 << 10)} {
			if err := d.ReadAt(context.Background(), q, o); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.ReadAt(context.Background(), p, off); err != nil || !bytes.Equal(p, want[off:off+int64(len(p))]) {
			t.Fatalf("at %d: %v", off, err)
		}
		// A reader that takes its time: nothing is read ahead while more goes on.
		waitFor(t, func() bool { return len(e.background) == 0 && d.calls.n.Load() == 0 })
	}
	next := placed{l.extents[off/(64<<10)+1], d.srcs[0]}
	if led := e.clusters.lead(next.key(), &fetch{}); led != nil {
		t.Error("what the reader is about to read was not decoded")
	}
	if got := cacheUsed(e); got < off+256<<10 {
		t.Errorf("%d bytes are decoded when %d were read", got, off)
	}
}

func TestARemoteSourceIsToldOfWhatASequentialReaderWillRead(t *testing.T) {
	src := &memSource{data: make([]byte, 8<<20)}
	l := &tableLayout{size: 8 << 20, extents: []formats.Extent{{Len: 8 << 20, Kind: formats.Data, N: 8 << 20}}}
	e := newTestEngine(t, Options{})
	d := openTable(t, e, l, src)
	p := make([]byte, 64<<10)
	for _, off := range []int64{5 << 20, 1 << 20, 7 << 20, 0} { // random
		if err := d.ReadAt(context.Background(), p, off); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return len(e.background) == 0 })
	if got := src.asked.Load(); got != 0 {
		t.Errorf("%d bytes were asked for after random reads", got)
	}
	for off := int64(0); off < 1<<20; off += int64(len(p)) {
		if err := d.ReadAt(context.Background(), p, off); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return len(e.background) == 0 && src.asked.Load() > 0 })
	if got := src.asked.Load(); got > 2<<20 {
		t.Errorf("%d bytes were asked for after 1 MiB was read: some twice", got)
	}
}

func TestAScanLeavesTheWorkingSetInTheCache(t *testing.T) {
	const cluster, cached = 64 << 10, 64
	e := newTestEngine(t, Options{CacheBytes: cached * cluster, Workers: 1})
	l, host, _ := clustered(formats.Zstd, cluster, cached/2)
	src := &memSource{data: host}
	hot := openTable(t, e, l, src)
	big, bigHost, _ := clustered(formats.Zstd, cluster, 6*cached)
	scanned := openTable(t, e, big, &memSource{data: bigHost})
	p := make([]byte, 4096)
	touch := func() {
		for round := range int64(4) {
			for i := int64(0); i < cached/2; i++ {
				if err := hot.ReadAt(context.Background(), p, (i*7%(cached/2))*cluster+round*8192); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	touch()
	before := src.reads.Load()
	for off := int64(0); off < big.size; off += 4096 {
		if err := scanned.ReadAt(context.Background(), p, off); err != nil {
			t.Fatal(err)
		}
	}
	touch()
	if again := src.reads.Load() - before; again > cached/8 {
		t.Errorf("after a scan, %d of %d hot clusters had to be decoded again", again, cached/2)
	}
}

// Who bounds the work of one walk by the number of clusters has to know the smallest,
// which may be a parent's.
func TestGranularityIsThatOfTheWholeChain(t *testing.T) {
	e := newTestEngine(t, Options{})
	for _, c := range []struct {
		clusters []int64 // from the bottom
		want     int64
	}{
		{[]int64{0}, 0}, {[]int64{512}, 512}, {[]int64{0, 0}, 0}, {[]int64{512, 0}, 512}, {[]int64{0, 4096}, 4096},
		{[]int64{512, 4096, 65536}, 512}, {[]int64{65536, 4096}, 4096},
	} {
		var d *Disk
		for _, n := range c.clusters {
			d = openTable(t, e, &tableLayout{size: 1 << 20, parent: d, cluster: n}, &memSource{})
		}
		if got := d.Granularity(); got != c.want {
			t.Errorf("of %v from the bottom: %d, want %d", c.clusters, got, c.want)
		}
	}
}
