package cache

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends/backendtest"
	"glanced/backends/stored"
)

func TestTheSizeIsKeptAndWhatIsHeldStays(t *testing.T) {
	far := backendtest.NewFar("far")
	c := mustOpen(t, t.TempDir(), 40)
	s := c.Store(far, Limits{})
	loc, content := put(t, s, "a", 10*chunkSize+100)
	first := open(t, s, loc)
	wantRead(t, first, content, 0, len(content))
	settle(t, c)
	whole, ok := first.WholeFile()
	if !ok {
		t.Fatal("no whole file")
	}
	otherLoc, other := put(t, s, "b", 60*chunkSize)
	b := open(t, s, otherLoc)
	wantRead(t, b, other, 0, 5*chunkSize)
	settle(t, c)
	part, ok := b.FileRange(chunkSize/2, 3*chunkSize)
	if !ok {
		t.Fatal("no range")
	}
	var stop atomic.Bool
	var watch sync.WaitGroup
	watch.Go(func() {
		for !stop.Load() {
			if n := onDisk(t, c); n > c.cfg.Size {
				t.Errorf("%d bytes are used of %d", n, c.cfg.Size)
				return
			}
		}
	})
	var readers sync.WaitGroup
	for i := range 4 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(2, uint64(i)))
			for range 100 {
				off := r.IntN(len(other))
				wantRead(t, b, other, off, r.IntN(min(5*chunkSize, len(other)-off)))
			}
		})
	}
	readers.Wait()
	stop.Store(true)
	watch.Wait()
	settle(t, c)
	if s := c.Stats(); s.Evictions == 0 || s.Unkept != 0 {
		t.Errorf("%+v", s)
	}
	p := make([]byte, whole.Len)
	if _, err := whole.File.ReadAt(p, 0); err != nil || !bytes.Equal(p, content) {
		t.Errorf("the file that is held: %v, or other bytes", err)
	}
	p = make([]byte, part.Len)
	if _, err := part.File.ReadAt(p, part.Pos); err != nil || !bytes.Equal(p, other[part.Pos:][:part.Len]) {
		t.Errorf("the range that is held: %v, or other bytes", err)
	}
	if used, disk := c.Stats().UsedBytes, onDisk(t, c); used != disk {
		t.Errorf("%d bytes are used on disk, and %d are counted", disk, used)
	}

	// All is held: it goes on from memory.
	part.Release()
	whole.Release()
	for _, o := range c.List() {
		c.Evict(o.Identity)
	}
	loc, content = put(t, s, "c", 40*chunkSize)
	third := open(t, s, loc)
	for i := range 40 {
		wantRead(t, third, content, i*chunkSize, chunkSize)
		settle(t, c)
	}
	if whole, ok = third.WholeFile(); !ok {
		t.Fatalf("no whole file: %+v", c.Stats())
	}
	before := c.Stats()
	for range 2 {
		wantRead(t, b, other, 0, 10*chunkSize)
		settle(t, c)
	}
	if s := c.Stats(); s.Unkept-before.Unkept != 20 || s.Evictions != before.Evictions {
		t.Errorf("with all held: %+v, before %+v", s, before)
	}
	whole.Release()
	wantRead(t, b, other, 0, 10*chunkSize)
	settle(t, c)
	if s := c.Stats(); s.Evictions == before.Evictions {
		t.Error("what was given back is not evicted")
	}
}

func TestAScanDoesNotFlushWhatIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := backendtest.NewFar("far")
		dir := t.TempDir()
		c, err := Open(Config{Dir: dir, Size: 100*chunkSize + 64<<10, ChunkSize: chunkSize, Log: new(logged).logger()})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s := c.Store(far, Limits{})
		hotLoc, hot := put(t, s, "hot", 50*chunkSize)
		b, err := s.Open(t.Context(), hotLoc)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		for range 3 {
			wantRead(t, b, hot, 0, len(hot))
			time.Sleep(time.Minute)
		}
		scan := backendtest.Noise(7, 400*chunkSize)
		scanLoc, err := backendtest.Put(t.Context(), s, "scan", bytes.NewReader(scan), -1)
		if err != nil {
			t.Fatal(err)
		}
		sb, err := s.Open(t.Context(), scanLoc)
		if err != nil {
			t.Fatal(err)
		}
		defer sb.Close()
		for off := 0; off < len(scan); off += chunkSize / 4 { // in small steps: each chunk is read four times
			wantRead(t, sb, scan, off, chunkSize/4)
			time.Sleep(time.Millisecond)
		}
		before := far.Count(backendtest.OpRead).Bytes
		wantRead(t, b, hot, 0, len(hot))
		if lost := far.Count(backendtest.OpRead).Bytes - before; lost > 0 {
			t.Errorf("after a scan of four times the cache, %d of the %d chunks in use were gone", lost/chunkSize, 50)
		}
		synctest.Wait()
	})
}

