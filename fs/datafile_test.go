package fs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"glanced/contrib/testbed"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func TestSeekFindsDataAndHoles(t *testing.T) {
	w := newWorld(t)
	data := sparse()
	img := w.uploaded("x", data)
	folder := filepath.Join(w.mount(), "images", img.ID)
	size := int64(len(data))
	for _, name := range []string{"disk", "file"} {
		f, err := os.Open(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, c := range []struct {
			whence    int
			from, got int64
			err       error
		}{
			{unix.SEEK_DATA, 0, mib, nil},
			{unix.SEEK_HOLE, 0, 0, nil},
			{unix.SEEK_HOLE, mib, 2 * mib, nil},
			{unix.SEEK_DATA, mib + 5, mib + 5, nil},
			{unix.SEEK_DATA, 2 * mib, 5 * mib, nil},
			{unix.SEEK_HOLE, 5*mib + 1, 5*mib + mib/2, nil},
			{unix.SEEK_DATA, 6 * mib, 8 * mib, nil},
			{unix.SEEK_HOLE, 8 * mib, size, nil},
			{unix.SEEK_HOLE, size - 1, size, nil},
			{unix.SEEK_DATA, size - 1, size - 1, nil},
			{unix.SEEK_DATA, size, 0, syscall.ENXIO},
			{unix.SEEK_HOLE, size, 0, syscall.ENXIO},
			{unix.SEEK_DATA, 1 << 62, 0, syscall.ENXIO},
			{io.SeekStart, 5, 5, nil},
			{io.SeekEnd, -5, size - 5, nil},
		} {
			got, err := unix.Seek(int(f.Fd()), c.from, c.whence)
			if err != c.err || err == nil && got != c.got {
				t.Errorf("%s: lseek(%d, %d) = %d, %v; want %d, %v", name, c.from, c.whence, got, err, c.got, c.err)
			}
		}
	}
}

func TestADiskThatEndsInAHoleHasNoDataAfterIt(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("x", make([]byte, mib))
	disk := filepath.Join(w.mount(), "images", img.ID, "disk")
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if *img.Allocated != 0 {
		t.Fatalf("a disk of zeros has %d bytes allocated", *img.Allocated)
	}
	if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("SEEK_DATA on a disk of zeros: %v", err)
	}
	if st := stat(t, disk); st.Blocks != 0 {
		t.Errorf("it has %d blocks", st.Blocks)
	}
}

func TestManyReadersSeeTheSameBytes(t *testing.T) {
	for _, passthrough := range []bool{false, true} {
		w := newWorld(t)
		data := sparse()
		img := w.uploaded("x", data)
		folder := filepath.Join(w.mount(func(c *Config) { c.Passthrough = passthrough }), "images", img.ID)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(7, uint64(i)))
				name := []string{"disk", "file"}[i%2]
				for range 5 {
					f, err := os.Open(filepath.Join(folder, name))
					if err != nil {
						t.Error(err)
						return
					}
					for range 20 {
						p := make([]byte, 1+r.IntN(200_000))
						off := r.Int64N(int64(len(data)))
						n, err := f.ReadAt(p, off)
						if err != nil && err != io.EOF || !bytes.Equal(p[:n], data[off:off+int64(n)]) || n < len(p) && off+int64(n) != int64(len(data)) {
							t.Errorf("%d bytes at %d of %s: %d, %v, or other bytes", len(p), off, name, n, err)
						}
					}
					f.Close()
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
	}
}

func TestMappedMemoryReads(t *testing.T) {
	w := newWorld(t)
	data := sparse()
	img := w.uploaded("x", data)
	f, err := os.Open(filepath.Join(w.mount(), "images", img.ID, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Read once by read(2): a page fault served by this very process could
	// leave the scheduler without a thread.
	if _, err := io.Copy(io.Discard, f); err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, len(data), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(m)
	if !bytes.Equal(m, data) {
		t.Error("other bytes")
	}
}

func TestDeactivationEndsReads(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("x", sparse())
	folder := filepath.Join(w.mount(), "images", img.ID)
	var open []*os.File
	for _, name := range []string{"disk", "file"} {
		f, err := os.Open(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := io.ReadFull(f, make([]byte, mib)); err != nil { // the kernel has pages of it now
			t.Fatal(err)
		}
		open = append(open, f)
	}
	if err := w.Deactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	for _, f := range open {
		eventually(t, "reads of a deactivated image fail", func() bool {
			_, err := f.ReadAt(make([]byte, 1000), 0)
			return errors.Is(err, syscall.EIO)
		})
		if _, err := f.ReadAt(make([]byte, 1000), 7*mib); !errors.Is(err, syscall.EIO) {
			t.Errorf("a read elsewhere: %v", err)
		}
		if _, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); !errors.Is(err, syscall.EIO) {
			t.Errorf("a seek: %v", err)
		}
		if _, err := os.Open(f.Name()); !errors.Is(err, syscall.EACCES) {
			t.Errorf("a new open: %v, want EACCES", err)
		}
		if st := stat(t, f.Name()); st.Size != int64(len(sparse())) {
			t.Errorf("stat says %d bytes", st.Size)
		}
	}
	if err := w.Reactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	for _, f := range open {
		got, err := os.ReadFile(f.Name())
		if err != nil || !bytes.Equal(got, sparse()) {
			t.Errorf("after reactivation: %v, or other bytes", err)
		}
		if _, err := f.ReadAt(make([]byte, 1000), 3*mib); err != nil && !errors.Is(err, syscall.EIO) {
			t.Errorf("the file that was open all the time: %v", err)
		}
	}
}

func TestDeletionEndsReads(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("x", sparse())
	mnt := w.mount()
	disk := filepath.Join(mnt, "images", img.ID, "disk")
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.ReadFull(f, make([]byte, mib)); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "reads of a deleted image fail", func() bool {
		_, err := f.ReadAt(make([]byte, 1000), 0)
		return errors.Is(err, syscall.EIO)
	})
	for _, path := range []string{disk, filepath.Dir(disk), filepath.Join(mnt, "by-name", "x")} {
		eventually(t, path+" is gone", func() bool {
			_, err := os.Lstat(path)
			return errors.Is(err, syscall.ENOENT)
		})
	}
	if _, err := os.Open(disk); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a new open: %v, want ENOENT", err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != int64(len(sparse())) || st.Sys().(*syscall.Stat_t).Nlink != 0 {
		t.Errorf("fstat of the open file: %v, %+v", err, st)
	}
}

