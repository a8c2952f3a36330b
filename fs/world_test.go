package fs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"glanced/backends/file"
	"glanced/catalog"
	"glanced/catalog/records/sqlite"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/qcow2"
	"glanced/formats/raw"
	"glanced/formats/vmdk"

	"golang.org/x/sys/unix"
)

// world is a catalog over a real database and a real file store.
type world struct {
	*catalog.Catalog
	t *testing.T
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return openWorld(t, t.TempDir())
}

func openWorld(t *testing.T, dir string) *world {
	t.Helper()
	ctx := context.Background()
	rec, err := sqlite.Open(ctx, filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	store, err := file.Open(file.Config{ID: "local", Path: filepath.Join(dir, "store")})
	if err != nil {
		t.Fatal(err)
	}
	e := engine.New(engine.Options{CacheBytes: 16 << 20, TableBytes: 4 << 20})
	c, err := catalog.New(ctx, catalog.Config{
		Records: rec,
		Stores:  []catalog.StoreEntry{{ID: "local", Type: "file", Store: store, Default: true}},
		Drivers: []formats.Driver{qcow2.Driver(), vmdk.Driver(), raw.Driver()},
		Engine:  e,
		Node:    "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), e.Close(), store.Close(), rec.Close()); err != nil {
			t.Error(err)
		}
	})
	return &world{c, t}
}

// testLog sends the mount's log to the test.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(string(bytes.TrimSpace(p)))
	return len(p), nil
}

// mount mounts the world for the time of the test, and is unmounted whatever happens.
func (w *world) mount(change ...func(*Config)) string {
	w.t.Helper()
	return w.serve(change...).Mountpoint()
}

func (w *world) serve(change ...func(*Config)) *Server {
	w.t.Helper()
	needFUSE(w.t)
	cfg := Config{
		Catalog: w.Catalog,
		Log:     slog.New(slog.NewTextHandler(testLog{w.t}, nil)),
	}
	for _, f := range change {
		f(&cfg)
	}
	if cfg.Mountpoint == "" {
		cfg.Mountpoint = filepath.Join(w.t.TempDir(), "mnt")
	}
	s, err := Mount(w.t.Context(), cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := s.Unmount(); err != nil {
			w.t.Error(err)
		}
		mustNotBeMounted(w.t, s.Mountpoint())
	})
	return s
}

// mustNotBeMounted detaches what a failed test left, and says so.
func mustNotBeMounted(t *testing.T, path string) {
	t.Helper()
	for {
		_, mounted, err := mountAt(path)
		if err != nil {
			t.Fatal(err)
		}
		if !mounted {
			return
		}
		t.Errorf("%s is still mounted", path)
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
}

func needFUSE(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err == nil && os.Geteuid() == 0 {
		f.Close()
		return
	}
	testbed.Unable(t, "mounting needs root and /dev/fuse: modprobe fuse")
}

func ptr[T any](v T) *T { return &v }

// queued adds an image without data.
func (w *world) queued(name string, change ...func(*catalog.Image)) catalog.Image {
	w.t.Helper()
	img := catalog.Image{Name: &name, Owner: "p", Visibility: "public", DiskFormat: ptr("raw"), ContainerFormat: ptr("bare")}
	for _, f := range change {
		f(&img)
	}
	img, err := w.Create(w.t.Context(), img)
	if err != nil {
		w.t.Fatal(err)
	}
	return img
}

// uploaded adds an image with data.
func (w *world) uploaded(name string, data []byte, change ...func(*catalog.Image)) catalog.Image {
	w.t.Helper()
	img := w.queued(name, change...)
	if err := w.Upload(w.t.Context(), img.ID, bytes.NewReader(data), catalog.UploadOptions{Size: int64(len(data))}); err != nil {
		w.t.Fatal(err)
	}
	img, err := w.Get(w.t.Context(), img.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return img
}

// random is n bytes without a zero among them, the same for one seed.
func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, seed))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(1 + r.IntN(255))
	}
	return b
}

const mib = 1 << 20

// sparse is a disk of 8 MiB and 512 bytes with data in [1, 2) and [5, 5.5) MiB
// and in its last 512 bytes.
func sparse() []byte {
	b := make([]byte, 8*mib+512)
	copy(b[mib:], random(1, mib))
	copy(b[5*mib:], random(2, mib/2))
	copy(b[8*mib:], random(3, 512))
	return b
}

// eventually waits until cond holds. The limit is no measure of speed: it only
// ends a test that would hang.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
	}
}

func stat(t *testing.T, path string) syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil {
		t.Fatalf("lstat %s: %v", path, err)
	}
	return st
}