func TestPinEvictFillAndStat(t *testing.T) {
	far := backendtest.NewFar("far")
	dir := t.TempDir()
	c := mustOpen(t, dir, 40)
	s := c.Store(far, Limits{})
	loc, content := put(t, s, "a", 10*chunkSize+100)
	if _, ok := c.Find(loc); ok {
		t.Error("found before it was opened")
	}
	b := open(t, s, loc)
	id, ok := c.Find(loc)
	if !ok || id != b.Identity() {
		t.Fatalf("found %q, %v", id, ok)
	}
	if err := c.Fill(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if o, err := c.Stat(id); err != nil || o.Chunks != 11 || o.AllChunks != 11 || o.FetchedBytes != int64(len(content)) || o.Readers != 1 || o.Place != Place(loc) {
		t.Errorf("%+v, %v", o, err)
	}
	if n := far.Count(backendtest.OpRead).Requests; n != 1 {
		t.Errorf("it came in %d requests", n)
	}
	if err := c.Pin(id, true); err != nil {
		t.Fatal(err)
	}
	b.Close()
	if err := c.Fill(t.Context(), id); err != ErrNotOpen {
		t.Errorf("filled while nobody has it open: %v", err)
	}
	c.Close()

	c = mustOpen(t, dir, 40)
	s = c.Store(far, Limits{})
	if again, ok := c.Find(loc); !ok || again != id {
		t.Errorf("after a restart it is not found")
	}
	if o, err := c.Stat(id); err != nil || !o.Pinned || o.Chunks != 11 {
		t.Errorf("%+v, %v", o, err)
	}
	otherLoc, other := put(t, s, "b", 100*chunkSize)
	ob := open(t, s, otherLoc)
	if err := c.Fill(t.Context(), ob.Identity()); err == nil {
		t.Error("filled with more than fits")
	}
	for range 2 {
		wantRead(t, ob, other, 0, len(other))
	}
	settle(t, c)
	if o, _ := c.Stat(id); o.Chunks != 11 {
		t.Errorf("what is pinned was evicted: %+v", o)
	}
	if err := c.Evict(id); err != nil {
		t.Fatal(err)
	}
	if o, err := c.Stat(id); err != nil || o.Chunks != 0 || !o.Pinned {
		t.Errorf("%+v, %v", o, err)
	}
	if err := c.Pin(id, false); err != nil {
		t.Fatal(err)
	}
	c.tidy()
	if _, err := c.Stat(id); err != ErrUnknown {
		t.Errorf("%v", err)
	}
	for _, err := range []error{c.Pin("no", true), c.Evict("no"), c.Fill(t.Context(), "no")} {
		if err != ErrUnknown {
			t.Errorf("%v", err)
		}
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "v1")); err != nil || len(entries) != 1 {
		t.Errorf("%d folders stay, %v", len(entries), err)
	}
}

func TestManyObjectsShareASmallCache(t *testing.T) {
	far := backendtest.NewFar("far")
	c := mustOpen(t, t.TempDir(), 20)
	s := c.Store(far, Limits{Connections: 3})
	var readers sync.WaitGroup
	for i := range 8 {
		loc, content := put(t, s, fmt.Sprintf("%c", 'a'+i), 10*chunkSize+i)
		readers.Go(func() {
			r := rand.New(rand.NewPCG(3, uint64(i)))
			for range 15 {
				b, err := s.Open(t.Context(), loc)
				if err != nil {
					t.Error(err)
					return
				}
				for range 5 {
					off := r.IntN(len(content))
					n := r.IntN(min(5*chunkSize, len(content)-off))
					if p, ok := b.(stored.FileRanger).FileRange(int64(off), int64(n)+1); ok {
						got := make([]byte, p.Len)
						if _, err := p.File.ReadAt(got, p.Pos); err != nil || !bytes.Equal(got, content[off:off+len(got)]) {
							t.Errorf("a range of %d bytes at %d: %v, or other bytes", p.Len, off, err)
						}
						p.Release()
					}
					b.(stored.Prefetcher).Prefetch(int64(r.IntN(len(content))), int64(r.IntN(len(content))))
					wantRead(t, b, content, off, n)
					if r.IntN(20) == 0 {
						c.Evict(b.Identity())
					}
				}
				b.Close()
			}
		})
	}
	readers.Wait()
	settle(t, c)
	if n := mostConnections(s); n > 3 {
		t.Errorf("%d connections at once, 3 are allowed", n)
	}
	if used, disk := c.Stats().UsedBytes, onDisk(t, c); used != disk || used > c.cfg.Size || c.Stats().MemoryInUse != 0 {
		t.Errorf("%d bytes are used on disk, and %d are counted; %+v", disk, used, c.Stats())
	}
}
