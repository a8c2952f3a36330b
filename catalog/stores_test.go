package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/file"
	"glanced/catalog"
	"glanced/contrib/testbed"
)

// failing makes the store of a Config fail where fail says so.
func failing(fail func(backendtest.Op) error) func(*catalog.Config) {
	return func(cfg *catalog.Config) {
		withTiny(cfg)
		cfg.Stores[0].Store = backendtest.Faulty{Store: cfg.Stores[0].Store, Fail: fail}
	}
}

// restart ends w's catalog, and starts one with the same database and stores,
// which change may edit.
func (w *world) restart(t *testing.T, change func(*catalog.Config)) {
	t.Helper()
	w.Catalog.Close()
	cfg := w.cfg
	cfg.Stores = []catalog.StoreEntry{{ID: "local", Type: "file", Store: w.store, Default: true}}
	if change != nil {
		change(&cfg)
	}
	c, err := catalog.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.Catalog = c
}

func TestAStoreThatFailsAnUploadKeepsNothing(t *testing.T) {
	cable := errors.New("somebody pulled the cable")
	for _, op := range []backendtest.Op{backendtest.OpBegin, backendtest.OpWrite, backendtest.OpCommit, backendtest.OpOpen, backendtest.OpRead} {
		t.Run(string(op), func(t *testing.T) {
			var broken atomic.Bool
			w := newWorld(t, failing(func(o backendtest.Op) error {
				if o == op && broken.Load() {
					return cable
				}
				return nil
			}))
			content := tinyImage('g', 1<<20)
			img := w.queued(t, "vhd", "bare")
			broken.Store(true)
			for range 2 {
				err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1})
				wantErr(t, err, catalog.ErrStore)
				wantErr(t, err, cable)
				w.wantUntouched(t, img.ID)
			}
			broken.Store(false)
			if err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1}); err != nil {
				t.Fatal(err)
			}
			w.wantStored(t, img.ID, content)
		})
	}
}

func TestWhyAStoreRefusedIsTold(t *testing.T) {
	var why error
	w := newWorld(t, failing(func(o backendtest.Op) error {
		if o == backendtest.OpWrite {
			return fmt.Errorf("write: %w", why)
		}
		return nil
	}))
	img := w.queued(t, "raw", "bare")
	for _, c := range []struct{ says, want error }{
		{backends.ErrFull, catalog.ErrStoreFull},
		{backends.ErrReadOnly, catalog.ErrStoreDenied},
		{backends.ErrShort, catalog.ErrBodySize},
		{backends.ErrLong, catalog.ErrBodySize},
		{backends.ErrUnavailable, catalog.ErrStore},
	} {
		why = c.says
		err := w.Upload(t.Context(), img.ID, strings.NewReader("x"), catalog.UploadOptions{Size: -1})
		wantErr(t, err, c.want)
		wantErr(t, err, c.says)
		w.wantUntouched(t, img.ID)
	}
}

func TestAStoreThatCannotTakeUploadsIsNotAskedTo(t *testing.T) {
	w := newWorld(t, func(cfg *catalog.Config) {
		shelf := cfg.Stores[0]
		shelf.ID, shelf.Default, shelf.ReadOnly = "shelf", false, true
		cfg.Stores = append(cfg.Stores, shelf)
	})
	img := w.queued(t, "raw", "bare")
	for store, want := range map[string]error{"shelf": catalog.ErrStoreReadOnly, "kho ảnh": catalog.ErrUnknownStore} {
		body := iotest.ErrReader(errors.New("the body was read"))
		err := w.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: -1, Store: store})
		wantErr(t, err, want)
		if err == nil || !strings.Contains(err.Error(), store) {
			t.Errorf("error %v does not name the store", err)
		}
		w.wantUntouched(t, img.ID)
	}
}

func TestAFullStoreTakesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=4m"); err != nil {
		testbed.Unable(t, fmt.Sprintf("cannot mount: %v; run this test as root", err))
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	small, err := file.Open(file.Config{ID: "small", Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	w := newWorld(t, func(cfg *catalog.Config) {
		cfg.Stores = append(cfg.Stores, catalog.StoreEntry{ID: "small", Store: small})
	})
	for _, announced := range []int64{-1, 6 << 20} {
		img := w.queued(t, "raw", "bare")
		err := w.Upload(t.Context(), img.ID, bytes.NewReader(noise(1, 6<<20)), catalog.UploadOptions{Size: announced, Store: "small"})
		wantErr(t, err, catalog.ErrStoreFull)
		w.wantUntouched(t, img.ID)
		if u, err := small.Usage(t.Context()); err != nil || u.Free < 4<<20-64<<10 {
			t.Errorf("after the failure: %d of %d bytes are free, %v", u.Free, u.Total, err)
		}
	}
	img := w.queued(t, "raw", "bare")
	if err := w.Upload(t.Context(), img.ID, bytes.NewReader(noise(1, 3<<20)), catalog.UploadOptions{Size: -1, Store: "small"}); err != nil {
		t.Errorf("what fits: %v", err)
	}
}

// undeletable is a store whose deletions fail until they are allowed.
type undeletable struct{ allowed atomic.Bool }

func (u *undeletable) fail(op backendtest.Op) error {
	if (op == backendtest.OpDelete || op == backendtest.OpAbandon) && !u.allowed.Load() {
		return errors.New("the store does not delete today")
	}
	return nil
}

func TestDataThatCannotBeRemovedIsRemovedLater(t *testing.T) {
	content := tinyImage('c', 1<<20)
	// refused is a world that could not remove a refused upload's data.
	refused := func(t *testing.T) (*world, catalog.Image, *undeletable) {
		var store undeletable
		w := newWorld(t, failing(store.fail))
		img := w.queued(t, "vhd", "bare")
		err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1})
		wantErr(t, err, catalog.ErrUnsafe)
		if got := w.get(t, img.ID); got.Status != catalog.Queued || len(got.Claims) != 1 || got.Reserved != 0 {
			t.Errorf("after the failure: %+v", got)
		}
		return w, img, &store
	}
	t.Run("at the next start", func(t *testing.T) {
		w, img, _ := refused(t)
		w.restart(t, withTiny)
		w.wantUntouched(t, img.ID)
	})
	t.Run("at the start after a start that could not either", func(t *testing.T) {
		w, img, store := refused(t)
		w.restart(t, failing(store.fail))
		if got := w.get(t, img.ID); got.Status != catalog.Queued || len(got.Claims) != 1 {
			t.Errorf("after the first start: %+v", got)
		}
		w.restart(t, withTiny)
		w.wantUntouched(t, img.ID)
	})
	t.Run("by the next upload", func(t *testing.T) {
		w, img, store := refused(t)
		good := tinyImage('g', 1<<20)
		err := w.Upload(t.Context(), img.ID, bytes.NewReader(good), catalog.UploadOptions{Size: -1})
		wantErr(t, err, catalog.ErrStore)
		store.allowed.Store(true)
		if err := w.Upload(t.Context(), img.ID, bytes.NewReader(good), catalog.UploadOptions{Size: -1}); err != nil {
			t.Fatal(err)
		}
		w.wantStored(t, img.ID, good)
	})
	t.Run("after two uploads that could not", func(t *testing.T) {
		w, img, _ := refused(t)
		err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1})
		wantErr(t, err, catalog.ErrStore)
		w.restart(t, withTiny)
		w.wantUntouched(t, img.ID)
	})
	t.Run("when its image is deleted", func(t *testing.T) {
		w, img, store := refused(t)
		if err := w.Delete(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
		w.restart(t, failing(store.fail))
		w.restart(t, withTiny)
		w.wantNothingStored(t)
	})
	t.Run("that of a deleted image", func(t *testing.T) {
		var store undeletable
		w := newWorld(t, failing(store.fail))
		img := w.active(t, "vhd", "bare", tinyImage('g', 1<<20))
		if err := w.Delete(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
		if u, err := w.records.Usage(t.Context(), "p"); err != nil || u != (catalog.Usage{}) {
			t.Errorf("a deleted image counts: %+v, %v", u, err)
		}
		_, err := w.Open(t.Context(), img.ID, catalog.View{})
		wantErr(t, err, catalog.ErrNotFound)
		w.restart(t, failing(store.fail))
		w.restart(t, nil)
		w.wantNothingStored(t)
	})
}

func TestDeletedWhileInspectedIsGone(t *testing.T) {
	var onRead atomic.Pointer[func()]
	w := newWorld(t, failing(func(op backendtest.Op) error {
		if at := onRead.Swap(nil); at != nil && op == backendtest.OpRead {
			(*at)()
		} else if at != nil {
			onRead.Store(at)
		}
		return nil
	}))
	img := w.queued(t, "vhd", "bare")
	at := func() {
		if err := w.Delete(t.Context(), img.ID); err != nil {
			t.Error(err)
		}
	}
	onRead.Store(&at)
	err := w.Upload(t.Context(), img.ID, bytes.NewReader(tinyImage('g', 1<<20)), catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrGone)
	w.wantNothingStored(t)
}

// A reader that comes while an image goes is told what one after it is told, not
// that the store has lost something.
func TestAnOpenDuringAWithdrawalSaysWhatBecameOfTheImage(t *testing.T) {
	for name, c := range map[string]struct {
		withdraw func(*catalog.Catalog, string) error
		want     error
	}{
		"deleted":     {func(c *catalog.Catalog, id string) error { return c.Delete(context.Background(), id) }, catalog.ErrNotFound},
		"deactivated": {func(c *catalog.Catalog, id string) error { return c.Deactivate(context.Background(), id) }, catalog.ErrDeactivated},
	} {
		t.Run(name, func(t *testing.T) {
			var w *world
			var img catalog.Image
			var armed atomic.Bool
			w = newWorld(t, failing(func(op backendtest.Op) error {
				if op == backendtest.OpOpen && armed.CompareAndSwap(true, false) {
					return c.withdraw(w.Catalog, img.ID)
				}
				return nil
			}))
			img = w.active(t, "raw", "bare", []byte("data"))
			armed.Store(true)
			_, err := w.Open(t.Context(), img.ID, catalog.View{Stored: true})
			wantErr(t, err, c.want)
		})
	}
}
