package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/catalog"
	"glanced/catalog/records"
)

// logged collects a catalog's log, a line an entry.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// lines are those that have all of words.
func (l *logged) lines(words ...string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			found = append(found, line)
		}
	}
	return found
}

// withFar adds far stores to a world, and logs into log.
func withFar(log *logged, far ...*backendtest.Far) func(*catalog.Config) {
	return func(cfg *catalog.Config) {
		for i, f := range far {
			cfg.Stores = append(cfg.Stores, catalog.StoreEntry{ID: fmt.Sprint("far", i), Type: "far", Store: f})
		}
		cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	}
}

func (w *world) record(t *testing.T, id string, change func(*records.Image)) catalog.Image {
	t.Helper()
	img, err := w.records.Update(t.Context(), id, func(img *records.Image) error { change(img); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// alsoAt puts the same bytes into another store, and records it.
func (w *world) alsoAt(t *testing.T, id string, s backends.Store, content []byte) {
	t.Helper()
	loc, err := backendtest.Put(t.Context(), s, id, bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	w.record(t, id, func(img *records.Image) {
		img.Locations = append(img.Locations, records.Location{Store: loc.Store, URL: loc.URL, Size: loc.Size, Version: loc.Version})
	})
}

func (w *world) file(id string) string { return filepath.Join(w.dir, "images", id) }

func TestALocationWithoutAVersionGetsOneWhenItIsOpened(t *testing.T) {
	var db *fullDatabase
	var log logged
	w := newWorld(t, func(cfg *catalog.Config) {
		db = &fullDatabase{DB: cfg.Records}
		cfg.Records = db
		withFar(&log)(cfg)
	})
	content := noise(1, 100_000)
	img := w.active(t, "raw", "bare", content)
	want := img.Locations[0]
	bare := w.record(t, img.ID, func(img *records.Image) { img.Locations[0].Size, img.Locations[0].Version = -1, "" })
	seq, err := w.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	db.full.Store(true)
	w.wantStored(t, img.ID, content)
	if got := w.get(t, img.ID).Locations[0]; got.Version != "" {
		t.Errorf("recorded in a full database: %+v", got)
	}
	if len(log.lines("cannot record the version", img.ID)) != 1 {
		t.Errorf("the log: %s", log.text.String())
	}
	db.full.Store(false)
	w.wantGuest(t, img.ID, content)
	got := w.get(t, img.ID)
	if got.Locations[0].Version != want.Version || got.Locations[0].Size != want.Size || want.Version == "" {
		t.Errorf("recorded: %+v, want %+v", got.Locations[0], want)
	}
	if after, err := w.LastSeq(t.Context()); err != nil || after != seq || !got.UpdatedAt.Equal(bare.UpdatedAt) {
		t.Errorf("it shows: change %d after %d, updated at %v, %v", after, seq, got.UpdatedAt, err)
	}

	// The image's size is all that is known of one without a version.
	w.record(t, img.ID, func(img *records.Image) { img.Locations[0].Size, img.Locations[0].Version = -1, "" })
	if err := os.Truncate(w.file(img.ID), 99_999); err != nil {
		t.Fatal(err)
	}
	_, err = w.Open(t.Context(), img.ID, catalog.View{Stored: true})
	wantErr(t, err, backends.ErrChanged)
	if got := w.get(t, img.ID).Locations[0]; got.Version != "" {
		t.Errorf("recorded of a file that was cut off: %+v", got)
	}
}

// tampered are what an operator may do to an image's file.
var tampered = map[string]func(file string) error{
	"cut off": func(file string) error { return os.Truncate(file, 299_999) },
	"emptied": func(file string) error { return os.Truncate(file, 0) },
	"grown":   func(file string) error { return os.Truncate(file, 300_001) },
	"swapped": func(file string) error { return os.WriteFile(file, noise(2, 300_000), 0) },
	"replaced": func(file string) error {
		return errors.Join(os.Remove(file), os.WriteFile(file, noise(2, 300_000), 0o600))
	},
	"another image": func(file string) error {
		return errors.Join(os.Remove(file), os.WriteFile(file, noise(3, 700_000), 0o600))
	},
}

func TestAFileThatIsNotWhatWasRecordedIsNotServed(t *testing.T) {
	for name, tamper := range tampered {
		t.Run(name, func(t *testing.T) {
			var log logged
			w := newWorld(t, withFar(&log))
			content := noise(1, 300_000)
			img := w.active(t, "raw", "bare", content)
			if err := tamper(w.file(img.ID)); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				for _, v := range []catalog.View{{}, {Stored: true}} {
					_, err := w.Open(t.Context(), img.ID, v)
					wantErr(t, err, catalog.ErrStore)
					wantErr(t, err, backends.ErrChanged)
				}
			}
			said := log.lines("level=ERROR", "image="+img.ID, "store=local", "expected_size=300000", "expected_version="+img.Locations[0].Version)
			if len(said) != 1 {
				t.Errorf("it is said %d times: %s", len(said), log.text.String())
			}

			// What is not the image's is not deleted with it, and stays on record.
			if err := w.Delete(t.Context(), img.ID); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(w.file(img.ID)); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(w.file(img.ID), content, 0o600); err != nil {
				t.Fatal(err)
			}
			w.restart(t, nil)
			w.wantNothingStored(t)
		})
	}
}

func TestAFileThatIsPutBackIsServedAgain(t *testing.T) {
	var log logged
	w := newWorld(t, withFar(&log))
	content := noise(1, 300_000)
	img := w.active(t, "raw", "bare", content)
	for n := range 3 {
		if err := os.WriteFile(w.file(img.ID), content[1:], 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err := w.Open(t.Context(), img.ID, catalog.View{})
			wantErr(t, err, backends.ErrChanged)
		}
		if err := os.WriteFile(w.file(img.ID), content, 0o600); err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, img.ID, content)
		if said := log.lines("level=ERROR", img.ID); len(said) != n+1 {
			t.Errorf("after %d times, it is said %d times", n+1, len(said))
		}
	}
}

// One who has the image open does not keep it open for others, once it has changed.
func TestAFileChangedWhileItIsOpenIsNotOpenedAgain(t *testing.T) {
	for name, tamper := range tampered {
		for _, v := range []catalog.View{{}, {Stored: true}} {
			var log logged
			w := newWorld(t, withFar(&log))
			content := noise(1, 300_000)
			img := w.active(t, "raw", "bare", content)
			first, err := w.Open(t.Context(), img.ID, v)
			if err != nil {
				t.Fatal(err)
			}
			defer first.Close()
			second, err := w.Open(t.Context(), img.ID, v)
			if err != nil {
				t.Fatal(err)
			}
			second.Close()
			if err := tamper(w.file(img.ID)); err != nil {
				t.Fatal(err)
			}
			// Under another file's name, what is open still is what it was.
			sound := name == "replaced" || name == "another image"
			if h, err := w.Open(t.Context(), img.ID, v); sound {
				if err != nil || !bytes.Equal(readAll(t, h), content) {
					t.Errorf("%s: %v, or other bytes", name, err)
				} else {
					h.Close()
				}
			} else {
				wantErr(t, err, backends.ErrChanged)
			}
			if name == "cut off" {
				wantErr(t, first.ReadAt(t.Context(), make([]byte, 10), 299_990), backends.ErrChanged)
			}
			if said := log.lines("level=ERROR", img.ID); len(said) > 1 || len(said) == 0 && !sound {
				t.Errorf("%s: it is said %d times", name, len(said))
			}
			// Who has it open is told when the image goes.
			if err := w.Delete(t.Context(), img.ID); err != nil {
				t.Fatal(err)
			}
			<-first.Revoked()
		}
	}
}

func TestAParentThatHasChangedFailsItsChild(t *testing.T) {
	o := newOverlays(t)
	w := newWorld(t, nil)
	o.base("base.qcow2", noise(1, 1<<20))
	base := w.active(t, "qcow2", "bare", o.read("base.qcow2"))
	want := o.over("top.qcow2", "base.qcow2", "qcow2", base.ID, 0, 7)
	top, err := w.child(t, o.read("top.qcow2"), func(img *catalog.Image) {})
	if err != nil {
		t.Fatal(err)
	}
	sibling, err := w.child(t, o.read("top.qcow2"), func(img *catalog.Image) {})
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(w.file(base.ID))
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range []string{sibling.ID, top.ID} { // before the parent changes
		first, err := w.Open(t.Context(), open, catalog.View{})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(w.file(base.ID), 100_000); err != nil {
			t.Fatal(err)
		}
		_, err = w.Open(t.Context(), top.ID, catalog.View{})
		wantErr(t, err, backends.ErrChanged)
		if err := os.WriteFile(w.file(base.ID), whole, 0o600); err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, top.ID, want)
		first.Close()
	}
}

func TestAReadMovesOnToTheImagesNextLocation(t *testing.T) {
	ova := archive(t, "", member{"disk.qcow2", noise(3, 100_000)}) // stored only: what is in it is no qcow2
	for name, c := range map[string]struct {
		disk, container string
		content         []byte
		view            catalog.View
	}{
		"the bytes as stored": {"raw", "bare", noise(1, 3<<20), catalog.View{Stored: true}},
		"the guest disk":      {"raw", "bare", noise(1, 3<<20), catalog.View{}},
		"a container":         {"raw", "ova", archive(t, "", member{"disk.raw", noise(3, 1<<20)}), catalog.View{}},
		"a container's bytes": {"qcow2", "ova", ova, catalog.View{Stored: true}},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			var down atomic.Int64
			far := []*backendtest.Far{backendtest.NewFar("far0"), backendtest.NewFar("far1")}
			for i, f := range far {
				f.Fail = func(backendtest.Op) error {
					if down.Load() == int64(i)+1 {
						return backends.ErrUnavailable
					}
					return nil
				}
			}
			dir := t.TempDir()
			w := openWorld(t, dir, func(cfg *catalog.Config) {
				withFar(&log, far...)(cfg)
				withContainers(t, cfg, dir)
			})
			img := w.active(t, c.disk, c.container, c.content)
			w.alsoAt(t, img.ID, far[0], c.content)
			w.alsoAt(t, img.ID, far[1], c.content)
			h, err := w.Open(t.Context(), img.ID, c.view)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			want := readAll(t, h)
			again := func(step string) {
				t.Helper()
				if !bytes.Equal(readAll(t, h), want) {
					t.Errorf("%s: other bytes", step)
				}
			}
			// Cut off after the first byte: read by read, those that it has not are had elsewhere.
			if err := os.Truncate(w.file(img.ID), 1000); err != nil {
				t.Fatal(err)
			}
			again("without the file")
			down.Store(1)
			again("without the first far store")
			h.Close()
			if far[1].Count(backendtest.OpRead).Requests == 0 {
				t.Error("the second far store was never read")
			}
			down.Store(2)
			h, err = w.Open(t.Context(), img.ID, c.view)
			if err != nil {
				t.Fatal(err)
			}
			defer h.Close()
			again("opened with the first far store alone")
			if len(log.lines("level=WARN", "image="+img.ID, "store=local")) == 0 || len(log.lines("level=WARN", "image="+img.ID, "store=far0")) == 0 {
				t.Errorf("the log does not tell: %s", log.text.String())
			}
		})
	}
}

