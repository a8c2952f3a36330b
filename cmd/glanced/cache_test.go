package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/all"
	"glanced/backends/backendtest"
	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/catalog/records/sqlite"
	formatsall "glanced/formats/all"
	"glanced/formats/engine"
)

func TestTheCacheIsConfigured(t *testing.T) {
	dir, path := writeConfig(t, goodConfig)
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if c.Cache.Dir != dir+"/cache" || c.Cache.ChunkSize != 256<<10 || c.Cache.Connections != 16 {
		t.Errorf("%+v", c.Cache)
	}
	if c.cached() {
		t.Error("there is a cache, with no store that is far")
	}
	c.Stores = append(c.Stores, all.Config{Common: all.Common{ID: "far", Type: "far"}})
	if !c.cached() {
		t.Error("there is none, with a store that is far")
	}
	if c.Cache.Size = 0; c.cached() || c.Cache.check() != nil {
		t.Error("there is one of size 0, or that is an error")
	}
	for bad, says := range map[string]string{
		`chunk_size = "100KiB"`:                   "power of two",
		`chunk_size = "2MiB"`:                     "power of two",
		`size = "1MiB"`:                           "16 chunks",
		`dir = ""`:                                "cache.dir",
		`connections = 0`:                         "cache.connections",
		`shape = "round"`:                         "unknown key",
		"size = \"16MiB\"\nchunk_size = \"1MiB\"": "",
	} {
		_, path := writeConfig(t, goodConfig+"[cache]\n"+bad+"\n")
		if _, err := loadConfig(path); says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// farDaemon is a daemon's catalog over a store that is far, with a cache.
func farDaemon(t *testing.T, dir string, far backends.Store) *daemon {
	t.Helper()
	cfg, err := dirConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	s := all.Config{Common: all.Common{ID: "far", Type: "far", Default: true}}
	cfg.Stores = []all.Config{s}
	d := &daemon{cfg: cfg, log: &logs{Logger: slog.New(slog.DiscardHandler)}, limits: divided(256<<20, 1024, true)}
	if err := d.openCache(); err != nil {
		t.Fatal(err)
	}
	if d.cache == nil {
		t.Fatal("there is no cache")
	}
	rec, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	d.engine = engine.New(engine.Options{CacheBytes: d.limits.clusters, TableBytes: d.limits.tables, BufferBytes: d.limits.buffers})
	d.catalog, err = catalog.New(context.Background(), catalog.Config{Records: rec, Drivers: formatsall.Drivers(), Engine: d.engine, Node: "test", Log: d.log.Logger,
		Stores: []catalog.StoreEntry{{ID: "far", Type: "far", Store: d.throughCache(s, far), Default: true}}})
	if err != nil {
		t.Fatal(err)
	}
	d.cached = newCacheAdmin(d.cache, d.catalog)
	t.Cleanup(func() {
		d.cached.Close()
		if err := errors.Join(d.catalog.Close(), d.engine.Close(), d.cache.Close(), rec.Close()); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestAnImageInAFarStoreIsReadThroughTheCache(t *testing.T) {
	far := backendtest.NewFar("far")
	dir := t.TempDir()
	content := backendtest.Noise(5, 3<<20+512)
	const id = "6f0c4bd2-5f3a-4ea7-b2ab-0d1f0f8f5a01"
	t.Run("first life", func(t *testing.T) {
		d := farDaemon(t, dir, far)
		ctx := t.Context()
		if _, err := d.catalog.Create(ctx, catalog.Image{ID: id, DiskFormat: new("raw"), ContainerFormat: new("bare")}); err != nil {
			t.Fatal(err)
		}
		if _, err := d.cached.Image(ctx, "6f0c4bd2-0000-4ea7-b2ab-0d1f0f8f5a01"); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("of no image: %v", err)
		}
		if err := d.cached.Pin(ctx, id, true); !errors.Is(err, catalog.ErrNoData) {
			t.Errorf("of an image without data: %v", err)
		}
		if err := d.catalog.Upload(ctx, id, bytes.NewReader(content), catalog.UploadOptions{Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if err := d.cached.Evict(ctx, id); err != nil { // what taking it in has read
			t.Fatal(err)
		}
		before := far.Count(backendtest.OpRead).Bytes
		if err := d.cached.Prefetch(ctx, id); err != nil {
			t.Fatal(err)
		}
		awaitFilled(t, d, id)
		if n := far.Count(backendtest.OpRead).Bytes - before; n != int64(len(content)) {
			t.Errorf("%d bytes were fetched of %d", n, len(content))
		}
		h, err := d.catalog.Open(ctx, access.System(), id, catalog.View{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		got := make([]byte, len(content))
		if err := h.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%v, or other bytes", err)
		}
		if whole, ok := h.WholeFile(); !ok {
			t.Error("a raw image that is wholly cached is no whole file")
		} else {
			whole.Release()
		}
		var plan engine.Plan
		if err := h.Plan(ctx, &plan, 1000, 2<<20, engine.PlanOptions{WithoutIO: true}); err != nil || plan.Pieces()[0].How != engine.InFile {
			t.Errorf("it does not go out by sendfile: %v", err)
		}
		plan.Release()
		if err := d.cached.Pin(ctx, id, true); err != nil {
			t.Error(err)
		}
	})
	d := farDaemon(t, dir, far)
	before := far.Count(backendtest.OpRead)
	s, err := d.cached.Status(t.Context())
	if err != nil || len(s.Images) != 1 || s.Images[0].Image != id || s.Images[0].Store != "far" || !s.Images[0].Pinned || s.Chunks != 13 || s.PinnedBytes != 13<<18-(1<<18)+4096 {
		t.Errorf("after a restart: %+v, %v", s, err)
	}
	h, err := d.catalog.Open(t.Context(), access.System(), id, catalog.View{})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	if err := h.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, content) {
		t.Errorf("after a restart: %v, or other bytes", err)
	}
	if now := far.Count(backendtest.OpRead); now != before {
		t.Errorf("what was cached is fetched again: %+v, then %+v", before, now)
	}
	h.Close()
	if err := d.cached.Evict(t.Context(), id); err != nil {
		t.Error(err)
	}
	if img, err := d.cached.Image(t.Context(), id); err != nil || img.CachedBytes != 0 || !img.Pinned {
		t.Errorf("%+v, %v", img, err)
	}

}

func awaitFilled(t *testing.T, d *daemon, id string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		img, err := d.cached.Image(t.Context(), id)
		if err != nil || img.PrefetchError != "" || time.Now().After(end) {
			t.Fatalf("%+v, %v", img, err)
		}
		if !img.Prefetching {
			if img.Chunks != img.AllChunks || img.AllChunks == 0 {
				t.Fatalf("prefetched: %+v", img)
			}
			return
		}
	}
}

func TestACacheThatMemoryCannotIndexIsSmaller(t *testing.T) {
	cfg, err := dirConfig(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Stores = []all.Config{{Common: all.Common{ID: "far", Type: "far"}}}
	var text bytes.Buffer
	d := &daemon{cfg: cfg, log: &logs{Logger: slog.New(slog.NewTextHandler(&text, nil))}, limits: divided(64<<20, 1024, true)}
	if err := d.openCache(); err != nil {
		t.Fatal(err)
	}
	defer d.cache.Close()
	if s := d.cache.Stats(); s.SizeBytes >= int64(cfg.Cache.Size) || s.SizeBytes < 1<<30 || !strings.Contains(text.String(), "memory.budget") {
		t.Errorf("%+v\n%s", s, text.String())
	}
}
