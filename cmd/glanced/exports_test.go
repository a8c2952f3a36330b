package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"glanced/backends/file"
	"glanced/catalog"
	"glanced/catalog/access"
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
	anonymous := "public"
	exports.anonymous.Store(&anonymous)
	if x, err := exports.Open(t.Context(), img.ID, nbd.Peer{Network: "tcp"}); !errors.Is(err, nbd.ErrUnknownExport) {
		t.Errorf("a private image over TCP: %v, %v", x, err)
	}
	if x, err := exports.Open(t.Context(), img.ID, nbd.Peer{Network: "unix", Who: peer{err: access.ErrDenied}}); !errors.Is(err, nbd.ErrForbidden) {
		t.Errorf("for a user in no entry: %v, %v", x, err)
	}
	nobody := nbd.Peer{Network: "unix"}
	x, err := exports.Open(t.Context(), img.ID, nobody)
	if !errors.Is(err, nbd.ErrForbidden) || strings.Contains(err.Error(), "%!") || !strings.Contains(err.Error(), "user of this host") {
		t.Errorf("for who is not known: %v, %v", x, err)
	}
	err = nil
	for _, err = range exports.List(t.Context(), nobody) {
	}
	if !errors.Is(err, nbd.ErrForbidden) || strings.Contains(err.Error(), "%!") {
		t.Errorf("a list for who is not known: %v", err)
	}
	root := nbd.Peer{Network: "unix", Who: peer{who: access.System()}}
	x, err = exports.Open(t.Context(), img.ID, root)
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

// What is made private ends the sessions of who may no longer see it, and no others.
func TestSessionsEndThatLoseTheRight(t *testing.T) {
	needNBDsh(t)
	p := startDaemon(t, t.TempDir())
	id := p.create("disk", "public", bytes.Repeat([]byte("d"), 1<<20))
	session := func(uri string) (read func() string) {
		cmd := exec.Command("nbdsh", "-u", uri, "-c", `
import sys
for line in sys.stdin:
    try:
        print(len(h.pread(4096, 0)), flush=True)
    except Exception as e:
        print("error", e, flush=True)
`)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		lines := bufio.NewReader(out)
		return func() string {
			io.WriteString(in, "read\n")
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("nbdsh: %v", err)
			}
			return strings.TrimSpace(line)
		}
	}
	anonymous := session("nbd://" + p.nbd + "/" + id)
	root := session("nbd+unix:///" + id + "?socket=" + filepath.Join(p.dir, "nbd.sock"))
	for who, read := range map[string]func() string{"anonymous": anonymous, "root": root} {
		if got := read(); got != "4096" {
			t.Fatalf("%s: %s", who, got)
		}
	}
	if status, v := p.call("PATCH", "/v2/images/"+id, "application/openstack-images-v2.1-json-patch",
		strings.NewReader(`[{"op":"replace","path":"/visibility","value":"private"}]`)); status != 200 {
		t.Fatalf("%d %v", status, v)
	}
	if got := anonymous(); !strings.HasPrefix(got, "error") {
		t.Errorf("who may not see it any more reads %s", got)
	}
	if got := root(); got != "4096" {
		t.Errorf("who may see it: %s", got)
	}
}
