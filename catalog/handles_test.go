package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glanced/backends/backendtest"
	"glanced/catalog"
	"glanced/formats"
)

// patience is how long a test waits for what must come: it fails then, instead
// of hanging.
const patience = 30 * time.Second

// wantClosed fails unless ch is closed.
func wantClosed(t *testing.T, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
}

// open opens an image; the handle is closed with the test.
func (w *world) open(t *testing.T, id string, v catalog.View) *catalog.Handle {
	t.Helper()
	h, err := w.Open(t.Context(), id, v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func TestHandlesOfOneViewShareADisk(t *testing.T) {
	var opened atomic.Int64
	w := newWorld(t, failing(func(op backendtest.Op) error {
		if op == backendtest.OpOpen {
			opened.Add(1)
		}
		return nil
	}))
	img := w.active(t, "vhd", "bare", tinyImage('g', 1<<20))
	opened.Store(0)
	want := func(n int64) {
		t.Helper()
		if got := opened.Load(); got != n {
			t.Errorf("the store was asked to open %d times, want %d", got, n)
		}
	}
	handles := make([]*catalog.Handle, 16)
	var all sync.WaitGroup
	for i := range handles {
		all.Go(func() {
			h, err := w.Open(t.Context(), img.ID, catalog.View{Stored: i%2 == 1})
			if err != nil {
				t.Error(err)
				return
			}
			handles[i] = h
			if want := []int64{2 << 20, 1<<20 + tinyHead}[i%2]; h.Size() != want {
				t.Errorf("size %d, want %d", h.Size(), want)
			}
		})
	}
	all.Wait()
	want(2) // the guest disk and the stored bytes
	for _, h := range handles[2:] {
		h.Close()
		h.Close() // counts once
	}
	for i, h := range handles[:2] {
		if h.ReadAt(t.Context(), make([]byte, 512), 0) != nil {
			t.Errorf("handle %d was closed with another one", i)
		}
	}
	w.open(t, img.ID, catalog.View{}).Close()
	want(2)
	handles[0].Close()
	w.open(t, img.ID, catalog.View{}).Close() // the last one had left
	want(3)
	handles[1].Close()
}

func TestAnOpenThatFailedIsTriedAgain(t *testing.T) {
	var broken atomic.Bool
	w := newWorld(t, failing(func(op backendtest.Op) error {
		if op == backendtest.OpOpen && broken.Load() {
			return errors.New("no route to the store")
		}
		return nil
	}))
	img := w.active(t, "raw", "bare", []byte("content"))
	broken.Store(true)
	_, err := w.Open(t.Context(), img.ID, catalog.View{})
	wantErr(t, err, catalog.ErrStore)
	broken.Store(false)
	w.wantGuest(t, img.ID, []byte("content"))
}

// Who opens first may hang up; those who wait for the same disk must get it.
func TestAHangUpDoesNotSpoilTheOpenOfOthers(t *testing.T) {
	var hold atomic.Bool
	held, letGo := make(chan struct{}, 9), make(chan struct{})
	w := newWorld(t, failing(func(op backendtest.Op) error {
		if op == backendtest.OpOpen && hold.Load() {
			held <- struct{}{}
			<-letGo
		}
		return nil
	}))
	img := w.active(t, "raw", "bare", []byte("content"))
	hold.Store(true)
	ctx, hangUp := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		h, err := w.Open(ctx, img.ID, catalog.View{})
		if err == nil {
			h.Close()
		}
		first <- err
	}()
	<-held
	go func() {
		h, err := w.Open(t.Context(), img.ID, catalog.View{})
		if err == nil {
			err = h.ReadAt(t.Context(), make([]byte, 7), 0)
			h.Close()
		}
		second <- err
	}()
	hangUp()
	wantErr(t, <-first, context.Canceled)
	close(letGo)
	if err := <-second; err != nil {
		t.Error(err)
	}
}

// readers read at random from h until a read fails; done is closed when all have
// ended. started counts their reads.
func readers(t *testing.T, h *catalog.Handle, content []byte, allowed error) (done chan struct{}, started *atomic.Int64) {
	t.Helper()
	done, started = make(chan struct{}), new(atomic.Int64)
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for {
				off := r.Int64N(int64(len(content)))
				p := make([]byte, r.Int64N(int64(len(content))-off)+1)
				err := h.ReadAt(t.Context(), p, off)
				started.Add(1)
				if err != nil {
					wantErr(t, err, allowed)
					return
				}
				if !bytes.Equal(p, content[off:off+int64(len(p))]) {
					t.Errorf("%d bytes at %d are other bytes", len(p), off)
					return
				}
			}
		})
	}
	go func() { all.Wait(); close(done) }()
	return done, started
}

func waitFor(t *testing.T, n *atomic.Int64, least int64) {
	t.Helper()
	for until := time.Now().Add(patience); n.Load() < least; time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("waited %v for %d reads, there are %d", patience, least, n.Load())
		}
	}
}

