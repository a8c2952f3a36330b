package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"glanced/contrib/testbed"
)

// swiftConfig writes a configuration with a container as the default store. Images of
// more than 4 MiB are in segments of 2 MiB.
func swiftConfig(t *testing.T, dir string, srv testbed.SwiftServer) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "glanced.toml")
	text := fmt.Sprintf(`data_dir = %q
[[stores]]
id = "far"
type = "swift"
auth_url = %q
user = %q
key_file = "swift.key"
container = %q
large_object_size = "4MiB"
large_object_chunk_size = "2MiB"
`, dir, srv.AuthURL, srv.User, srv.Container)
	for path, text := range map[string]string{config: text, filepath.Join(dir, "swift.key"): srv.Key} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

func TestImagesInAContainerAreServedByEveryDoor(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	srv := testbed.Swift(t)
	dir := t.TempDir()
	config := swiftConfig(t, dir, srv)
	p := startDaemon(t, dir, "--config", config)

	raw, qcow2 := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "disk.qcow2")
	disk := make([]byte, 20<<20)
	copy(disk[1<<20:], noise(1, 5<<20))
	copy(disk[15<<20:], noise(2, 1<<20))
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
	image, err := os.ReadFile(qcow2)
	if err != nil {
		t.Fatal(err)
	}
	status, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(`{"disk_format":"qcow2","container_format":"bare"}`))
	if status != http.StatusCreated {
		t.Fatalf("create: %d %v", status, img)
	}
	id := img["id"].(string)
	if status, v := p.call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", bytes.NewReader(image)); status != http.StatusNoContent {
		t.Fatalf("upload: %d %v\n%s", status, v, p.log)
	}
	small := p.create("small", "private", noise(3, 102_400))
	for range 2 {
		if out := testbed.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", p.export(id), qcow2); !strings.Contains(out, "identical") {
			t.Errorf("NBD: %s", out)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "mnt/images", id, "disk")); err != nil || !bytes.Equal(got, disk) {
			t.Errorf("mount: %d bytes, %v", len(got), err)
		}
		if status, got := p.download(id); status != http.StatusOK || !bytes.Equal(got, image) {
			t.Errorf("HTTP: %d, %d bytes", status, len(got))
		}
		p.wantServed(small, noise(3, 102_400))
		p.end(syscall.SIGTERM)
		p = startDaemon(t, dir, "--config", config)
	}
	_, list := p.call("GET", "/v2/images?limit=1000", "", nil)
	if said := p.log.String() + fmt.Sprint(list); strings.Contains(said, srv.Key) {
		t.Errorf("the key is told: %s", said)
	}
	p.delete(id)
	p.delete(small)
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the container: %v", left)
	}
}

func TestAKillInAnUploadToAContainerLeavesNothingThere(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	srv := testbed.Swift(t)
	dir := t.TempDir()
	config := swiftConfig(t, dir, srv)
	p := startDaemon(t, dir, "--config", config)
	kept := p.create("kept", "private", noise(5, 5<<20))
	before := len(srv.List(t))
	cut := p.create("cut", "private", nil)
	p.trickle(cut)
	for end := time.Now().Add(2 * time.Minute); len(srv.List(t)) <= before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no segment has come within two minutes\n%s", p.log)
		}
	}
	p.end(syscall.SIGKILL)
	p = startDaemon(t, dir, "--config", config)
	if a, b := p.status(kept), p.status(cut); a != "active" || b != "queued" {
		t.Errorf("after a restart: kept is %s, cut is %s", a, b)
	}
	if got := srv.List(t); len(got) != before {
		t.Errorf("in the container: %v, want the one finished image", got)
	}
	p.wantServed(kept, noise(5, 5<<20))
	p.delete(kept)
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the container: %v", left)
	}
}
