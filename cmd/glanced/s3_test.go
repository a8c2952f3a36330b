package main

import (
	"bytes"
	"database/sql"
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

// s3Config writes a configuration with a bucket as the default store, and a folder
// beside it.
func s3Config(t *testing.T, dir string, srv testbed.S3Server) string {
	t.Helper()
	secret := filepath.Join(dir, "s3.secret")
	config := filepath.Join(t.TempDir(), "glanced.toml")
	text := fmt.Sprintf(`data_dir = %q
[[stores]]
id = "far"
type = "s3"
default = true
endpoint = %q
bucket = %q
prefix = "images/"
access_key = %q
secret_key_file = "s3.secret"
part_size = "5MiB"
[[stores]]
id = "local"
type = "file"
path = "images"
`, dir, srv.Endpoint, srv.Bucket, srv.AccessKey)
	for path, text := range map[string]string{config: text, secret: srv.SecretKey} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// wantNoKeys fails if the daemon has written the store's keys anywhere.
func (p *process) wantNoKeys(srv testbed.S3Server) {
	p.t.Helper()
	_, list := p.call("GET", "/v2/images?limit=1000", "", nil)
	_, status := p.call("GET", "/admin/status", "", nil)
	for what, text := range map[string]string{"the log": p.log.String(), "the images": fmt.Sprint(list), "the status": fmt.Sprint(status)} {
		if strings.Contains(text, srv.SecretKey) || strings.Contains(text, srv.AccessKey) {
			p.t.Errorf("%s tell the keys: %s", what, text)
		}
	}
}

func TestImagesInABucketAreServedByEveryDoor(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	srv := testbed.S3(t)
	dir := t.TempDir()
	config := s3Config(t, dir, srv)
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
	if got := srv.List(t); len(got) != 2 || !strings.HasPrefix(got[0], "images/") {
		t.Fatalf("in the bucket: %v", got)
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
		p.wantNoKeys(srv)
		p.end(syscall.SIGTERM)
		p = startDaemon(t, dir, "--config", config)
	}
	for _, id := range ids {
		p.delete(id)
	}
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the bucket: %v", left)
	}
}

// A site's images lie in its bucket already, and its records have the keys in them.
func TestAnImageThatGlancePutIntoABucketIsServedAndDeleted(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	srv := testbed.S3(t)
	dir := t.TempDir()
	config := s3Config(t, dir, srv)
	p := startDaemon(t, dir, "--config", config)
	content := noise(3, 12<<20)
	status, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(`{"disk_format":"raw","container_format":"bare"}`))
	if status != http.StatusCreated {
		t.Fatalf("create: %d %v", status, img)
	}
	id := img["id"].(string)
	if status, v := p.call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", bytes.NewReader(content)); status != http.StatusNoContent {
		t.Fatalf("upload: %d %v", status, v)
	}
	p.end(syscall.SIGTERM)

	// As Glance has it: under the bucket's root, in parts of 10 MiB, no version known.
	srv.Delete(t, "images/"+id)
	srv.PutParts(t, id, content, 10<<20)
	url := "s3://" + srv.AccessKey + ":" + srv.SecretKey + "@" + strings.TrimPrefix(srv.Endpoint, "http://") + "/" + srv.Bucket + "/" + id
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
	p = startDaemon(t, dir, "--config", config)
	p.wantServed(id, content)
	p.wantNoKeys(srv)

	// Overwritten behind our back, what is cached is what was recorded; the rest is not
	// served, and the error has no keys.
	srv.PutParts(t, id, noise(4, 12<<20), 10<<20)
	p.wantServed(id, content)
	if status, v := p.call("DELETE", "/admin/cache/"+id, "", nil); status != http.StatusOK {
		t.Fatalf("evict: %d %v", status, v)
	}
	if status, _ := p.download(id); status != http.StatusServiceUnavailable {
		t.Errorf("overwritten: %d", status)
	}
	p.wantNoKeys(srv)
	srv.PutParts(t, id, content, 10<<20)
	p.wantServed(id, content)
	p.delete(id)
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the bucket: %v", left)
	}
}

func TestAKillInAnUploadToABucketLeavesNothingThere(t *testing.T) {
	srv := testbed.S3(t)
	dir := t.TempDir()
	config := s3Config(t, dir, srv)
	p := startDaemon(t, dir, "--config", config)
	kept := p.create("kept", "private", noise(5, 6<<20))
	cut := p.create("cut", "private", nil)
	p.trickle(cut)
	for end := time.Now().Add(time.Minute); srv.Parts(t) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no part has come within a minute\n%s", p.log)
		}
	}
	p.end(syscall.SIGKILL)
	p = startDaemon(t, dir, "--config", config)
	if a, b := p.status(kept), p.status(cut); a != "active" || b != "queued" {
		t.Errorf("after a restart: kept is %s, cut is %s", a, b)
	}
	if got := srv.List(t); len(got) != 1 || got[0] != "images/"+kept {
		t.Errorf("in the bucket: %v, want the one finished image", got)
	}
	p.delete(kept)
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the bucket: %v", left)
	}
}

func TestACheckSaysWhatIsWrongWithABucket(t *testing.T) {
	srv := testbed.S3(t)
	for name, c := range map[string]struct {
		change func(*testbed.S3Server)
		want   string // "" = nothing is wrong
	}{
		"nothing":         {func(*testbed.S3Server) {}, ""},
		"a wrong secret":  {func(s *testbed.S3Server) { s.SecretKey += "x" }, "check access_key"},
		"no bucket":       {func(s *testbed.S3Server) { s.Bucket += "-x" }, "the bucket is not there"},
		"nobody is there": {func(s *testbed.S3Server) { s.Endpoint = "http://127.0.0.1:1" }, "connection refused"},
	} {
		wrong := srv
		c.change(&wrong)
		dir := t.TempDir()
		p := startDaemon(t, dir, "--config", s3Config(t, dir, wrong))
		status, check := p.call("POST", "/admin/stores/far/check", "application/octet-stream", nil)
		if text := fmt.Sprint(check); status != http.StatusOK || check["ok"] != (c.want == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s, want %q", name, status, text, c.want)
		}
		p.wantNoKeys(wrong)
		p.end(syscall.SIGTERM)
	}
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left in the bucket: %v", left)
	}
}
