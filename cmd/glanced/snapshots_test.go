package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"glanced/contrib/testbed"
)

// tool runs a program of the Debian package pkg, and is its output.
func tool(t *testing.T, pkg, name string, args ...string) string {
	t.Helper()
	testbed.Need(t, name, pkg)
	return testbed.Run(t, name, args...)
}

// A qcow2 keeps earlier states of its disk inside. Each is an export and a file.
func TestSnapshotsAreExportsAndFiles(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "image")
	qemu := func(args ...string) { tool(t, "qemu-utils", "qemu-img", args...) }
	write := func(pattern int, where string) {
		tool(t, "qemu-utils", "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -q -P %d %s", pattern, where), image)
	}
	qemu("create", "-q", "-f", "qcow2", image, "8M")
	write(1, "0 3M")
	qemu("snapshot", "-c", "first install", image)
	write(2, "2M 100k")
	qemu("resize", "-q", "-f", "qcow2", image, "12M")
	write(3, "11M 64k")
	qemu("snapshot", "-c", "second", image)
	write(4, "0 1M")
	truth := func(name, snapshot string) string {
		path := filepath.Join(dir, name)
		if snapshot == "" {
			qemu("convert", "-O", "raw", image, path)
		} else {
			qemu("convert", "-O", "raw", "-l", "snapshot.name="+snapshot, image, path)
		}
		return path
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}

	p := startDaemon(t, t.TempDir())
	code, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(
		`{"name": "disk", "disk_format": "qcow2", "container_format": "bare", "visibility": "public"}`))
	if code != 201 {
		t.Fatalf("create: %d %v", code, img)
	}
	id := img["id"].(string)
	if code, answer := p.call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", bytes.NewReader(data)); code != 204 {
		t.Fatalf("upload: %d %v", code, answer)
	}
	sock := filepath.Join(p.dir, "nbd.sock")
	list := tool(t, "libnbd-bin", "nbdinfo", "--list", "nbd+unix://?socket="+sock)
	for snapshot, size := range map[string]int64{"": 12 << 20, "first install": 8 << 20, "second": 12 << 20} {
		want := truth("truth", snapshot)
		export, file := id, "images/"+id+"/disk"
		if snapshot != "" {
			export, file = id+"@"+snapshot, "images/"+id+"/snapshots/"+snapshot
		}
		if !strings.Contains(list, fmt.Sprintf("export=%q", export)) {
			t.Errorf("export %q is not listed:\n%s", export, list)
		}
		for _, uri := range []string{
			"nbd+unix:///" + strings.ReplaceAll(export, " ", "%20") + "?socket=" + sock,
			filepath.Join(p.dir, "mnt", file),
		} {
			if out := tool(t, "qemu-utils", "qemu-img", "compare", "-f", "raw", "-F", "raw", want, uri); !strings.Contains(out, "identical") {
				t.Errorf("%s: %s", uri, out)
			}
		}
		// qemu-img gives a snapshot the length that the disk has now; it had its own.
		if on, err := os.Stat(filepath.Join(p.dir, "mnt", file)); err != nil || on.Size() != size {
			t.Errorf("%s: %v, want %d bytes", file, on, size)
		}
	}
	if _, err := os.Stat(filepath.Join(p.dir, "mnt/images", id, "snapshots", "third")); !os.IsNotExist(err) {
		t.Errorf("a snapshot that is not there: %v", err)
	}
	for _, none := range []string{"@third", "@"} {
		if out, err := exec.Command("nbdinfo", "nbd+unix:///"+id+none+"?socket="+sock).CombinedOutput(); err == nil {
			t.Errorf("an export that is not there, %s, opens: %s", none, out)
		}
	}
}
