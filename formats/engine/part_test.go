package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"sync"
	"testing"

	"glanced/formats"
)

// Every small read of a cluster that is not kept is right, wherever in the cluster
// it ends: also where the decoder for beginnings leaves it to the one for wholes.
func TestEveryPartOfAClusterThatIsNotKept(t *testing.T) {
	const full = 8 << 10
	r := rand.New(rand.NewSource(3))
	plain := compressible(r, full/2)
	plain = append(plain, plain...) // matches that reach far back
	coded := encode(formats.Deflate, plain)
	l := &tableLayout{size: full, extents: []formats.Extent{{Len: full, Kind: formats.Compressed, N: int64(len(coded)), Codec: formats.Deflate, Full: full}}}
	d := openTable(t, newTestEngine(t, Options{}), l, &memSource{data: coded})
	p := make([]byte, full)
	for end := 1; end <= full; end++ {
		for _, off := range []int{0, max(end-512, 0)} {
			got := p[:end-off]
			clear(got)
			if err := d.ReadAt(context.Background(), got, int64(off)); err != nil || !bytes.Equal(got, plain[off:end]) {
				t.Fatalf("bytes [%d, %d): %v, or other bytes", off, end, err)
			}
		}
	}
}

func TestWhoJoinsBeforeAPartIsDecodedGetsMoreOfIt(t *testing.T) {
	l, host, want := clustered(formats.Deflate, 64<<10, 1)
	g := newGated()
	src := &memSource{data: host, before: g.before}
	e := newTestEngine(t, Options{})
	d := openTable(t, e, l, src)
	var wg sync.WaitGroup
	read := func(off, n int64) {
		p := make([]byte, n)
		if err := d.ReadAt(context.Background(), p, off); err != nil || !bytes.Equal(p, want[off:off+n]) {
			t.Errorf("%d bytes at %d: %v, or other bytes", n, off, err)
		}
	}
	wg.Go(func() { read(4096, 4096) })
	<-g.arrived
	for _, off := range []int64{0, 4096, 40 << 10, 20 << 10} {
		wg.Go(func() { read(off, 4096) })
	}
	waitFor(t, func() bool { return waiting(e, d, 0) == 4 })
	close(g.open)
	wg.Wait()
	if got := src.reads.Load(); got != 1 {
		t.Errorf("5 readers of one cluster caused %d fetches", got)
	}
}

func TestWhoJoinsTooLateForAPartDecodesOnItsOwn(t *testing.T) {
	l, host, want := clustered(formats.Deflate, 64<<10, 1)
	src := &memSource{data: host}
	e := newTestEngine(t, Options{})
	d := openTable(t, e, l, src)
	k := (&placed{l.extents[0], d.srcs[0]}).key()

	f := &fetch{ctx: context.Background()}
	f.wanted.Store(1)
	c := e.clusters.claim(k, f, 100, true)
	if c.led == nil || !c.part {
		t.Fatalf("a part of a cluster that cannot be kept: %+v", c)
	}
	if upto := e.clusters.seal(k, c.led); upto != 100 {
		t.Fatalf("%d bytes are to be decoded, of 100 wanted", upto)
	}
	var wg sync.WaitGroup
	for _, off := range []int64{0, 50, 8192} { // the first has enough of the 100 bytes
		wg.Go(func() {
			p := make([]byte, 50)
			if err := d.ReadAt(context.Background(), p, off); err != nil || !bytes.Equal(p, want[off:off+50]) {
				t.Errorf("50 bytes at %d: %v, or other bytes", off, err)
			}
		})
	}
	waitFor(t, func() bool { return waiting(e, d, 0) == 3 })
	b := e.buffers.get(100)
	copy(b.bytes, want)
	e.clusters.finish(k, c.led, b, nil, nil)
	b.release()
	wg.Wait()
	if got := src.reads.Load(); got != 1 {
		t.Errorf("one reader wanted more than was decoded, and %d fetches came of it", got)
	}
}

// What comes after the part that is wanted is not looked at; who reads on is told.
func TestDamageBehindThePartThatIsRead(t *testing.T) {
	l, host, want := clustered(formats.Deflate, 64<<10, 1)
	cut := host[:len(host)-len(host)/8]
	l.extents[0].N = int64(len(cut))
	d := openTable(t, newTestEngine(t, Options{}), l, &memSource{data: cut})
	p := make([]byte, 64<<10)
	if err := d.ReadAt(context.Background(), p[:4096], 0); err != nil || !bytes.Equal(p[:4096], want[:4096]) {
		t.Errorf("before the damage: %v, or other bytes", err)
	}
	for _, off := range []int64{0, 60 << 10} {
		if err := d.ReadAt(context.Background(), p[:64<<10-off], off); !errors.Is(err, formats.ErrCorrupt) {
			t.Errorf("from %d on: %v, want formats.ErrCorrupt", off, err)
		}
	}
}

// smallCache is a disk of 192 clusters under an engine that keeps 16 of them, which
// is full, and has seen nothing come back.
func smallCache(t *testing.T) (*Disk, *memSource, []byte) {
	l, host, want := clustered(formats.Deflate, 64<<10, 192)
	src := &memSource{data: host}
	d := openTable(t, newTestEngine(t, Options{CacheBytes: 1 << 20, Workers: 1}), l, src)
	p := make([]byte, 4096)
	for i := 191; i >= 64; i-- { // backwards: not a scan
		if err := d.ReadAt(context.Background(), p, int64(i)<<16+8192); err != nil {
			t.Fatal(err)
		}
	}
	src.reads.Store(0)
	return d, src, want
}

func TestAFullCacheKeepsWhatIsWantedAgain(t *testing.T) {
	d, src, want := smallCache(t)
	p := make([]byte, 4096)
	for round := range 3 {
		for i := range 8 {
			off := int64(i*7)<<16 + int64(round)*4096
			if err := d.ReadAt(context.Background(), p, off); err != nil || !bytes.Equal(p, want[off:off+4096]) {
				t.Fatalf("at %d: %v, or other bytes", off, err)
			}
		}
	}
	// The first time in part, the second time whole, and then from the cache.
	if got := src.reads.Load(); got != 16 {
		t.Errorf("8 clusters that were read 3 times took %d fetches, want 16", got)
	}
	if worth := d.e.clusters.shards[0].cache.worth; worth <= -maxWorth {
		t.Errorf("newcomers that all came back are taken for worth %d", worth)
	}
}

// A reader in small steps has each cluster decoded once, also where small reads
// elsewhere decode parts.
func TestASequentialReaderInSmallStepsDecodesEachClusterOnce(t *testing.T) {
	d, src, want := smallCache(t)
	p := make([]byte, 4096)
	for off := int64(0); off < 64<<16; off += 4096 {
		if err := d.ReadAt(context.Background(), p, off); err != nil || !bytes.Equal(p, want[off:off+4096]) {
			t.Fatalf("at %d: %v, or other bytes", off, err)
		}
	}
	// Until it is known for a sequential reader, each cluster is begun and then done.
	if got := src.reads.Load(); got > 64+minScan/(64<<10)+1 {
		t.Errorf("64 clusters in steps of 4 KiB took %d fetches", got)
	}
}
