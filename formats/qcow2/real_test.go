package qcow2_test

import (
	"bytes"
	"compress/flate"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader"
	reference "github.com/lima-vm/go-qcow2reader/image/qcow2"

	"glanced/contrib/testbed"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
)

// makeExt4 makes a raw ext4 disk of 64 MiB that holds about 24 MiB of this
// machine's /usr/share.
func makeExt4(t *testing.T) string {
	t.Helper()
	testbed.Need(t, "mke2fs", "e2fsprogs")
	dir := t.TempDir()
	tree, disk := filepath.Join(dir, "tree"), filepath.Join(dir, "disk.raw")
	left := int64(24 << 20)
	err := filepath.WalkDir("/usr/share", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // what cannot be read is not needed
		}
		b, err := os.ReadFile(path)
		if err != nil || len(b) > 4<<20 {
			return nil
		}
		if left -= int64(len(b)) + 4096; left < 0 {
			return fs.SkipAll
		}
		to := filepath.Join(tree, path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, disk, "64M")
	return disk
}

// openFile opens an image through an engine.
func openFile(t *testing.T, path string) *engine.Disk {
	t.Helper()
	e := engine.New(engine.Options{CacheBytes: 8 << 20, TableBytes: 2 << 20})
	d, err := e.Open(t.Context(), qcow2.Driver(), formattest.OpenFile(t, path), engine.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close(); e.Close() })
	return d
}

// sameBytes compares two disks of one size.
func sameBytes(t *testing.T, size int64, a, b func(p []byte, off int64) error) {
	t.Helper()
	pa, pb := make([]byte, 1<<20), make([]byte, 1<<20)
	for off := int64(0); off < size; off += 1 << 20 {
		n := min(1<<20, size-off)
		if err := a(pa[:n], off); err != nil {
			t.Fatal(err)
		}
		if err := b(pb[:n], off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(pa[:n], pb[:n]) {
			t.Fatalf("they differ between %d and %d", off, off+n)
		}
	}
}

// A file system of real files, as cloud images are, reads back as it was made.
func TestRealFileSystem(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	disk := makeExt4(t)
	want := formattest.OpenFile(t, disk)
	for _, options := range []string{"compression_type=zlib", "compression_type=zstd"} {
		t.Run(options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			testbed.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", options, disk, path)
			got := openFile(t, path)
			if got.Size() != want.Size() {
				t.Fatalf("%d bytes, want %d", got.Size(), want.Size())
			}
			sameBytes(t, want.Size(),
				func(p []byte, off int64) error { return got.ReadAt(t.Context(), p, off) },
				func(p []byte, off int64) error { return want.ReadAt(t.Context(), p, off) })
		})
	}
}

// bytesBeforeEOF delivers the end of a stream apart from its last bytes:
// go-qcow2reader takes an io.EOF that comes with bytes for a failure.
type bytesBeforeEOF struct{ io.ReadCloser }

func (r bytesBeforeEOF) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// An independent implementation reads the same from every kind of image that it knows.
func TestAgreesWithGoQcow2reader(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	reference.SetDecompressor(reference.CompressionTypeZlib, func(r io.Reader) (io.ReadCloser, error) {
		return bytesBeforeEOF{flate.NewReader(r)}, nil
	})
	reference.SetDecompressor(reference.CompressionTypeZstd, func(r io.Reader) (io.ReadCloser, error) {
		d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return bytesBeforeEOF{d.IOReadCloser()}, nil
	})
	truth := formattest.Truths[0].Make(t, t.TempDir())
	for _, c := range []struct {
		options string
		args    []string
	}{
		{"compat=0.10", nil}, {"compat=0.10", []string{"-c"}},
		{"compat=1.1", nil}, {"compat=1.1", []string{"-c"}},
		{"compression_type=zstd", []string{"-c"}},
		{"cluster_size=512", nil}, {"cluster_size=512", []string{"-c"}}, {"cluster_size=2M", nil},
		{"extended_l2=on", nil}, {"extended_l2=on,cluster_size=16k", []string{"-c"}},
		{"preallocation=metadata", nil}, {"lazy_refcounts=on", nil},
	} {
		name := c.options
		if len(c.args) > 0 {
			name += " compressed"
		}
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			args := append([]string{"convert", "-f", "raw", "-O", "qcow2", "-o", c.options}, c.args...)
			testbed.Run(t, "qemu-img", append(args, truth, path)...)
			qemuIO(t, path, "write -z 64k 70k", "discard 1M 300k", "write -P 1 1100k 3k")
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			other, err := qcow2reader.OpenWithType(f, reference.Type)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			ours := openFile(t, path)
			if ours.Size() != other.Size() {
				t.Fatalf("size %d, go-qcow2reader says %d", ours.Size(), other.Size())
			}
			sameBytes(t, ours.Size(),
				func(p []byte, off int64) error { return ours.ReadAt(t.Context(), p, off) },
				func(p []byte, off int64) error {
					if n, err := other.ReadAt(p, off); n < len(p) {
						return err
					}
					return nil
				})
		})
	}
}
