package catalog_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"glanced/backends/file"
	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/catalog/records/sqlite"
	"glanced/catalog/rules"
	"glanced/formats/all"
	"glanced/formats/engine"
)

// world is a catalog over a real database and a real file store.
type world struct {
	*catalog.Catalog
	dir     string
	records *rules.Records
	store   *file.Store
	cfg     catalog.Config
}

// newWorld makes a world in a folder of its own; change may edit its Config.
func newWorld(t *testing.T, change func(*catalog.Config)) *world {
	t.Helper()
	return openWorld(t, t.TempDir(), change)
}

func openWorld(t *testing.T, dir string, change func(*catalog.Config)) *world {
	t.Helper()
	ctx := context.Background()
	rec, err := sqlite.Open(ctx, filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := file.Open(file.Config{ID: "local", Path: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(engine.Options{CacheBytes: 16 << 20, TableBytes: 4 << 20})
	w := &world{dir: dir, records: rules.New(rec, rules.Options{}), store: store}
	w.cfg = catalog.Config{
		Records: rec,
		Stores:  []catalog.StoreEntry{{ID: "local", Type: "file", Store: store, Default: true}},
		Drivers: all.Drivers(),
		Engine:  e,
		Node:    "test",
	}
	if change != nil {
		change(&w.cfg)
	}
	w.Catalog, err = catalog.New(ctx, w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		w.Catalog.Close()
		e.Close()
		store.Close()
		rec.Close()
	})
	return w
}

// Open opens an image as the daemon itself may.
func (w *world) Open(ctx context.Context, id string, v catalog.View) (*catalog.Handle, error) {
	return w.Catalog.Open(ctx, access.System(), id, v)
}

// List is all of Page.
func (w *world) List(ctx context.Context, q catalog.Query) ([]catalog.Image, error) {
	images, _, err := w.Page(ctx, q, math.MaxInt64)
	return images, err
}

// queued adds an image of the given formats.
func (w *world) queued(t *testing.T, disk, container string) catalog.Image {
	t.Helper()
	img, err := w.Create(t.Context(), catalog.Image{Owner: "p", DiskFormat: &disk, ContainerFormat: &container})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// active adds an image of the given formats and content.
func (w *world) active(t *testing.T, disk, container string, content []byte) catalog.Image {
	t.Helper()
	img := w.queued(t, disk, container)
	if err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	return w.get(t, img.ID)
}

func (w *world) get(t *testing.T, id string) catalog.Image {
	t.Helper()
	img, err := w.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// wantNothingStored fails if any bytes are in the store.
func (w *world) wantNothingStored(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(w.dir, "images"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left in the store: %s", e.Name())
	}
}

// wantUntouched fails unless the image is queued as if nothing had ever been
// uploaded, its project is charged nothing, and the store is empty.
func (w *world) wantUntouched(t *testing.T, id string) {
	t.Helper()
	img := w.get(t, id)
	if img.Status != catalog.Queued || img.Size != nil || img.Checksum != nil || img.Node != "" || img.Reserved != 0 || img.Locations != nil || img.Claims != nil {
		t.Errorf("image after the failure: %+v", img)
	}
	if u, err := w.records.Usage(t.Context(), img.Owner); err != nil || u.ImageBytes != 0 {
		t.Errorf("usage after the failure: %+v, %v", u, err)
	}
	w.wantNothingStored(t)
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// noise is n bytes that do not compress and hold no zero blocks.
func noise(seed uint64, n int) []byte {
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	p := make([]byte, n)
	rand.NewChaCha8(key).Read(p)
	return p
}

func readAll(t *testing.T, h *catalog.Handle) []byte {
	t.Helper()
	p := make([]byte, h.Size())
	if err := h.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestAnImageGoesInComesOutAndIsRetired(t *testing.T) {
	w := newWorld(t, nil)
	ctx := t.Context()
	first, err := w.LastSeq(ctx)
	if err != nil {
		t.Fatal(err)
	}
	content := append(append(noise(1, 1<<20), make([]byte, 1<<20)...), noise(2, 12345)...)
	img := w.active(t, "raw", "bare", content)

	m, s := md5.Sum(content), sha512.Sum512(content)
	if img.Status != catalog.Active || *img.Size != int64(len(content)) || *img.VirtualSize != int64(len(content)) ||
		*img.Checksum != hex.EncodeToString(m[:]) || *img.HashAlgo != "sha512" || *img.HashValue != hex.EncodeToString(s[:]) {
		t.Errorf("after the upload: %+v", img)
	}
	if *img.Allocated >= int64(len(content)) || *img.Allocated < 1<<20 {
		t.Errorf("allocated %d of %d bytes; the hole does not show", *img.Allocated, len(content))
	}
	list, err := w.List(ctx, catalog.Query{Scope: catalog.Scope{Owners: []string{"p"}}})
	if err != nil || len(list) != 1 || list[0].ID != img.ID {
		t.Errorf("list: %v, %v", list, err)
	}

	var open []*catalog.Handle
	for _, v := range []catalog.View{{}, {Stored: true}} {
		h, err := w.Open(ctx, img.ID, v)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		if !bytes.Equal(readAll(t, h), content) {
			t.Errorf("view %+v reads other bytes", v)
		}
		open = append(open, h)
	}

	if err := w.Deactivate(ctx, img.ID); err != nil {
		t.Fatal(err)
	}
	for _, h := range open {
		<-h.Revoked()
		wantErr(t, h.ReadAt(ctx, make([]byte, 1), 0), catalog.ErrRevoked)
	}
	_, err = w.Open(ctx, img.ID, catalog.View{})
	wantErr(t, err, catalog.ErrDeactivated)
	admin, err := w.Open(ctx, img.ID, catalog.View{Stored: true, Deactivated: true})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	if !bytes.Equal(readAll(t, admin), content) {
		t.Error("an administrator's view of a deactivated image reads other bytes")
	}

	if err := w.Delete(ctx, img.ID); err != nil {
		t.Fatal(err)
	}
	<-admin.Revoked()
	_, err = w.Get(ctx, img.ID)
	wantErr(t, err, catalog.ErrNotFound)
	_, err = w.Create(ctx, catalog.Image{ID: img.ID})
	wantErr(t, err, catalog.ErrExists)
	w.wantNothingStored(t)

	var statuses []catalog.Status
	for ch, err := range w.Watch(ctx, first) {
		if err != nil {
			t.Fatal(err)
		}
		statuses = append(statuses, ch.Status)
		if ch.Kind == catalog.Removed {
			break
		}
	}
	want := []catalog.Status{catalog.Queued, catalog.Saving, catalog.Active, catalog.Deactivated, catalog.Deleted}
	if !equal(statuses, want) {
		t.Errorf("the log says %v, want %v", statuses, want)
	}
}

func equal[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