func TestReadsEndWhenAnImageIsWithdrawn(t *testing.T) {
	for name, withdraw := range map[string]func(*world, string) error{
		"deactivated": func(w *world, id string) error { return w.Deactivate(context.Background(), id) },
		"deleted":     func(w *world, id string) error { return w.Delete(context.Background(), id) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withTiny)
			image := tinyImage('g', 1<<20)
			img := w.active(t, "vhd", "bare", image)
			guest := w.open(t, img.ID, catalog.View{})
			stored := w.open(t, img.ID, catalog.View{Stored: true})
			done1, n1 := readers(t, guest, append(image[tinyHead:len(image):len(image)], make([]byte, 1<<20)...), catalog.ErrRevoked)
			done2, n2 := readers(t, stored, image, catalog.ErrRevoked)
			waitFor(t, n1, 20)
			waitFor(t, n2, 20)
			if err := withdraw(w, img.ID); err != nil {
				t.Fatal(err)
			}
			wantClosed(t, guest.Revoked(), "the revocation")
			wantClosed(t, stored.Revoked(), "the revocation")
			wantClosed(t, done1, "the readers")
			wantClosed(t, done2, "the readers")
			wantErr(t, guest.Extents(t.Context(), 0, 1, func(formats.Extent) bool { return true }), catalog.ErrRevoked)
			if _, ok := stored.WholeFile(); ok {
				t.Error("a file of a withdrawn image is handed out")
			}
			if err := guest.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestACloseUnderReadsIsSafe(t *testing.T) {
	w := newWorld(t, withTiny)
	image := tinyImage('g', 1<<20)
	img := w.active(t, "vhd", "bare", image)
	for range 5 {
		h := w.open(t, img.ID, catalog.View{Stored: true})
		done, n := readers(t, h, image, formats.ErrClosed)
		waitFor(t, n, 4)
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		wantClosed(t, done, "the readers")
		wantErr(t, h.Extents(t.Context(), 0, 1, func(formats.Extent) bool { return true }), formats.ErrClosed)
		if _, ok := h.WholeFile(); ok {
			t.Error("a file of a closed handle is handed out")
		}
		h.Prefetch(0, 1)
		if h.Size() != int64(len(image)) || h.Image().ID != img.ID {
			t.Error("what was known of the image is lost with the handle")
		}
	}
}

// A read that hangs in the store holds up neither Close nor Deactivate, and ends
// well although its handle and its image are gone.
func TestAHangingReadHoldsNobodyUp(t *testing.T) {
	var hold atomic.Bool
	held, letGo := make(chan struct{}, 99), make(chan struct{})
	w := newWorld(t, failing(func(op backendtest.Op) error {
		if op == backendtest.OpRead && hold.Load() {
			held <- struct{}{}
			<-letGo
		}
		return nil
	}))
	content := noise(1, 4096)
	img := w.active(t, "raw", "bare", content)
	h := w.open(t, img.ID, catalog.View{})
	hold.Store(true)
	p := make([]byte, len(content))
	read := make(chan error, 1)
	go func() { read <- h.ReadAt(t.Context(), p, 0) }()
	<-held
	if err := w.Deactivate(t.Context(), img.ID); err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Error(err)
	}
	close(letGo)
	if err := <-read; err != nil || !bytes.Equal(p, content) {
		t.Errorf("a read that was under way: %v", err)
	}
}

func TestAReactivatedImageOpensAgain(t *testing.T) {
	w := newWorld(t, nil)
	content := noise(1, 100_000)
	img := w.active(t, "raw", "bare", content)
	before := w.open(t, img.ID, catalog.View{})
	for range 3 {
		if err := w.Deactivate(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
		_, err := w.Open(t.Context(), img.ID, catalog.View{})
		wantErr(t, err, catalog.ErrDeactivated)
		admin := w.open(t, img.ID, catalog.View{Deactivated: true})
		if err := w.Reactivate(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, img.ID, content)
		if !bytes.Equal(readAll(t, admin), content) {
			t.Error("an administrator's handle reads other bytes")
		}
	}
	wantErr(t, before.ReadAt(t.Context(), make([]byte, 1), 0), catalog.ErrRevoked)
}

// Opens and withdrawals at once: whoever holds a handle that is not revoked after
// the withdrawal has returned would read a withdrawn image for ever.
func TestNoOpenSlipsPastAWithdrawal(t *testing.T) {
	w := newWorld(t, nil)
	img := w.active(t, "raw", "bare", noise(1, 4096))
	for range 40 {
		var opens sync.WaitGroup
		handles := make(chan *catalog.Handle, 8)
		for range cap(handles) {
			opens.Go(func() {
				h, err := w.Open(t.Context(), img.ID, catalog.View{})
				if err == nil {
					handles <- h
				} else if !errors.Is(err, catalog.ErrDeactivated) {
					wantErr(t, err, catalog.ErrRevoked)
				}
			})
		}
		if err := w.Deactivate(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
		opens.Wait()
		close(handles)
		for h := range handles {
			wantErr(t, h.ReadAt(t.Context(), make([]byte, 1), 0), catalog.ErrRevoked)
			h.Close()
		}
		if err := w.Reactivate(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnotherDaemonsWithdrawalRevokes(t *testing.T) {
	dir := t.TempDir()
	a := openWorld(t, dir, nil)
	b := openWorld(t, dir, func(cfg *catalog.Config) { cfg.Node = "another" })
	content := noise(1, 100_000)
	img := a.active(t, "raw", "bare", content)
	b.wantGuest(t, img.ID, content)

	user, admin := b.open(t, img.ID, catalog.View{}), b.open(t, img.ID, catalog.View{Deactivated: true})
	if err := a.Deactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	_, err := b.Open(t.Context(), img.ID, catalog.View{Stored: true})
	wantErr(t, err, catalog.ErrDeactivated)
	wantClosed(t, user.Revoked(), "the revocation")
	wantErr(t, user.ReadAt(t.Context(), make([]byte, 1), 0), catalog.ErrRevoked)
	if !bytes.Equal(readAll(t, admin), content) {
		t.Error("an administrator's handle reads other bytes")
	}
	if err := a.Reactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	b.wantGuest(t, img.ID, content)
	if err := a.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, admin.Revoked(), "the revocation of an administrator's handle")
	_, err = b.Open(t.Context(), img.ID, catalog.View{Deactivated: true})
	wantErr(t, err, catalog.ErrNotFound)
}
