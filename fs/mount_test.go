package fs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"glanced/contrib/testbed"

	"golang.org/x/sys/unix"
)

// Set in the environment of this test program when it runs as a daemon to be killed.
const (
	childDir   = "GLANCED_TEST_CHILD_DIR"
	childMount = "GLANCED_TEST_CHILD_MOUNT"
)

func TestAStaleMountIsCleared(t *testing.T) {
	if dir := os.Getenv(childDir); dir != "" {
		w := openWorld(t, dir)
		w.uploaded("x", []byte("data"))
		w.serve(func(c *Config) { c.Mountpoint = os.Getenv(childMount) })
		os.Stdout.WriteString("mounted\n")
		io.Copy(io.Discard, os.Stdin) // until killed
		return
	}
	needFUSE(t)
	dir, mnt := t.TempDir(), filepath.Join(t.TempDir(), "a folder", "mnt")
	t.Cleanup(func() { mustNotBeMounted(t, mnt) })
	for range 2 { // the second daemon finds the first one's mount, and is killed too
		daemon := exec.Command(os.Args[0], "-test.run=^TestAStaleMountIsCleared$", "-test.v")
		daemon.Env = append(os.Environ(), childDir+"="+dir, childMount+"="+mnt)
		in, err := daemon.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		out, err := daemon.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := daemon.Start(); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		for p := make([]byte, 1024); !strings.Contains(said.String(), "mounted\n"); {
			n, err := out.Read(p)
			said.Write(p[:n])
			if err != nil {
				daemon.Process.Kill()
				daemon.Wait()
				t.Fatalf("the daemon ended: %s", said.String())
			}
		}
		if got, err := os.ReadFile(filepath.Join(mnt, "by-name", "x", "disk")); err != nil || string(got) != "data" {
			t.Errorf("the daemon's mount: %q, %v", got, err)
		}
		if err := daemon.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		daemon.Wait()
	}
	var st unix.Statfs_t
	if err := unix.Statfs(mnt, &st); !errors.Is(err, syscall.ENOTCONN) {
		t.Fatalf("the killed daemon left no stale mount: %v", err)
	}
	w := openWorld(t, dir)
	w.mount(func(c *Config) { c.Mountpoint = mnt })
	if got, err := os.ReadFile(filepath.Join(mnt, "by-name", "x", "disk")); err != nil || string(got) != "data" {
		t.Errorf("the new mount: %q, %v", got, err)
	}
}

func TestUnusableMountpointsAreRefusedWithTheReason(t *testing.T) {
	needFUSE(t)
	w := newWorld(t)
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(full, "precious")
	served := w.mount()
	for _, c := range []struct{ path, says string }{
		{full, `is not empty (it holds "precious")`},
		{file, "cannot be made"},
		{filepath.Join(file, "below"), "cannot be made"},
		{served, "another glanced serves"},
		{"", "no path"},
	} {
		s, err := Mount(t.Context(), Config{Catalog: w.Catalog, Mountpoint: c.path})
		if err == nil {
			s.Unmount()
		}
		if !errors.Is(err, ErrMountpoint) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("mounting at %q: %v, want it to say %q", c.path, err, c.says)
		}
	}
	if got := names(t, served); len(got) != 2 {
		t.Errorf("the mount that was there holds %q", got)
	}
}

func TestAMountpointIsMadeAndLinksToItAreFollowed(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	real := filepath.Join(dir, "with blank\\and\ttab")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	s := w.serve(func(c *Config) { c.Mountpoint = filepath.Join(dir, "link") })
	if s.Mountpoint() != real {
		t.Errorf("mounted at %q, want %q", s.Mountpoint(), real)
	}
	if got := names(t, filepath.Join(dir, "link")); len(got) != 2 {
		t.Errorf("through the link: %q", got)
	}
	if s.device == "" {
		t.Error("the mount was not found in mountinfo")
	}
}

func TestTheKernelReadsAheadAsConfigured(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ config, want int }{{0, 16384}, {256, 256}} {
		s := w.serve(func(cfg *Config) { cfg.ReadAheadKiB = c.config })
		got, err := os.ReadFile("/sys/class/bdi/" + s.device + "/read_ahead_kb")
		if err != nil {
			testbed.Unable(t, "sysfs is not mounted")
		}
		if want := c.want; strings.TrimSpace(string(got)) != strconv.Itoa(want) {
			t.Errorf("read_ahead_kb is %s, want %d", bytes.TrimSpace(got), want)
		}
	}
}

func TestUnmountWhileInUseFreesThePathAndTheImages(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("x", sparse())
	s := w.serve()
	f, err := os.Open(filepath.Join(s.Mountpoint(), "images", img.ID, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	mustNotBeMounted(t, s.Mountpoint())
	if len(s.t.open) != 0 {
		t.Error("an image is still held open")
	}
	if _, err := f.ReadAt(make([]byte, 4096), 7*mib); err == nil {
		t.Error("the open file reads on")
	}
	if err := s.Unmount(); err != nil {
		t.Errorf("again: %v", err)
	}
	// The path can be used again.
	s2 := w.serve(func(c *Config) { c.Mountpoint = s.Mountpoint() })
	if got := names(t, s2.Mountpoint()); len(got) != 2 {
		t.Errorf("mounted again: %q", got)
	}
}

func TestUnmountAfterSomebodyElseUnmounted(t *testing.T) {
	w := newWorld(t)
	s := w.serve()
	if err := unix.Unmount(s.Mountpoint(), 0); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	other := w.serve(func(c *Config) { c.Mountpoint = s.Mountpoint() })
	if err := s.Unmount(); err != nil {
		t.Error(err)
	}
	if got := names(t, other.Mountpoint()); len(got) != 2 {
		t.Errorf("the mount that took the place: %q", got)
	}
}

// The kernel holds every caller to the ACL of the root folder, also for what it has
// kept of others' lookups.
func TestOnlyThoseMayEnterWhoAreNamed(t *testing.T) {
	testbed.Need(t, "setpriv", "util-linux")
	w := newWorld(t)
	w.uploaded("x", []byte("data"))
	// A path that others can reach, unlike the test's own folder.
	mnt, err := os.MkdirTemp("/tmp", "glanced-mnt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(mnt) })
	if err := os.Chmod(mnt, 0o755); err != nil {
		t.Fatal(err)
	}
	w.mount(func(c *Config) {
		c.Mountpoint, c.Users, c.Groups = mnt, map[uint32]bool{64001: true, 64002: false}, []uint32{64100}
	})
	for range 2 {
		for who, enters := range map[string]bool{
			"--reuid=64001 --regid=64001 --clear-groups": true,
			"--reuid=64002 --regid=64002 --clear-groups": false,
			"--reuid=64002 --regid=64100 --clear-groups": false,
			"--reuid=64003 --regid=64100 --clear-groups": true,
			"--reuid=64003 --regid=64003 --groups=64100": true,
			"--reuid=64003 --regid=64003 --clear-groups": false,
		} {
			for _, command := range []string{"cat " + mnt + "/by-name/x/disk", "stat " + mnt + "/by-name/x", "ls " + mnt, "getfattr -d " + mnt + "/by-name/x/disk"} {
				out, err := exec.Command("setpriv", append(strings.Fields(who), strings.Fields(command)...)...).CombinedOutput()
				if (err == nil) != enters {
					t.Errorf("%s: %s: %v %s", who, command, err, out)
				}
			}
		}
	}
}