// A location of which only the size is known may hold other bytes: a read does not go on
// there in the middle, and all of it is read there where nothing else can be.
func TestAReadDoesNotMoveToALocationWithoutAVersion(t *testing.T) {
	var log logged
	var down atomic.Bool
	far := []*backendtest.Far{backendtest.NewFar("far0"), backendtest.NewFar("far1")}
	far[0].Fail = func(backendtest.Op) error {
		if down.Load() {
			return backends.ErrUnavailable
		}
		return nil
	}
	w := newWorld(t, withFar(&log, far...))
	content, others := noise(1, 100_000), noise(2, 100_000)
	img := w.queued(t, "raw", "bare")
	if err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1, Store: "far0"}); err != nil {
		t.Fatal(err)
	}
	w.alsoAt(t, img.ID, far[1], others)
	w.record(t, img.ID, func(img *records.Image) { img.Locations[1].Size, img.Locations[1].Version = -1, "" })
	h, err := w.Open(t.Context(), img.ID, catalog.View{Stored: true})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1000)
	if err := h.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, content[:1000]) {
		t.Fatalf("%v, or other bytes", err)
	}
	down.Store(true)
	wantErr(t, h.ReadAt(t.Context(), got, 50_000), backends.ErrUnavailable)
	h.Close()
	w.wantStored(t, img.ID, others) // as of an image that has this location alone
	if len(log.lines("level=WARN", "not on record", "image="+img.ID)) == 0 {
		t.Errorf("the log does not tell: %s", log.text.String())
	}
}

