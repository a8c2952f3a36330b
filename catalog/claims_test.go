package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/catalog"
)

// What an upload may leave is on record before it can leave it.
func TestTheClaimIsOnRecordBeforeTheFirstByte(t *testing.T) {
	var w *world
	var img catalog.Image
	var writes, commits atomic.Int64
	w = newWorld(t, failing(func(op backendtest.Op) error {
		switch op {
		case backendtest.OpWrite:
			writes.Add(1)
		case backendtest.OpCommit:
			commits.Add(1)
		default:
			return nil
		}
		got := w.get(t, img.ID)
		if got.Status != catalog.Saving || len(got.Claims) != 1 || got.Claims[0].Store != "local" || got.Claims[0].Claim == "" || got.Node != "test" {
			t.Errorf("on record at a %s: %+v", op, got)
		}
		return nil
	}))
	img = w.queued(t, "raw", "bare")
	content := noise(1, 3<<20)
	if err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	if writes.Load() == 0 || commits.Load() != 1 {
		t.Errorf("%d writes and %d commits were looked at", writes.Load(), commits.Load())
	}
	got := w.get(t, img.ID)
	if got.Claims != nil || len(got.Locations) != 1 || got.Locations[0].Size != int64(len(content)) || got.Locations[0].Version == "" {
		t.Errorf("on record when it is active: %+v", got)
	}
	w.wantGuest(t, img.ID, content)
}

func TestAnUploadWhoseClaimCannotBeRecordedIsAborted(t *testing.T) {
	var db *fullDatabase
	var aborted, written atomic.Bool
	w := newWorld(t, func(cfg *catalog.Config) {
		db = &fullDatabase{DB: cfg.Records}
		cfg.Records = db
		cfg.Stores[0].Store = backendtest.Faulty{Store: cfg.Stores[0].Store,
			Fail: func(op backendtest.Op) error {
				aborted.Store(aborted.Load() || op == backendtest.OpAbandon)
				written.Store(written.Load() || op == backendtest.OpWrite)
				if op == backendtest.OpAbandon {
					db.full.Store(false)
				}
				return nil
			},
			Lose: func(op backendtest.Op) error {
				if op == backendtest.OpBegin {
					db.full.Store(true)
				}
				return nil
			}}
	})
	img := w.queued(t, "raw", "bare")
	err := w.Upload(t.Context(), img.ID, bytes.NewReader(noise(1, 1<<20)), catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrFull)
	if !aborted.Load() || written.Load() {
		t.Errorf("aborted %v, written to %v", aborted.Load(), written.Load())
	}
	w.wantUntouched(t, img.ID)
}

func TestACommitWhoseAnswerWasLostIsNoFailure(t *testing.T) {
	var lose atomic.Int64
	var why error
	w := newWorld(t, func(cfg *catalog.Config) {
		cfg.Stores[0].Store = backendtest.Faulty{Store: cfg.Stores[0].Store, Lose: func(op backendtest.Op) error {
			if op == backendtest.OpCommit && lose.Add(-1) >= 0 {
				return why
			}
			return nil
		}}
	})
	content := noise(1, 1<<20)
	upload := func(times int64, err error) (catalog.Image, error) {
		img := w.queued(t, "raw", "bare")
		lose.Store(times)
		why = err
		return img, w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1})
	}
	img, err := upload(1, fmt.Errorf("commit: %w", backends.ErrUnavailable))
	if err != nil {
		t.Fatal(err)
	}
	w.wantGuest(t, img.ID, content)
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	w.wantNothingStored(t)
	for _, c := range []struct {
		times int64
		why   error
	}{{100, backends.ErrUnavailable}, {1, errors.New("the store fell over")}} {
		img, err := upload(c.times, c.why)
		wantErr(t, err, catalog.ErrStore)
		wantErr(t, err, c.why)
		w.wantUntouched(t, img.ID)
	}
}
