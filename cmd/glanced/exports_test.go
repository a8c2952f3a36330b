package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"glanced/backends/file"
	"glanced/catalog"
	"glanced/catalog/records/sqlite"
	"glanced/formats"
	formatsall "glanced/formats/all"
	"glanced/formats/engine"
	"glanced/nbd"
)

// Between a withdrawal and the moment a session hears of it, its reads must not
// look like I/O errors: a client would take the disk for broken.
func TestReadsOfAWithdrawnExportSaySo(t *testing.T) {
	dir := t.TempDir()
	store, err := file.Open(file.Config{ID: "local", Path: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	rec, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer rec.Close()
	e := engine.New(engine.Options{})
	defer e.Close()
	c, err := catalog.New(t.Context(), catalog.Config{
		Records: rec, Engine: e, Node: "test", Drivers: formatsall.Drivers(),
		Stores: []catalog.StoreEntry{{ID: "local", Type: "file", Store: store, Default: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	raw, bare := "raw", "bare"
	img, err := c.Create(t.Context(), catalog.Image{DiskFormat: &raw, ContainerFormat: &bare, Visibility: "private"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Upload(t.Context(), img.ID, bytes.NewReader(make([]byte, 4096)), catalog.UploadOptions{Size: 4096}); err != nil {
		t.Fatal(err)
	}
	exports := &exports{catalog: c}
	x, err := exports.Open(t.Context(), img.ID, nbd.Peer{Network: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := c.Deactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	for what, read := range map[string]func(context.Context) error{
		"Plan": func(ctx context.Context) error { return x.Plan(ctx, new(engine.Plan), 0, 512, engine.PlanOptions{}) },
		"Extents": func(ctx context.Context) error {
			return x.Extents(ctx, 0, 512, func(formats.Extent) bool { return true })
		},
	} {
		if err := read(t.Context()); !errors.Is(err, nbd.ErrRevoked) {
			t.Errorf("%s: %v, want %v", what, err, nbd.ErrRevoked)
		}
	}
}
