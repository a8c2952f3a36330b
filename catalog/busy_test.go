package catalog_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"glanced/catalog"
	"glanced/catalog/records"
)

// busyDatabase is busy for so many of the changes that make an image active.
type busyDatabase struct {
	records.DB
	busy  atomic.Int64
	tried chan struct{} // holds one when such a change was tried
}

func (d *busyDatabase) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	return d.DB.Change(ctx, what, func(tx records.Tx) error { return do(busyTx{tx, d}) })
}

type busyTx struct {
	records.Tx
	db *busyDatabase
}

func (t busyTx) Write(ctx context.Context, old, img records.Image) error {
	if img.Status == records.Active && t.db.busy.Add(-1) >= 0 {
		select {
		case t.db.tried <- struct{}{}:
		default:
		}
		return records.ErrBusy
	}
	return t.Tx.Write(ctx, old, img)
}

// makesBusy is the end of a body, by when the database is busy.
type makesBusy struct {
	db *busyDatabase
	n  int64
}

func (m makesBusy) Read([]byte) (int, error) {
	m.db.busy.Store(m.n)
	return 0, io.EOF
}

func busyWorld(t *testing.T) (*world, *busyDatabase) {
	t.Helper()
	var db *busyDatabase
	w := newWorld(t, func(c *catalog.Config) {
		db = &busyDatabase{DB: c.Records, tried: make(chan struct{}, 1)}
		c.Records = db
	})
	return w, db
}

func TestAnUploadWaitsForABusyDatabase(t *testing.T) {
	w, db := busyWorld(t)
	img := w.queued(t, "raw", "bare")
	body := io.MultiReader(strings.NewReader("data"), makesBusy{db, 2})
	if err := w.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: 4}); err != nil {
		t.Fatalf("its bytes were thrown away: %v", err)
	}
	if got := w.get(t, img.ID); got.Status != catalog.Active || got.Node != "" {
		t.Errorf("it is %s, of node %q", got.Status, got.Node)
	}
}

// An upload whose image is deleted while it waits ends, and its record keeps nothing of it.
func TestAnUploadThatWaitsForADatabaseEndsWithItsImage(t *testing.T) {
	w, db := busyWorld(t)
	img := w.queued(t, "raw", "bare")
	ended := make(chan error)
	go func() {
		body := io.MultiReader(strings.NewReader("data"), makesBusy{db, 1 << 40})
		ended <- w.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: 4})
	}()
	<-db.tried
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, catalog.ErrGone) {
		t.Errorf("it ended with %v", err)
	}
	w.wantNothingStored(t)
	if got, err := w.records.Get(t.Context(), img.ID); err != nil || got.Node != "" || got.Reserved != 0 || len(got.Claims) > 0 {
		t.Errorf("the record keeps node %q, %d reserved bytes and claims %v: %v", got.Node, got.Reserved, got.Claims, err)
	}
}

// stuck is a body that never comes.
type stuck struct{ until <-chan struct{} }

func (s stuck) Read([]byte) (int, error) {
	<-s.until
	return 0, errors.New("the client left")
}

func TestUploadsHaveTheirPlacesByProject(t *testing.T) {
	w := newWorld(t, func(c *catalog.Config) {
		c.Uploads, c.UploadWait = 4*catalog.UploadBytes, 100*time.Millisecond
	})
	leave, ended := make(chan struct{}), make(chan error, 2)
	for range 2 {
		img := w.queued(t, "raw", "bare")
		go func() {
			ended <- w.Upload(context.Background(), img.ID, stuck{leave}, catalog.UploadOptions{Size: 4, Project: "greedy"})
		}()
		for w.get(t, img.ID).Status != catalog.Saving {
			time.Sleep(time.Millisecond)
		}
	}
	img := w.queued(t, "raw", "bare")
	err := w.Upload(t.Context(), img.ID, strings.NewReader("data"), catalog.UploadOptions{Size: 4, Project: "greedy"})
	wantErr(t, err, catalog.ErrUploads)
	if got := w.get(t, img.ID); got.Status != catalog.Queued {
		t.Errorf("what had no place is %s", got.Status)
	}
	if err := w.Upload(t.Context(), img.ID, strings.NewReader("data"), catalog.UploadOptions{Size: 4, Project: "other"}); err != nil {
		t.Errorf("another project has no place: %v", err)
	}
	close(leave)
	for range 2 {
		if err := <-ended; !errors.Is(err, catalog.ErrBody) {
			t.Errorf("a stuck upload ended with %v", err)
		}
	}
	img = w.queued(t, "raw", "bare")
	if err := w.Upload(t.Context(), img.ID, strings.NewReader("data"), catalog.UploadOptions{Size: 4, Project: "greedy"}); err != nil {
		t.Errorf("when they have left, there is no place: %v", err)
	}
}

func TestMetadataIsBoundedInTheSum(t *testing.T) {
	w := newWorld(t, nil)
	fat := map[string]string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		fat[name] = strings.Repeat("x", 60000)
	}
	_, err := w.Create(t.Context(), catalog.Image{Owner: "p", Properties: fat})
	wantErr(t, err, catalog.ErrMetadata)
	delete(fat, "e")
	img, err := w.Create(t.Context(), catalog.Image{Owner: "p", Properties: fat})
	if err != nil {
		t.Fatalf("240 KB are refused: %v", err)
	}
	// One from before there was a limit may shrink, and not grow.
	if _, err := w.records.Update(t.Context(), img.ID, func(img *records.Image) error {
		img.Properties["e"], img.Properties["f"] = strings.Repeat("x", 60000), strings.Repeat("x", 60000)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Update(t.Context(), img.ID, func(img *catalog.Image) error { delete(img.Properties, "f"); return nil }); err != nil {
		t.Errorf("it cannot shrink: %v", err)
	}
	_, err = w.Update(t.Context(), img.ID, func(img *catalog.Image) error { img.Properties["g"] = "x"; return nil })
	wantErr(t, err, catalog.ErrMetadata)
}
