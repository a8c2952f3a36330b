package catalog_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"glanced/backends/backendtest"
	"glanced/catalog"
)

// Set, they make the test binary a child that uploads in a folder, and say what
// it stops at until it is killed.
const (
	crashFolder = "GLANCED_TEST_CRASH_FOLDER"
	crashPoint  = "GLANCED_TEST_CRASH_POINT"
)

const crashID = "6f0c1d5e-0d3b-4f57-9a9e-3b1d9f0f9c11"

// crashSize is that of the upload that is cut off.
const crashSize = 5 << 20

// The points at which the child is killed: with an upload begun and no claim on
// record, with the claim on record and no byte written, in the middle of the body
// (as an offset), before and after the commit, while the image is looked at, and
// while the bytes are removed of an upload that was refused, or of an image.
var crashPoints = []string{"begun", "claimed", "0", "3145728", "5242880", "committing", "committed", "stored", "refused", "deleted"}

// TestACrashInTheMiddleOfAnUploadLeavesNothing kills a child with an upload under
// way: no code of ours runs any more, as when the power fails.
func TestACrashInTheMiddleOfAnUploadLeavesNothing(t *testing.T) {
	if dir := os.Getenv(crashFolder); dir != "" {
		uploadUntilKilled(t, dir, os.Getenv(crashPoint))
		return
	}
	for _, point := range crashPoints {
		t.Run(point, func(t *testing.T) {
			dir := t.TempDir()
			killAt(t, dir, point)

			w := openWorld(t, dir, withTiny)
			good := tinyImage('g', crashSize)
			id := crashID
			if point == "deleted" {
				w.wantNothingStored(t)
				if u, err := w.records.Usage(t.Context(), "p"); err != nil || u != (catalog.Usage{}) {
					t.Errorf("usage %+v, %v; want none", u, err)
				}
				_, err := w.Get(t.Context(), crashID)
				wantErr(t, err, catalog.ErrNotFound)
				id = w.queued(t, "vhd", "bare").ID
			} else {
				w.wantUntouched(t, crashID)
				if name := *w.get(t, crashID).Name; name != "sự cố 断电" {
					t.Errorf("the image is called %q", name)
				}
			}
			if err := w.Upload(t.Context(), id, bytes.NewReader(good), catalog.UploadOptions{Size: -1}); err != nil {
				t.Fatalf("the next upload: %v", err)
			}
			w.wantStored(t, id, good)
		})
	}
}

// Another daemon's uploads are its own: they may be under way this moment.
func TestUploadsOfAnotherNodeAreNotSwept(t *testing.T) {
	dir := t.TempDir()
	killAt(t, dir, "3145728")
	w := openWorld(t, dir, func(cfg *catalog.Config) {
		withTiny(cfg)
		cfg.Node = "another"
	})
	if img := w.get(t, crashID); img.Status != catalog.Saving || img.Node != "test" {
		t.Errorf("another node's upload after our start: %+v", img)
	}
	w.restart(t, withTiny)
	if img := w.get(t, crashID); img.Status != catalog.Saving {
		t.Errorf("another node's upload after our second start: %s", img.Status)
	}
}

// killAt runs a child until it says that it has come to point, and kills it.
func killAt(t *testing.T, dir, point string) {
	t.Helper()
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestACrashInTheMiddleOfAnUploadLeavesNothing$")
	child.Env = append(os.Environ(), crashFolder+"="+dir, crashPoint+"="+point)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var said []string
	there := false
	for !there && lines.Scan() {
		said = append(said, lines.Text())
		there = lines.Text() == "at "+point
	}
	child.Process.Kill()
	child.Wait()
	if !there {
		t.Fatalf("the child ended before it came to %s: %s", point, strings.Join(said, "\n"))
	}
}

// uploadUntilKilled is the child.
func uploadUntilKilled(t *testing.T, dir, point string) {
	stop := func() {
		fmt.Println("at " + point)
		io.Copy(io.Discard, os.Stdin) // the kill comes first, unless the parent has died
		os.Exit(1)
	}
	before := map[backendtest.Op]string{backendtest.OpWrite: "claimed", backendtest.OpCommit: "committing", backendtest.OpOpen: "stored",
		backendtest.OpAbandon: "refused", backendtest.OpDelete: "deleted"}
	after := map[backendtest.Op]string{backendtest.OpBegin: "begun", backendtest.OpCommit: "committed"}
	at := func(points map[backendtest.Op]string) func(backendtest.Op) error {
		return func(op backendtest.Op) error {
			if points[op] == point {
				stop()
			}
			return nil
		}
	}
	w := openWorld(t, dir, func(cfg *catalog.Config) {
		withTiny(cfg)
		cfg.Stores[0].Store = backendtest.Faulty{Store: cfg.Stores[0].Store, Fail: at(before), Lose: at(after)}
	})
	defect := byte('g')
	if point == "refused" {
		defect = 'c'
	}
	name, disk, container := "sự cố 断电", "vhd", "bare"
	img, err := w.Create(t.Context(), catalog.Image{ID: crashID, Name: &name, Owner: "p", DiskFormat: &disk, ContainerFormat: &container})
	if err != nil {
		t.Fatal(err)
	}
	var body io.Reader = bytes.NewReader(tinyImage(defect, crashSize))
	var off int64
	if n, _ := fmt.Sscanf(point, "%d", &off); n == 1 {
		body = &hooked{r: body, off: off, at: stop}
	}
	if err := w.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	t.Fatal("the upload went through")
}