func TestAnImageWhoseStoresAreAllAwayIsUnavailable(t *testing.T) {
	var log logged
	var down atomic.Bool
	far := []*backendtest.Far{backendtest.NewFar("far0"), backendtest.NewFar("far1")}
	for _, f := range far {
		f.Fail = func(backendtest.Op) error {
			if down.Load() {
				return backends.ErrUnavailable
			}
			return nil
		}
	}
	w := newWorld(t, withFar(&log, far...))
	content := noise(1, 1000)
	img := w.queued(t, "raw", "bare")
	if err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1, Store: "far0"}); err != nil {
		t.Fatal(err)
	}
	w.alsoAt(t, img.ID, far[1], content)
	down.Store(true)
	for _, v := range []catalog.View{{}, {Stored: true}} {
		_, err := w.Open(t.Context(), img.ID, v)
		wantErr(t, err, backends.ErrUnavailable)
		wantErr(t, err, catalog.ErrStore)
	}
	down.Store(false)
	w.wantGuest(t, img.ID, content)
}

// That a store does not answer is found out once, not by everyone who opens an image.
func TestAStoreThatDoesNotAnswerIsLeftAloneForAWhile(t *testing.T) {
	var log logged
	var down atomic.Bool
	far := backendtest.NewFar("far0")
	far.Fail = func(backendtest.Op) error {
		if down.Load() {
			return backends.ErrUnavailable
		}
		return nil
	}
	w := newWorld(t, func(cfg *catalog.Config) {
		withFar(&log, far)(cfg)
		cfg.Stores[1].Weight = 10
	})
	content := noise(1, 1000)
	var ids []string
	for range 3 {
		img := w.active(t, "raw", "bare", content)
		w.alsoAt(t, img.ID, far, content)
		w.wantStored(t, img.ID, content)
		ids = append(ids, img.ID)
	}
	down.Store(true)
	asked := func() int64 {
		return far.Count(backendtest.OpOpen).Requests + far.Count(backendtest.OpRead).Requests
	}
	before := asked()
	for _, id := range ids {
		w.wantStored(t, id, content)
		w.wantStored(t, id, content)
	}
	if n := asked() - before; n != 1 {
		t.Errorf("a store that does not answer was asked %d times", n)
	}
}