func TestClosedFilesGiveTheirImagesBack(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("x", sparse())
	s := w.serve()
	for range 50 {
		if _, err := os.ReadFile(filepath.Join(s.Mountpoint(), "images", img.ID, "disk")); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all are closed", func() bool {
		s.t.openMu.Lock()
		defer s.t.openMu.Unlock()
		return len(s.t.open) == 0
	})
}

func TestAnInterruptedRequestHasAMomentMore(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	p := patiently(ctx)
	done := p.Done()
	if p.Err() != nil {
		t.Error("it is over before it was interrupted")
	}
	interrupt()
	select {
	case <-done:
		t.Error("it is over at once")
	default:
	}
	<-done
	if !errors.Is(p.Err(), context.Canceled) {
		t.Errorf("it ended with %v", p.Err())
	}
	p.release()

	ctx, interrupt = context.WithCancel(t.Context())
	p = patiently(ctx)
	done = p.Done()
	p.release()
	interrupt()
	select {
	case <-done:
		t.Error("an answered request was ended")
	default:
	}
}

// passingThrough mounts so that the kernel reads the local files itself.
func (w *world) passingThrough(change ...func(*Config)) *Server {
	w.t.Helper()
	var under unix.Statfs_t
	if err := unix.Statfs(w.t.TempDir(), &under); err != nil || under.Type == unix.OVERLAYFS_SUPER_MAGIC {
		testbed.Unable(w.t, "the kernel passes nothing through to an overlay: set TMPDIR to a disk or a tmpfs")
	}
	s := w.serve(append(change, func(c *Config) { c.Passthrough = true })...)
	if s.fuse.KernelSettings().Flags64()&fuse.CAP_PASSTHROUGH == 0 {
		testbed.Unable(w.t, "the kernel is older than 6.9 and passes nothing through")
	}
	return s
}

func TestPassthroughLetsTheKernelReadTheLocalFile(t *testing.T) {
	w := newWorld(t)
	data := sparse()
	img := w.uploaded("x", data)
	s := w.passingThrough()
	var open []*os.File
	for _, name := range []string{"disk", "file"} {
		path := filepath.Join(s.Mountpoint(), "images", img.ID, name)
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		open = append(open, f)
		second, err := os.ReadFile(path) // while it is open already
		if err != nil || !bytes.Equal(second, data) {
			t.Errorf("%s: %v, or other bytes", name, err)
		}
		if off, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); err != nil || off != mib {
			t.Errorf("SEEK_DATA of %s: %d, %v", name, off, err)
		}
	}
	if err := w.Deactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Open(filepath.Join(s.Mountpoint(), "images", img.ID, "disk")); !errors.Is(err, syscall.EACCES) {
		t.Errorf("a new open of a deactivated image: %v, want EACCES", err)
	}
	// The daemon would answer EIO; so it is not the daemon that reads.
	for _, f := range open {
		got := make([]byte, len(data))
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s, open since before: %v, or other bytes", f.Name(), err)
		}
	}
}

// The kernel's readers see the end of such a file as the end of the disk, and nobody
// else would hear of it.
func TestAFileThatIsCutOffWhileTheKernelReadsItIsLogged(t *testing.T) {
	dir := t.TempDir()
	w := openWorld(t, dir)
	img := w.uploaded("x", sparse())
	var said bytes.Buffer
	s := w.passingThrough(func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&said, nil)) })
	f, err := os.Open(filepath.Join(s.Mountpoint(), "images", img.ID, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := 0
	err = filepath.WalkDir(filepath.Join(dir, "store"), func(path string, d os.DirEntry, err error) error {
		if st, statErr := os.Stat(path); statErr == nil && st.Mode().IsRegular() && st.Size() == int64(len(sparse())) {
			files++
			return os.Truncate(path, mib)
		}
		return err
	})
	if err != nil || files != 1 {
		t.Fatalf("%d files cut off, %v", files, err)
	}
	if _, err := io.Copy(io.Discard, f); err != nil {
		t.Error(err)
	}
	f.Close()
	if err := s.Unmount(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(said.String(), img.ID) || !strings.Contains(said.String(), "changed in its store") {
		t.Errorf("the log says %q", said.String())
	}
}

func TestAnOpenThatCouldBePassedThroughFollowsThoseThatAreNot(t *testing.T) {
	w := newWorld(t)
	data := sparse()
	img := w.uploaded("x", data)
	s := w.serve()
	disk := filepath.Join(s.Mountpoint(), "images", img.ID, "disk")
	first, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	s.t.openMu.Lock()
	for o := range s.t.open {
		o.node.mu.Lock()
		s.t.passthrough = true // as if the bytes had become a local file just now
		o.node.mu.Unlock()
	}
	s.t.openMu.Unlock()
	if got, err := os.ReadFile(disk); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the second open: %v, or other bytes", err)
	}
}
