package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"glanced/contrib/testbed"
)

// fill takes every free byte of the file system at dir.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for piece := make([]byte, 1<<20); len(piece) > 0; {
		if _, err := f.Write(piece); errors.Is(err, unix.ENOSPC) {
			piece = piece[:len(piece)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Bavail > 0 {
		t.Fatalf("%d blocks are free, %v", st.Bavail, err)
	}
}

// With database, images and spool on one disk that has no free byte, images can be
// deleted, also after a restart; and nothing is taken in that would use up what that needs.
func TestImagesCanBeDeletedOnAFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64m"); err != nil {
		testbed.Unable(t, fmt.Sprintf("cannot mount: %v; run this test as root", err))
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	p := startDaemon(t, dir)
	var ids []string
	for range 4 {
		ids = append(ids, p.create("disk", "public", bytes.Repeat([]byte("d"), 2<<20)))
	}
	for i, id := range ids {
		fill(t, dir)
		if i == 2 {
			if err := p.end(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			fill(t, dir)
			p = startDaemon(t, dir)
			fill(t, dir)
		}
		for range 50 {
			if status, v := p.call("POST", "/v2/images", "application/json", strings.NewReader(`{"name":"more"}`)); status != http.StatusInsufficientStorage {
				t.Fatalf("a record more on a full disk: %d %v", status, v)
			}
		}
		if status, v := p.call("DELETE", "/v2/images/"+id, "", nil); status != http.StatusNoContent {
			t.Fatalf("deletion number %d on a full disk: %d %v", i+1, status, v)
		}
		if status, v := p.call("GET", "/v2/images/"+id, "", nil); status != http.StatusNotFound {
			t.Errorf("the deleted image: %d %v", status, v)
		}
		if status, v := p.call("POST", "/v2/images", "application/json", strings.NewReader(`{"name":"more"}`)); status != http.StatusCreated {
			t.Errorf("a record when there is room again: %d %v", status, v)
		}
	}
}