func TestTheHeaviestStoreIsReadFirst(t *testing.T) {
	var log logged
	far := []*backendtest.Far{backendtest.NewFar("far0"), backendtest.NewFar("far1")}
	w := newWorld(t, func(cfg *catalog.Config) {
		withFar(&log, far...)(cfg)
		cfg.Stores[0].Weight, cfg.Stores[1].Weight, cfg.Stores[2].Weight = -1, 5, 10
	})
	content := noise(1, 1000)
	img := w.active(t, "raw", "bare", content)
	w.alsoAt(t, img.ID, far[0], content)
	w.alsoAt(t, img.ID, far[1], content)
	w.wantStored(t, img.ID, content)
	if a, b := far[0].Count(backendtest.OpRead).Requests, far[1].Count(backendtest.OpRead).Requests; a != 0 || b == 0 {
		t.Errorf("%d and %d reads", a, b)
	}
}

func TestAStoreThatIsNotConfiguredIsToldOfOnce(t *testing.T) {
	var log logged
	w := newWorld(t, withFar(&log, backendtest.NewFar("far0")))
	var ids []string
	for i := range 3 {
		img := w.queued(t, "raw", "bare")
		if err := w.Upload(t.Context(), img.ID, bytes.NewReader(noise(uint64(i), 1000)), catalog.UploadOptions{Size: -1, Store: "far0"}); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, img.ID)
	}
	if said := log.lines("not in the configuration"); len(said) != 0 {
		t.Errorf("all is configured, and the log says %s", said)
	}
	w.restart(t, func(cfg *catalog.Config) { cfg.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for _, id := range ids {
		_, err := w.Open(t.Context(), id, catalog.View{Stored: true})
		wantErr(t, err, backends.ErrUnavailable)
		if errors.Is(err, catalog.ErrUnknownStore) {
			t.Errorf("the reader is blamed: %v", err)
		}
	}
	if said := log.lines("not in the configuration", "store=far0", "locations=3"); len(said) != 1 {
		t.Errorf("it is said %d times: %s", len(said), log.text.String())
	}
	err := w.Upload(t.Context(), w.queued(t, "raw", "bare").ID, strings.NewReader("x"), catalog.UploadOptions{Size: 1, Store: "far0"})
	wantErr(t, err, catalog.ErrUnknownStore)
}

func TestWhatLiesInAReadOnlyStoreIsNotDeleted(t *testing.T) {
	w := newWorld(t, nil)
	content := noise(1, 1000)
	img := w.active(t, "raw", "bare", content)
	readOnly := func(cfg *catalog.Config) { cfg.Stores[0].ReadOnly = true }
	w.restart(t, readOnly)
	err := w.Delete(t.Context(), img.ID)
	wantErr(t, err, catalog.ErrStoreReadOnly)
	if err == nil || !strings.Contains(err.Error(), "store local") {
		t.Errorf("error %v does not name the store", err)
	}
	w.wantGuest(t, img.ID, content)
	empty := w.queued(t, "raw", "bare")
	if err := w.Delete(t.Context(), empty.ID); err != nil {
		t.Errorf("an image that has no data: %v", err)
	}
	w.restart(t, nil)
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Error(err)
	}
	w.wantNothingStored(t)
}
