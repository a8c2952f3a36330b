package catalog_test

import (
	"errors"
	"io"
	"path/filepath"
	"testing"

	"glanced/catalog"
	"glanced/catalog/records/sqlite"
	"glanced/catalog/rules"
)

// endless is a body that goes on until somebody stops reading it, and says when
// the first bytes were taken.
type endless struct{ begun chan struct{} }

func (e *endless) Read(p []byte) (int, error) {
	select {
	case <-e.begun:
	default:
		close(e.begun)
	}
	return min(len(p), 4096), nil
}

func TestCloseEndsUploadsAndLeavesNothingOfThem(t *testing.T) {
	w := newWorld(t, nil)
	img := w.queued(t, "raw", "bare")
	body := &endless{make(chan struct{})}
	failed := make(chan error, 1)
	go func() { failed <- w.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: -1}) }()
	<-body.begun
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// All is rolled back by the time Close returns: the daemon closes the database next.
	rec, err := sqlite.Open(t.Context(), filepath.Join(w.dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	if got, err := rules.New(rec, rules.Options{}).Get(t.Context(), img.ID); err != nil || got.Status != catalog.Queued || got.Reserved != 0 {
		t.Errorf("left as %+v, %v", got, err)
	}
	if names, err := filepath.Glob(filepath.Join(w.dir, "images", "*")); err != nil || len(names) > 0 {
		t.Errorf("stored: %v, %v", names, err)
	}
	if err := <-failed; !errors.Is(err, catalog.ErrClosing) {
		t.Errorf("the upload failed with %v", err)
	}
	if err := w.Upload(t.Context(), img.ID, io.LimitReader(body, 1), catalog.UploadOptions{Size: 1}); !errors.Is(err, catalog.ErrClosing) {
		t.Errorf("an upload after Close: %v", err)
	}
}
