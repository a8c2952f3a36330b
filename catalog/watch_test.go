package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"glanced/backends/backendtest"
	"glanced/catalog"
	"glanced/catalog/records"
)

// asked marks the context of a test's Watch.
type asked struct{}

// blind is a records.DB whose log of changes is empty for the catalog's own
// poll, which would wake watchers too, late.
type blind struct{ records.DB }

func (b blind) View(ctx context.Context, what string, do func(records.Tx) error) error {
	return b.DB.View(ctx, what, func(tx records.Tx) error { return do(blindTx{tx}) })
}

type blindTx struct{ records.Tx }

func (b blindTx) Changes(ctx context.Context, since records.Seq, limit int) ([]records.Change, error) {
	if ctx.Value(asked{}) == nil {
		return nil, nil
	}
	return b.Tx.Changes(ctx, since, limit)
}

// watched is what a Watch yields, on a channel; it is closed when the Watch ends.
func watched(ctx context.Context, w *catalog.Catalog, since catalog.Seq) <-chan catalog.Change {
	all := make(chan catalog.Change)
	go func() {
		defer close(all)
		for ch, err := range w.Watch(context.WithValue(ctx, asked{}, true), since) {
			if err != nil {
				return
			}
			select {
			case all <- ch:
			case <-ctx.Done():
				return
			}
		}
	}()
	return all
}

// next is the next change; the test ends when none comes.
func next(t *testing.T, all <-chan catalog.Change) catalog.Change {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case ch, ok := <-all:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return ch
	case <-ctx.Done():
		t.Fatalf("waited %v for a change", patience)
	}
	return catalog.Change{}
}

// wantEnd fails unless a watch ends without another change.
func wantEnd(t *testing.T, all <-chan catalog.Change) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case ch, ok := <-all:
		if ok {
			t.Errorf("another change: %+v", ch)
		}
	case <-ctx.Done():
		t.Fatalf("waited %v for the end of a watch", patience)
	}
}

// rename makes one change.
func (w *world) rename(t *testing.T, id, name string) {
	t.Helper()
	if _, err := w.Update(t.Context(), id, func(img *catalog.Image) error { img.Name = &name; return nil }); err != nil {
		t.Fatal(err)
	}
}

// Every change here is waited for before the next is made, and the poll that
// would wake the watch is blind: each must wake it by itself.
func TestAWatchSeesOwnChangesAtOnce(t *testing.T) {
	w := newWorld(t, func(cfg *catalog.Config) { cfg.Records = blind{cfg.Records} })
	all := watched(t.Context(), w.Catalog, 0)
	var seq catalog.Seq
	want := func(kind catalog.ChangeKind, id string, statuses ...catalog.Status) {
		t.Helper()
		for _, status := range statuses {
			seq++
			if got, want := next(t, all), (catalog.Change{Seq: seq, Kind: kind, ID: id, Status: status}); got != want {
				t.Errorf("change %+v, want %+v", got, want)
			}
		}
	}
	img := w.queued(t, "raw", "bare")
	want(catalog.Created, img.ID, catalog.Queued)
	w.rename(t, img.ID, "điện toán đám mây 云")
	want(catalog.Updated, img.ID, catalog.Queued)
	if err := w.Activate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	want(catalog.Updated, img.ID, catalog.Saving, catalog.Active)
	if err := w.Deactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	want(catalog.Updated, img.ID, catalog.Deactivated)
	if err := w.Reactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	want(catalog.Updated, img.ID, catalog.Active)
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	want(catalog.Removed, img.ID, catalog.Deleted)
	want(catalog.Updated, img.ID, catalog.Deleted) // its location was forgotten

	cut := w.queued(t, "raw", "bare")
	want(catalog.Created, cut.ID, catalog.Queued)
	err := w.Upload(t.Context(), cut.ID, cutOff{}, catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrBody)
	want(catalog.Updated, cut.ID, catalog.Saving, catalog.Queued)
}

// Deleting is two changes, with the store's work between them: a watch that has
// gone back to sleep meanwhile must be woken for the second, or LastSeq runs
// ahead of it.
func TestAWatchSeesTheEndOfADeletion(t *testing.T) {
	deleting, letGo := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(cfg *catalog.Config) {
		cfg.Records = blind{cfg.Records}
		failing(func(op backendtest.Op) error {
			if op == backendtest.OpDelete {
				close(deleting)
				<-letGo
			}
			return nil
		})(cfg)
	})
	img := w.active(t, "raw", "bare", []byte("content"))
	before, err := w.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := watched(t.Context(), w.Catalog, before)
	deleted := make(chan error, 1)
	go func() { deleted <- w.Delete(t.Context(), img.ID) }()
	got := next(t, all)
	wantClosed(t, deleting, "the deletion")
	close(letGo)
	if err := <-deleted; err != nil || got.Kind != catalog.Removed {
		t.Fatalf("change %+v, %v", got, err)
	}
	last, err := w.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for got.Seq < last {
		got = next(t, all)
	}
}

