//go:build ceph

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

// cephConfig writes a configuration with a pool of a Ceph cluster as the default store.
func cephConfig(t *testing.T, dir string, srv testbed.RBDServer) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "glanced.toml")
	text := fmt.Sprintf(`data_dir = %q
[[stores]]
id = "ceph"
type = "rbd"
default = true
pool = %q
user = %q
conf = %q
keyring = %q
timeout = "10s"
[[stores]]
id = "local"
type = "file"
path = "images"
`, dir, srv.Pool, srv.User, srv.Conf, srv.Keyring)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// wantNoKey fails if the daemon has written the user's key anywhere.
func (p *process) wantNoKey(srv testbed.RBDServer) {
	p.t.Helper()
	_, list := p.call("GET", "/v2/images?limit=1000", "", nil)
	_, status := p.call("GET", "/admin/status", "", nil)
	if text := p.log.String() + fmt.Sprint(list, status); strings.Contains(text, srv.Key) {
		p.t.Errorf("the key is told: %s", text)
	}
}

func TestImagesInCephAreServedByEveryDoor(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	srv := testbed.RBD(t)
	dir := t.TempDir()
	config := cephConfig(t, dir, srv)
	p := startDaemon(t, dir, "--config", config)

	raw, qcow2 := filepath.Join(t.TempDir(), "disk.raw"), filepath.Join(t.TempDir(), "disk.qcow2")
	disk := make([]byte, 40<<20)
	copy(disk[1<<20:], noise(1, 13<<20))
	copy(disk[30<<20:], noise(2, 3<<20))
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, qcow2)
	image, err := os.ReadFile(qcow2)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, known := range []bool{true, false} {
		status, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(`{"disk_format":"qcow2","container_format":"bare"}`))
		if status != http.StatusCreated {
			t.Fatalf("create: %d %v", status, img)
		}
		id := img["id"].(string)
		req, err := http.NewRequest("PUT", "http://control/v2/images/"+id+"/file", bytes.NewReader(image))
		if err != nil {
			t.Fatal(err)
		}
		if !known {
			req.ContentLength = -1
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Fatalf("upload: %s\n%s", resp.Status, p.log)
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	if got := strings.Fields(srv.Run(t, "rbd", "ls", "--pool", srv.Pool)); !slices.Equal(got, ids) {
		t.Fatalf("images in the pool: %v, want %v", got, ids)
	}
	for range 2 {
		for _, id := range ids {
			if out := testbed.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", p.export(id), qcow2); !strings.Contains(out, "identical") {
				t.Errorf("NBD: %s", out)
			}
			if got, err := os.ReadFile(filepath.Join(dir, "mnt/images", id, "disk")); err != nil || !bytes.Equal(got, disk) {
				t.Errorf("mount: %d bytes, %v", len(got), err)
			}
			if status, got := p.download(id); status != http.StatusOK || !bytes.Equal(got, image) {
				t.Errorf("HTTP: %d, %d bytes", status, len(got))
			}
		}
		p.wantNoKey(srv)
		p.end(syscall.SIGTERM)
		p = startDaemon(t, dir, "--config", config)
	}
	// One that was cloned, as Nova does, keeps its bytes until its clone is gone, and the
	// daemon starts again.
	srv.Run(t, "rbd", "clone", srv.Pool+"/"+ids[0]+"@snap", srv.Pool+"/guest")
	for _, id := range ids {
		p.delete(id)
	}
	if got := strings.Fields(srv.Run(t, "rbd", "ls", "--pool", srv.Pool)); len(got) != 2 {
		t.Errorf("images in the pool: %v, want the clone and its parent", got)
	}
	srv.Run(t, "rbd", "rm", srv.Pool+"/guest")
	p.end(syscall.SIGTERM)
	startDaemon(t, dir, "--config", config)
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the pool: %v", left)
	}
}

// A site's images lie in its pool already, as Glance put them there.
func TestAnImageThatGlancePutIntoCephIsServedAndDeleted(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	srv := testbed.RBD(t)
	dir := t.TempDir()
	config := cephConfig(t, dir, srv)
	p := startDaemon(t, dir, "--config", config)
	content := noise(3, 12<<20)
	id := p.create("by-glance", "private", content)
	p.end(syscall.SIGTERM)

	srv.Remove(t, id)
	srv.Import(t, id, content)
	db, err := sql.Open("sqlite3", filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	url := "rbd://" + srv.FSID + "/" + srv.Pool + "/" + id + "/snap"
	if _, err := db.Exec(`UPDATE locations SET url = ?, size = -1, version = ''`, url); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p = startDaemon(t, dir, "--config", config)
	p.wantServed(id, content)
	p.wantNoKey(srv)
	p.delete(id)
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the pool: %v", left)
	}
}

func TestAKillInAnUploadToCephLeavesNothingThere(t *testing.T) {
	srv := testbed.RBD(t)
	dir := t.TempDir()
	config := cephConfig(t, dir, srv)
	p := startDaemon(t, dir, "--config", config)
	kept := p.create("kept", "private", noise(5, 6<<20))
	cut := p.create("cut", "private", nil)
	p.trickle(cut)
	for end := time.Now().Add(time.Minute); !slices.ContainsFunc(srv.List(t), func(name string) bool { return strings.HasPrefix(name, "image glanced-upload-") }); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no byte has come within a minute\n%s", p.log)
		}
	}
	p.end(syscall.SIGKILL)
	p = startDaemon(t, dir, "--config", config)
	if a, b := p.status(kept), p.status(cut); a != "active" || b != "queued" {
		t.Errorf("after a restart: kept is %s, cut is %s", a, b)
	}
	if got := strings.Fields(srv.Run(t, "rbd", "ls", "--pool", srv.Pool)); len(got) != 1 || got[0] != kept {
		t.Errorf("images in the pool: %v, want the one finished\n%s", got, p.log)
	}
	p.delete(kept)
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the pool: %v", left)
	}
}

func TestACheckSaysWhatIsWrongWithCeph(t *testing.T) {
	srv := testbed.RBD(t)
	other := srv.NewPool(t)
	for name, c := range map[string]struct {
		change func(*testbed.RBDServer)
		want   string // "" = nothing is wrong
	}{
		"nothing":            {func(*testbed.RBDServer) {}, ""},
		"another user's key": {func(s *testbed.RBDServer) { s.Keyring = other.Keyring }, "keyring"},
		"no pool":            {func(s *testbed.RBDServer) { s.Pool += "-x" }, "there is no pool"},
	} {
		wrong := srv
		c.change(&wrong)
		dir := t.TempDir()
		p := startDaemon(t, dir, "--config", cephConfig(t, dir, wrong))
		status, check := p.call("POST", "/admin/stores/ceph/check", "application/octet-stream", nil)
		if text := fmt.Sprint(check); status != http.StatusOK || check["ok"] != (c.want == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s, want %q", name, status, text, c.want)
		}
		p.wantNoKey(srv)
		p.end(syscall.SIGTERM)
	}
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the pool: %v", left)
	}
}
