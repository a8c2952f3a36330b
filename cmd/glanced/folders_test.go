package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	_ "github.com/mattn/go-sqlite3"

	"glanced/contrib/testbed"
)

// download is an image's data, over HTTP.
func (p *process) download(id string) (int, []byte) {
	p.t.Helper()
	resp, err := p.client.Get("http://control/v2/images/" + id + "/file")
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, body
}

// wantServed fails unless every door serves an image of this raw disk.
func (p *process) wantServed(id string, want []byte) {
	p.t.Helper()
	if status, got := p.download(id); status != http.StatusOK || !bytes.Equal(got, want) {
		p.t.Errorf("HTTP: %d, %d bytes of %d, or others", status, len(got), len(want))
	}
	for _, file := range []string{"disk", "file"} {
		if got, err := os.ReadFile(filepath.Join(p.dir, "mnt/images", id, file)); err != nil || !bytes.Equal(got, want) {
			p.t.Errorf("%s: %d bytes, %v", file, len(got), err)
		}
	}
	if got := testbed.Run(p.t, "nbdinfo", "--size", p.export(id)); got != fmt.Sprintln(len(want)) {
		p.t.Errorf("NBD: %s bytes", got)
	}
}

func (p *process) export(id string) string {
	return "nbd+unix:///" + id + "?socket=" + filepath.Join(p.dir, "nbd.sock")
}

func (p *process) delete(id string) {
	p.t.Helper()
	if status, v := p.call("DELETE", "/v2/images/"+id, "", nil); status != http.StatusNoContent {
		p.t.Errorf("delete: %d %v", status, v)
	}
}

