package cache

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"glanced/backends/backendtest"
)

// holes are the ranges of b that are told as holes.
func holes(t *testing.T, b *reader, off, n int64) (all [][2]int64) {
	t.Helper()
	next := off
	if err := b.Extents(t.Context(), off, n, func(at, n int64, hole bool) bool {
		if at != next || n <= 0 {
			t.Errorf("a run of %d bytes at %d, where %d was next", n, at, next)
		}
		if next = at + n; hole {
			all = append(all, [2]int64{at, n})
		}
		return true
	}); err != nil || next != off+n {
		t.Errorf("the runs of %d bytes at %d end at %d: %v", n, off, next, err)
	}
	return all
}

func TestZerosBecomeHoles(t *testing.T) {
	far := backendtest.NewFar("far")
	dir := t.TempDir()
	c := mustOpen(t, dir, 100)
	s := c.Store(far, Limits{})
	content := backendtest.Noise(1, 40*chunkSize+100)
	clear(content[3*chunkSize : 20*chunkSize])
	clear(content[30*chunkSize+1 : 31*chunkSize]) // not all of it
	clear(content[40*chunkSize:])
	loc, err := backendtest.Put(t.Context(), far, "k", bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]int64{{3 * chunkSize, 17 * chunkSize}, {40 * chunkSize, 100}}

	b := open(t, s, loc)
	wantRead(t, b, content, 0, 10) // the files are there
	settle(t, c)
	// What an earlier life left where nothing is cached is no part of the zeros.
	folder := filepath.Join(c.dir, b.o.name)
	f, err := os.OpenFile(filepath.Join(folder, dataName), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte("rest"), 10*chunkSize/4), 5*chunkSize); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := holes(t, b, 0, b.Size()); got != nil {
		t.Errorf("holes in what is not cached: %v", got)
	}
	for range 2 { // fetched, and from the disk
		wantRead(t, b, content, 0, len(content))
		settle(t, c)
	}
	check := func(b *reader) {
		t.Helper()
		if got := holes(t, b, 0, b.Size()); len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("holes %v, want %v", got, want)
		}
		if got := holes(t, b, 4*chunkSize+5, chunkSize); len(got) != 1 || got[0] != [2]int64{4*chunkSize + 5, chunkSize} {
			t.Errorf("holes of a part: %v", got)
		}
	}
	check(b)
	if disk, most := folderBytes(t, folder), int64(24*chunkSize); disk > most {
		t.Errorf("with 17 of 41 chunks zeros, it takes %d bytes, more than %d", disk, most)
	}

	b.Close()
	c.Close()
	c = mustOpen(t, dir, 100)
	b = open(t, c.Store(far, Limits{}), loc)
	if got := holes(t, b, 0, b.Size()); got != nil {
		t.Errorf("holes in what nobody has looked at since the start: %v", got)
	}
	cost := far.Count(backendtest.OpRead)
	wantRead(t, b, content, 0, len(content))
	check(b)
	if now := far.Count(backendtest.OpRead); now != cost {
		t.Errorf("after a restart, what is cached cost %+v requests, then %+v", cost, now)
	}
	if err := c.Evict(b.Identity()); err != nil {
		t.Fatal(err)
	}
	if got := holes(t, b, 0, b.Size()); got != nil {
		t.Errorf("holes in what was evicted: %v", got)
	}
}