// cutOff is a body whose sender is gone.
type cutOff struct{}

func (cutOff) Read([]byte) (int, error) { return 0, errors.New("connection reset by peer") }

func TestAWatchResumesWhereItLeftOff(t *testing.T) {
	w := newWorld(t, nil)
	img := w.queued(t, "raw", "bare")
	const renames = 300 // more than are read from the log at once
	for i := range renames {
		w.rename(t, img.ID, fmt.Sprint("tên ", i))
	}
	var whole []catalog.Change
	for ch, err := range w.Watch(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		whole = append(whole, ch)
		if len(whole) == renames+1 {
			break
		}
	}
	for i, ch := range whole {
		if i > 0 && ch.Seq <= whole[i-1].Seq {
			t.Fatalf("%+v comes after %+v", ch, whole[i-1])
		}
	}
	for _, from := range []int{0, 1, 7, renames - 1} {
		var rest []catalog.Change
		for ch, err := range w.Watch(t.Context(), whole[from].Seq) {
			if err != nil {
				t.Fatal(err)
			}
			if rest = append(rest, ch); len(rest) == renames-from {
				break
			}
		}
		if !slices.Equal(rest, whole[from+1:]) {
			t.Errorf("from %d on, the changes are not those of the first watch", whole[from].Seq)
		}
	}
	last, err := w.LastSeq(t.Context())
	if err != nil || last != whole[renames].Seq {
		t.Errorf("the last change is %d, want %d, %v", last, whole[renames].Seq, err)
	}
	all := watched(t.Context(), w.Catalog, last)
	w.rename(t, img.ID, "mới")
	if got := next(t, all); got.Seq != last+1 {
		t.Errorf("a watch from the end begins at %d, want %d", got.Seq, last+1)
	}
}

func TestAWatchFromBeforeTheLogSaysSo(t *testing.T) {
	w := newWorld(t, func(cfg *catalog.Config) {
		cfg.ChangeLog = 10
	})
	img := w.queued(t, "raw", "bare")
	h := w.active(t, "raw", "bare", []byte("content"))
	open := w.open(t, h.ID, catalog.View{})
	for i := range 600 {
		w.rename(t, img.ID, fmt.Sprint("tên ", i))
	}
	var seen []error
	for ch, err := range w.Watch(t.Context(), 1) {
		if err == nil {
			t.Fatalf("a change from a log that was cut: %+v", ch)
		}
		seen = append(seen, err)
	}
	if len(seen) != 1 {
		t.Fatalf("errors %v, want one", seen)
	}
	wantErr(t, seen[0], catalog.ErrTrimmed)
	// The way out that Watch's documentation gives.
	last, err := w.LastSeq(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := watched(t.Context(), w.Catalog, last)
	w.rename(t, img.ID, "mới")
	if got := next(t, all); got.Seq != last+1 || got.ID != img.ID {
		t.Errorf("after the way out: %+v", got)
	}
	if !slices.Equal(readAll(t, open), []byte("content")) {
		t.Error("an open image reads other bytes")
	}
}

func TestAWatchEnds(t *testing.T) {
	t.Run("with its context", func(t *testing.T) {
		w := newWorld(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		all := watched(ctx, w.Catalog, 0)
		w.queued(t, "raw", "bare")
		next(t, all)
		cancel()
		wantEnd(t, all)
	})
	t.Run("with a context that has ended before", func(t *testing.T) {
		w := newWorld(t, nil)
		w.queued(t, "raw", "bare")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for ch, err := range w.Watch(ctx, 0) {
			t.Errorf("change %+v, error %v", ch, err)
		}
	})
	t.Run("with the catalog", func(t *testing.T) {
		w := newWorld(t, nil)
		all := watched(t.Context(), w.Catalog, 0)
		w.queued(t, "raw", "bare")
		next(t, all)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		wantEnd(t, all)
	})
}

func TestAWatchSeesTheChangesOfAnotherDaemon(t *testing.T) {
	dir := t.TempDir()
	a := openWorld(t, dir, nil)
	b := openWorld(t, dir, func(cfg *catalog.Config) { cfg.Node = "another" })
	all := watched(t.Context(), b.Catalog, 0)
	img := a.queued(t, "raw", "bare")
	if got := next(t, all); got.ID != img.ID || got.Kind != catalog.Created {
		t.Errorf("change %+v", got)
	}
	a.rename(t, img.ID, "云镜像")
	if got := next(t, all); got.ID != img.ID || got.Kind != catalog.Updated {
		t.Errorf("change %+v", got)
	}
	if got := b.get(t, img.ID); *got.Name != "云镜像" {
		t.Errorf("the other daemon calls it %s", *got.Name)
	}
}
