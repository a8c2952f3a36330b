package catalog_test

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"glanced/backends/backendtest"
	"glanced/catalog"
)

// Stores take each other's place while an upload runs and an image is read.
func TestStoresChangeUnderUploadsAndReaders(t *testing.T) {
	w := newWorld(t, nil)
	first, second := noise(1, 300_000), noise(2, 300_000)
	read := w.active(t, "raw", "bare", first)
	h, err := w.Open(t.Context(), read.ID, catalog.View{Stored: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()

	img := w.queued(t, "raw", "bare")
	body, client := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- w.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: -1}) }()
	if _, err := client.Write(second[:200_000]); err != nil {
		t.Fatal(err)
	}

	far := backendtest.NewFar("far0")
	local := w.Stores()[0]
	local.Default, local.ReadOnly, local.Weight = false, true, -3
	next := []catalog.StoreEntry{{ID: "far0", Type: "far", Store: far, Default: true}, local}
	if err := w.SetStores(next); err != nil {
		t.Fatal(err)
	}
	next[0].ID = "mine" // the list is the catalog's own
	if got := w.Stores(); len(got) != 2 || got[0].ID != "far0" || got[1].Weight != -3 {
		t.Errorf("stores %+v", got)
	}
	if _, err := client.Write(second[200_000:]); err != nil {
		t.Fatal(err)
	}
	client.Close()
	if err := <-done; err != nil {
		t.Fatalf("the upload that was under way: %v", err)
	}
	in := func(id string) string {
		img, err := w.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return img.Locations[0].Store
	}
	if got := in(img.ID); got != "local" {
		t.Errorf("it is in store %s", got)
	}
	if got := in(w.active(t, "raw", "bare", first).ID); got != "far0" {
		t.Errorf("a new upload is in store %s", got)
	}
	got := make([]byte, len(first))
	if err := h.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, first) {
		t.Errorf("what was open: %v, or other bytes", err)
	}
	wantErr(t, w.Upload(t.Context(), w.queued(t, "raw", "bare").ID, bytes.NewReader(first), catalog.UploadOptions{Size: -1, Store: "local"}), catalog.ErrStoreReadOnly)
	wantErr(t, w.Delete(t.Context(), read.ID), catalog.ErrStoreReadOnly)

	for name, wrong := range map[string][]catalog.StoreEntry{
		"none":         nil,
		"no default":   {local},
		"two defaults": {w.Stores()[0], {ID: "b", Store: far, Default: true}},
		"twice":        {w.Stores()[0], local, local},
		"not opened":   {w.Stores()[0], {ID: "b"}},
	} {
		before := w.Stores()
		if w.SetStores(wrong) == nil || !slices.Equal(w.Stores(), before) {
			t.Errorf("%s: taken", name)
		}
	}
}
