package catalog_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"glanced/catalog"
	"glanced/catalog/records"
)

// fullDatabase fails every Change while it is full.
type fullDatabase struct {
	records.DB
	full atomic.Bool
}

func (d *fullDatabase) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	if d.full.Load() {
		return records.ErrFull
	}
	return d.DB.Change(ctx, what, do)
}

// fills is the end of a body, by when the database is full.
type fills struct{ db *fullDatabase }

func (f fills) Read([]byte) (int, error) {
	f.db.full.Store(true)
	return 0, io.EOF
}

func TestAnUploadThatFailsInAFullDatabaseIsQueuedWhenThereIsRoom(t *testing.T) {
	var db *fullDatabase
	w := newWorld(t, func(c *catalog.Config) {
		db = &fullDatabase{DB: c.Records}
		c.Records = db
	})
	img := w.queued(t, "raw", "bare")
	body := io.MultiReader(strings.NewReader("data"), fills{db})
	err := w.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: 4})
	wantErr(t, err, catalog.ErrFull)
	w.wantNothingStored(t)
	if got := w.get(t, img.ID); got.Status != catalog.Saving {
		t.Fatalf("it is %s though nothing could be written", got.Status)
	}
	db.full.Store(false)
	for limit := time.Now().Add(30 * time.Second); ; {
		got := w.get(t, img.ID)
		if got.Status == catalog.Queued && got.Reserved == 0 && got.Node == "" && got.Claims == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("it stays %s: %+v", got.Status, got)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := w.Upload(t.Context(), img.ID, strings.NewReader("data"), catalog.UploadOptions{Size: 4}); err != nil {
		t.Error(err)
	}
}
