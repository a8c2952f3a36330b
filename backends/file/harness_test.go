package file

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glanced/contrib/testbed"
)

// mustMount mounts a tmpfs, which needs root.
func mustMount(t *testing.T, dir, options string) {
	t.Helper()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		needRoot(t, err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// mustRemountReadOnly makes what is in dir read-only, for root too.
func mustRemountReadOnly(t *testing.T, dir string) {
	t.Helper()
	err := unix.Mount(dir, dir, "", unix.MS_BIND, "")
	if err == nil {
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		err = unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	}
	if err != nil {
		needRoot(t, err)
	}
}

func needRoot(t *testing.T, err error) {
	t.Helper()
	testbed.Unable(t, fmt.Sprintf("cannot mount: %v; run this test as root", err))
}

// copyFolder copies the files of one folder into another as cp -r does: new files,
// with times of their own.
func copyFolder(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// endless yields noise, and tells the parent when some of it was taken.
type endless struct {
	block []byte
	taken int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.block)
	e.taken += n
	if before := e.taken - n; before < 4<<20 && e.taken >= 4<<20 {
		os.Stdout.Write([]byte{1})
	}
	if e.taken > 4<<20 {
		time.Sleep(time.Millisecond) // spare the disk until the kill comes
	}
	return n, nil
}
