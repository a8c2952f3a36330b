package fs

import (
	"math/rand/v2"
	"testing"

	"glanced/catalog"
	"glanced/catalog/access"

	"golang.org/x/sys/unix"
)

// opened is an open file as the kernel would have it.
func (w *world) opened(id string) *openFile {
	w.t.Helper()
	h, err := w.Catalog.Open(w.t.Context(), access.System(), id, catalog.View{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { h.Close() })
	return &openFile{h: h, closed: make(chan struct{})}
}

// What is remembered of earlier seeks never changes an answer.
func TestSeeksInAnyOrderAgreeWithTheMap(t *testing.T) {
	w := newWorld(t)
	data := make([]byte, 64<<20)
	stored := make([]bool, len(data)/mib)
	for _, i := range []int{0, 1, 5, 6, 7, 20, 40, 41, 63} {
		copy(data[i*mib:], random(uint64(i), mib))
		stored[i] = true
	}
	img := w.uploaded("disk", data)
	o := w.opened(img.ID)
	r := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		off := r.IntN(len(data))
		whence, want := unix.SEEK_DATA, off
		if r.IntN(2) == 0 {
			whence = unix.SEEK_HOLE
		}
		for want < len(data) && stored[want/mib] != (whence == unix.SEEK_DATA) {
			want = want/mib*mib + mib
		}
		got, errno := o.Lseek(t.Context(), uint64(off), uint32(whence))
		if whence == unix.SEEK_DATA && want == len(data) {
			if errno != unix.ENXIO {
				t.Fatalf("SEEK_DATA from %d: %d, %v, want ENXIO", off, got, errno)
			}
		} else if errno != 0 || got != uint64(want) {
			t.Fatalf("lseek(%d, %d): %d, %v, want %d", off, whence, got, errno, want)
		}
	}
}

// On its way through a hole, a program asks for its end many times, and the map is
// walked once.
func TestAHoleIsWalkedOnce(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("disk", append(make([]byte, 8*mib), random(1, mib)...))
	o := w.opened(img.ID)
	if at, errno := o.Lseek(t.Context(), 0, unix.SEEK_DATA); at != 8*mib || errno != 0 {
		t.Fatalf("%d, %v", at, errno)
	}
	o.h.Close() // from here on the map cannot be asked
	for off := uint64(0); off < 8*mib; off += mib / 3 {
		if at, errno := o.Lseek(t.Context(), off, unix.SEEK_DATA); at != 8*mib || errno != 0 {
			t.Fatalf("from %d on: %d, %v", off, at, errno)
		}
	}
}
