package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"glanced/contrib/testbed"
)

// site is a place in a server of the test's own, with nothing in it: what the tests of
// all stores that are far know of one. Each kind of store makes its own.
type site struct {
	config  func(dir string) string // writes a configuration with it as the default store, far; its path
	images  func() []string         // ids of the images of which there is something, in order
	left    func() []string         // all that is there
	begun   func(id string) bool    // bytes have come of an upload of this image, which is under way
	secrets []string                // which nobody may be told
	noise   int                     // how much of a large image is data, MiB
}

// wantUntold fails if the daemon has written a store's secrets anywhere.
func (p *process) wantUntold(secrets ...string) {
	p.t.Helper()
	_, list := p.call("GET", "/v2/images?limit=1000", "", nil)
	_, status := p.call("GET", "/admin/status", "", nil)
	for what, text := range map[string]string{"the log": p.log.String(), "the images": fmt.Sprint(list), "the status": fmt.Sprint(status)} {
		if slices.ContainsFunc(secrets, func(secret string) bool { return strings.Contains(text, secret) }) {
			p.t.Errorf("%s tell the store's secrets: %s", what, text)
		}
	}
}

// wantDeleted deletes images, after which nothing may be left.
func (p *process) wantDeleted(s site, ids ...string) {
	p.t.Helper()
	for _, id := range ids {
		p.delete(id)
	}
	if left := s.left(); len(left) > 0 {
		p.t.Errorf("left in the store: %v", left)
	}
}

// largeDisk is a disk with holes, and a file of its qcow2.
func largeDisk(t *testing.T, noiseMiB int) (disk, image []byte, file string) {
	t.Helper()
	raw, file := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "disk.qcow2")
	disk = make([]byte, 40<<20)
	copy(disk[1<<20:], noise(1, noiseMiB<<20))
	copy(disk[30<<20:], noise(2, 3<<20))
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, file)
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return disk, image, file
}

// uploadQcow2 makes an image of a qcow2; known: its size is announced.
func (p *process) uploadQcow2(image []byte, known bool) (id string) {
	p.t.Helper()
	status, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(`{"disk_format":"qcow2","container_format":"bare"}`))
	if status != http.StatusCreated {
		p.t.Fatalf("create: %d %v", status, img)
	}
	id = img["id"].(string)
	req, err := http.NewRequest("PUT", "http://control/v2/images/"+id+"/file", bytes.NewReader(image))
	if err != nil {
		p.t.Fatal(err)
	}
	if !known {
		req.ContentLength = -1
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		p.t.Fatalf("upload: %s\n%s", resp.Status, p.log)
	}
	return id
}

// servedByEveryDoor takes in a large image of known size, one of unknown size and a small
// one, and has every door serve them, before a restart and after it. It returns a
// daemon that runs, and the images.
func servedByEveryDoor(t *testing.T, s site) (p *process, ids []string) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	dir := t.TempDir()
	p = startDaemon(t, dir, "--config", s.config(dir))
	disk, image, file := largeDisk(t, s.noise)
	large := []string{p.uploadQcow2(image, true), p.uploadQcow2(image, false)}
	tiny := noise(3, 102_400)
	small := p.create("small", "private", tiny)
	ids = append(slices.Clone(large), small)
	if got := s.images(); !slices.Equal(got, slices.Sorted(slices.Values(ids))) {
		t.Fatalf("images in the store: %v, want %v", got, ids)
	}
	for range 2 {
		for _, id := range large {
			if out := testbed.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", p.export(id), file); !strings.Contains(out, "identical") {
				t.Errorf("NBD: %s", out)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "mnt/images", id, "disk")); err != nil || !bytes.Equal(got, disk) {
				t.Errorf("mount: %d bytes, %v", len(got), err)
			}
			if status, got := p.download(id); status != http.StatusOK || !bytes.Equal(got, image) {
				t.Errorf("HTTP: %d, %d bytes", status, len(got))
			}
		}
		p.wantServed(small, tiny)
		p.wantUntold(s.secrets...)
		p.end(syscall.SIGTERM)
		p = p.again()
	}
	return p, ids
}

// servesWhatGlancePut has an image's data be where Glance put it, as put does, which
// returns its location. It returns a daemon that runs and has served it.
func servesWhatGlancePut(t *testing.T, s site, put func(id string, content []byte) (url string)) (p *process, id string, content []byte) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	dir := t.TempDir()
	p = startDaemon(t, dir, "--config", s.config(dir))
	content = noise(3, 12<<20)
	id = p.create("by-glance", "private", content)
	p.end(syscall.SIGTERM)
	url := put(id, content)
	db, err := sql.Open("sqlite3", filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`UPDATE locations SET url = ?, size = -1, version = ''`, url); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p = p.again()
	p.wantServed(id, content)
	p.wantUntold(s.secrets...)
	return p, id, content
}

// leavesNothingOfAKilledUpload kills the daemon in an upload, and looks at what the next
// one makes of it.
func leavesNothingOfAKilledUpload(t *testing.T, s site) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	dir := t.TempDir()
	p := startDaemon(t, dir, "--config", s.config(dir))
	content := noise(5, 6<<20)
	kept := p.create("kept", "private", content)
	cut := p.create("cut", "private", nil)
	p.trickle(cut)
	for end := time.Now().Add(2 * time.Minute); !s.begun(cut); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no byte has come within two minutes\n%s", p.log)
		}
	}
	p.end(syscall.SIGKILL)
	p = p.again()
	if a, b := p.status(kept), p.status(cut); a != "active" || b != "queued" {
		t.Errorf("after a restart: kept is %s, cut is %s", a, b)
	}
	if got := s.images(); !slices.Equal(got, []string{kept}) {
		t.Errorf("images in the store: %v, want the one finished\n%s", got, p.log)
	}
	p.wantServed(kept, content)
	p.wantDeleted(s, kept)
}

// aCheckSays has a daemon of a configuration check its far store; want is in what is
// wrong, "" = nothing is.
func aCheckSays(t *testing.T, config func(dir string) string, want string, secrets ...string) {
	t.Helper()
	dir := t.TempDir()
	p := startDaemon(t, dir, "--config", config(dir))
	status, check := p.call("POST", "/admin/stores/far/check", "application/octet-stream", nil)
	if text := fmt.Sprint(check); status != http.StatusOK || check["ok"] != (want == "") || !strings.Contains(text, want) {
		t.Errorf("%d %s, want %q", status, text, want)
	}
	p.wantUntold(secrets...)
	p.end(syscall.SIGTERM)
}
