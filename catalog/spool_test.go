package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"
	"time"

	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/catalog/records"
	"glanced/formats/container"
)

// awaitSpooled waits until there are n files in the spool below dir.
func awaitSpooled(t *testing.T, dir string, n int) {
	t.Helper()
	for limit := time.Now().Add(patience); spooled(t, dir) != n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited %v; %d files are in the spool, want %d", patience, spooled(t, dir), n)
		}
	}
}

// deafAt is a database that hides the log of changes from a daemon while it is told to.
type deafAt struct {
	records.DB
	deaf atomic.Bool
}

func (d *deafAt) View(ctx context.Context, what string, do func(records.Tx) error) error {
	if d.deaf.Load() && what == "read the log of changes" {
		return records.ErrUnreachable
	}
	return d.DB.View(ctx, what, do)
}

// cutLog makes so many changes that the log no longer tells of earlier ones.
func cutLog(t *testing.T, w *world) {
	t.Helper()
	img := w.queued(t, "raw", "bare")
	for i := range 600 {
		w.rename(t, img.ID, fmt.Sprint("name ", i))
	}
}

// What a daemon has decompressed goes when another one deletes the image: at once, and
// where it hears of that so late that the log no longer tells.
func TestTheSpoolLetsGoOfWhatAnotherDaemonDeletes(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprint("late: ", late), func(t *testing.T) {
			dir, own := t.TempDir(), t.TempDir()
			other := openWorld(t, dir, func(cfg *catalog.Config) { cfg.Node, cfg.Shared, cfg.ChangeLog = "other", true, 10 })
			db := &deafAt{}
			w := openWorld(t, dir, func(cfg *catalog.Config) {
				withContainers(t, cfg, own)
				db.DB = cfg.Records
				cfg.Records, cfg.Shared = db, true
			})
			kept := w.active(t, "raw", "compressed", zipped(t, noise(1, 5000)))
			gone := w.active(t, "raw", "compressed", zipped(t, noise(2, 5000)))
			if n := spooled(t, own); n != 2 {
				t.Fatalf("%d files are in the spool, of 2 images", n)
			}
			db.deaf.Store(late)
			if err := other.Delete(t.Context(), gone.ID); err != nil {
				t.Fatal(err)
			}
			if late {
				cutLog(t, other)
			}
			db.deaf.Store(false)
			awaitSpooled(t, own, 1)
			w.wantGuest(t, kept.ID, noise(1, 5000))
		})
	}
}

// heldSpool stops once, before it decompresses or when it has.
type heldSpool struct {
	catalog.Spool
	before, after atomic.Bool
	stopped, wake chan struct{}
}

func newHeldSpool() *heldSpool {
	return &heldSpool{stopped: make(chan struct{}), wake: make(chan struct{})}
}

func (s *heldSpool) For(project, key string) container.Spool {
	spool := s.Spool.For(project, key)
	return func(ctx context.Context, fill func(context.Context, io.Writer) error) (stored.Bytes, error) {
		s.stop(&s.before)
		b, err := spool(ctx, fill)
		s.stop(&s.after)
		return b, err
	}
}

func (s *heldSpool) stop(here *atomic.Bool) {
	if here.Swap(false) {
		close(s.stopped)
		<-s.wake
	}
}

// Who hears so late of what another daemon did that all of the spool is swept, takes nothing
// from an image that is just being taken in.
func TestASweepOfTheSpoolSparesUploads(t *testing.T) {
	dir, own := t.TempDir(), t.TempDir()
	other := openWorld(t, dir, func(cfg *catalog.Config) { cfg.Node, cfg.Shared, cfg.ChangeLog = "other", true, 10 })
	db, held := &deafAt{}, newHeldSpool()
	w := openWorld(t, dir, func(cfg *catalog.Config) {
		withContainers(t, cfg, own)
		held.Spool, db.DB = cfg.Spool, cfg.Records
		cfg.Spool, cfg.Records, cfg.Shared = held, db, true
	})
	gone := w.active(t, "raw", "compressed", zipped(t, noise(1, 5000)))
	img := w.queued(t, "raw", "compressed")
	held.after.Store(true)
	ended := make(chan error, 1)
	go func() {
		ended <- w.Upload(context.Background(), img.ID, bytes.NewReader(zipped(t, noise(2, 5000))), catalog.UploadOptions{Size: -1})
	}()
	wantClosed(t, held.stopped, "the upload to be decompressed")
	db.deaf.Store(true)
	if err := other.Delete(t.Context(), gone.ID); err != nil {
		t.Error(err)
	}
	cutLog(t, other)
	db.deaf.Store(false)
	awaitSpooled(t, own, 1)
	close(held.wake)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := spooled(t, own); n != 1 {
		t.Errorf("%d files are in the spool, of 1 image", n)
	}
	w.wantGuest(t, img.ID, noise(2, 5000))
}

// An image is deleted before its opening comes to decompress it: nothing stays of that.
func TestWhatIsDecompressedAfterItsDeletionDoesNotStay(t *testing.T) {
	dir, own := t.TempDir(), t.TempDir()
	before := openWorld(t, dir, func(cfg *catalog.Config) { withContainers(t, cfg, t.TempDir()) })
	img := before.active(t, "raw", "compressed", zipped(t, noise(1, 5000)))
	before.Close()
	held := newHeldSpool()
	held.before.Store(true)
	w := openWorld(t, dir, func(cfg *catalog.Config) {
		withContainers(t, cfg, own)
		held.Spool = cfg.Spool
		cfg.Spool = held
	})
	opened := make(chan error, 1)
	go func() {
		_, err := w.Open(context.Background(), img.ID, catalog.View{})
		opened <- err
	}()
	wantClosed(t, held.stopped, "the image to be decompressed")
	err := w.Delete(t.Context(), img.ID)
	close(held.wake)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-opened; !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("the opening: %v", err)
	}
	if n := spooled(t, own); n != 0 {
		t.Errorf("%d files stay in the spool", n)
	}
}
