package catalog_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/catalog"
)

// told is what a check said: the steps, with ! where one failed.
func told(t *testing.T, w *world, store string, want error) string {
	t.Helper()
	steps, err := w.CheckStore(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	var words []string
	for _, s := range steps {
		if s.Err != nil {
			s.Name += "!"
			wantErr(t, s.Err, want)
		}
		words = append(words, s.Name)
	}
	return strings.Join(words, " ")
}

func TestACheckOfAStoreSaysWhatWorks(t *testing.T) {
	cable := errors.New("somebody pulled the cable")
	var broken atomic.Value
	broken.Store(backendtest.Op(""))
	far := backendtest.NewFar("far0")
	far.Fail = func(op backendtest.Op) error {
		if op == broken.Load() {
			return cable
		}
		return nil
	}
	var log logged
	w := newWorld(t, withFar(&log, far))
	for op, want := range map[backendtest.Op]string{
		"":                    "write read delete",
		backendtest.OpBegin:   "write!",
		backendtest.OpCommit:  "write!",
		backendtest.OpOpen:    "write read!",
		backendtest.OpRead:    "write read!",
		backendtest.OpDelete:  "write read delete!",
		backendtest.OpAbandon: "write read delete",
	} {
		broken.Store(op)
		if got := told(t, w, "far0", cable); got != want {
			t.Errorf("%s fails: %s, want %s", op, got, want)
		}
		if left := far.List(); len(left) > 0 {
			t.Errorf("%s fails: left: %v", op, left)
		}
	}
	if got := told(t, w, "local", nil); got != "write read delete" {
		t.Errorf("local: %s", got)
	}
	_, err := w.CheckStore(t.Context(), "tape")
	wantErr(t, err, catalog.ErrUnknownStore)
}

func TestACheckOfAReadOnlyStoreReadsWhatLiesThere(t *testing.T) {
	far := backendtest.NewFar("far0")
	var log logged
	w := newWorld(t, func(cfg *catalog.Config) {
		withFar(&log, far)(cfg)
		cfg.Stores[len(cfg.Stores)-1].ReadOnly = true
	})
	if got := told(t, w, "far0", nil); got != "" {
		t.Errorf("nothing lies there: %s", got)
	}
	img := w.active(t, "raw", "bare", noise(1, 1000))
	w.alsoAt(t, img.ID, far.Again(), noise(1, 1000))
	if got := told(t, w, "far0", nil); got != "read" {
		t.Errorf("an image lies there: %s", got)
	}
	far.Remove(img.ID)
	if got := told(t, w, "far0", backends.ErrNotFound); got != "read!" {
		t.Errorf("it is gone: %s", got)
	}
}

// partly is a store of which a part cannot be used.
type partly struct {
	backends.Store
	err error
}

func (p partly) Degraded() error        { return p.err }
func (p partly) Unwrap() backends.Store { return p.Store }

func TestACheckSaysThatAPartOfAStoreIsMissing(t *testing.T) {
	unplugged := errors.New("a disk is not mounted")
	w := newWorld(t, func(cfg *catalog.Config) {
		in := cfg.Stores[0].Store
		cfg.Stores[0].Store = partly{in, unplugged}
	})
	if got := told(t, w, "local", unplugged); got != "write read delete use all of it!" {
		t.Errorf("local: %s", got)
	}
}