func TestAMovedDataFolderIsUnderstood(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	for name, move := range map[string]func(from, to string) error{
		"moved":                 os.Rename,
		"copied with its times": func(from, to string) error { return exec.Command("cp", "-a", from, to).Run() },
		"copied":                func(from, to string) error { return exec.Command("cp", "-r", from, to).Run() },
		"through an archive": func(from, to string) error {
			return exec.Command("sh", "-c", `mkdir "$2" && tar -C "$1" -c . | tar -C "$2" -x`, "sh", from, to).Run()
		},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			old, dir := filepath.Join(root, "old"), filepath.Join(root, "new")
			p := startDaemon(t, old)
			disks := map[string][]byte{}
			for _, n := range []int{0, 1, 5000, 300_000} {
				disk := bytes.Repeat([]byte{byte(n), 'x'}, n/2)
				disks[p.create("kept", "private", disk)] = disk
			}
			cut := p.create("cut", "private", nil)
			if err := p.end(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := move(old, dir); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(old); err != nil {
				t.Fatal(err)
			}
			// cp -r gives the token the mode that the umask leaves.
			if err := os.Chmod(filepath.Join(dir, "admin.token"), 0o600); err != nil {
				t.Fatal(err)
			}
			p = startDaemon(t, dir)
			for id, disk := range disks {
				p.wantServed(id, disk)
			}
			if status, _ := p.call("PUT", "/v2/images/"+cut+"/file", "application/octet-stream", strings.NewReader("again")); status != http.StatusNoContent {
				t.Errorf("an upload at the new place: %d", status)
			}
			for id := range disks {
				p.delete(id)
			}
			p.delete(cut)
			if left := storedFiles(t, dir); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// versionTwo makes a data folder as the daemon of database version 2 left it, when
// its folder was at home. Each image's data is its name, over and over.
func versionTwo(t *testing.T, dir, home string) (active map[string][]byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/version2.sql")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "images"), 0o750); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite3", filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(strings.ReplaceAll(string(text), "%DIR%", home)); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Query(`SELECT id, name, status FROM images`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	active = map[string][]byte{}
	for rows.Next() {
		var id, name, status string
		if err := rows.Scan(&id, &name, &status); err != nil {
			t.Fatal(err)
		}
		data := bytes.Repeat([]byte("the disk of image "+name+"\n"), 300)
		if status == "active" {
			active[id] = data
		}
		if name == "begun" { // it had no name in the folder yet
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "images", id), data, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	const node = "5c9a3f0e-7d1b-4c38-9d55-0f6f3a1c2b77"
	if err := os.WriteFile(filepath.Join(dir, "node-id"), []byte(node+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return active
}

func TestADataFolderOfTheVersionBeforeIsTakenOver(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	dir := t.TempDir()
	active := versionTwo(t, dir, dir)
	if got := storedFiles(t, dir); len(got) != 5 || len(active) != 2 {
		t.Fatalf("the fixture: %v, active %d", got, len(active))
	}
	for range 2 {
		p := startDaemon(t, dir)
		for id, disk := range active {
			p.wantServed(id, disk)
		}
		if got := storedFiles(t, dir); len(got) != 2 {
			t.Errorf("stored: %v, want the active images' files", got)
		}
		for n := 4; n <= 6; n++ {
			if got := p.status(fmt.Sprintf("%08d-2222-4222-8222-222222222222", n)); got != "queued" {
				t.Errorf("image %d is %s", n, got)
			}
		}
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	p := startDaemon(t, dir)
	for n := 4; n <= 6; n++ {
		id := fmt.Sprintf("%08d-2222-4222-8222-222222222222", n)
		p.call("PATCH", "/v2/images/"+id, "application/openstack-images-v2.1-json-patch", strings.NewReader(`[{"op":"replace","path":"/disk_format","value":"raw"}]`))
		if status, v := p.call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", strings.NewReader("again")); status != http.StatusNoContent {
			t.Errorf("an upload to image %d: %d %v", n, status, v)
		}
		p.wantServed(id, []byte("again"))
	}
	for id := range active {
		p.delete(id)
	}
	if got := storedFiles(t, dir); len(got) != 3 {
		t.Errorf("stored: %v, want the three that were uploaded again", got)
	}
}

// The folder was moved and the program renewed at once. What uploads left cannot be
// told from what may be somebody's; all else is as it was.
func TestAMovedDataFolderOfTheVersionBeforeIsTakenOver(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	dir := t.TempDir()
	active := versionTwo(t, dir, "/nowhere/glance")
	p := startDaemon(t, dir)
	for id, disk := range active {
		p.wantServed(id, disk)
	}
	var names []string
	for _, file := range storedFiles(t, dir) {
		names = append(names, filepath.Base(file)[:8])
	}
	if want := []string{"00000001", "00000002", "00000004", "00000006"}; !slices.Equal(names, want) {
		t.Errorf("stored: %v, want %v", names, want)
	}
	if status, v := p.call("PUT", "/v2/images/00000005-2222-4222-8222-222222222222/file", "application/octet-stream", strings.NewReader("again")); status != http.StatusNoContent {
		t.Errorf("an upload of what had left nothing: %d %v", status, v)
	}
	for id := range active {
		p.delete(id)
		if _, err := os.Stat(filepath.Join(dir, "images", id)); !os.IsNotExist(err) {
			t.Errorf("deleted, and %v", err)
		}
	}
}

func TestATruncatedImageIsServedAtNoDoor(t *testing.T) {
	needNBDsh(t)
	testbed.Need(t, "qemu-img", "qemu-utils")
	dir := t.TempDir()
	p := startDaemon(t, dir)
	id := p.create("cut off", "private", bytes.Repeat([]byte("a disk "), 100_000))
	file := filepath.Join(dir, "images", id)

	// One NBD client has it open before, and one comes after.
	script := fmt.Sprintf(`
import os
assert h.pread(10, 0) == b"a disk a d"
os.truncate(%q, 350000)
try:
    h.pread(512, 600000)
    print("read")
except nbd.Error as e:
    print("error", e.errno)
assert h.pread(7, 0) == b"a disk "
`, file)
	if got := testbed.Run(t, "nbdsh", "-u", p.export(id), "-c", script); got != "error EIO\n" {
		t.Errorf("NBD, open before: %q", got)
	}
	if out, err := exec.Command("qemu-img", "info", p.export(id)).CombinedOutput(); err == nil || !strings.Contains(string(out), "not what was uploaded") {
		t.Errorf("NBD: %v\n%s", err, out)
	}
	if status, body := p.download(id); status != http.StatusServiceUnavailable || !strings.Contains(string(body), "not what was uploaded") {
		t.Errorf("HTTP: %d %.100s", status, body)
	}
	for _, name := range []string{"disk", "file"} {
		if got, err := os.ReadFile(filepath.Join(dir, "mnt/images", id, name)); !strings.Contains(fmt.Sprint(err), "input/output error") {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said := 0
	for line := range strings.Lines(p.log.String()) {
		if strings.Contains(line, "not what the image's record says") {
			said++
			for _, want := range []string{id, "700000", `"store":"local"`} {
				if !strings.Contains(line, want) {
					t.Errorf("the log does not say %s: %s", want, line)
				}
			}
		}
	}
	if said != 1 {
		t.Errorf("the log says it %d times:\n%s", said, p.log)
	}
}

// needNBDsh wants nbdsh, and has it run.
func needNBDsh(t *testing.T) {
	t.Helper()
	testbed.Need(t, "nbdsh", "python3-libnbd")
	// nbdsh takes the python3 of the path, and needs the one beside it.
	if nbdsh, err := exec.LookPath("nbdsh"); err == nil {
		t.Setenv("PATH", filepath.Dir(nbdsh)+":"+os.Getenv("PATH"))
	}
}
