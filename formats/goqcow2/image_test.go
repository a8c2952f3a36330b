package goqcow2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/lima-vm/go-qcow2reader/convert"
	"github.com/lima-vm/go-qcow2reader/image"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/all"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/goqcow2"
)

const size = 40<<20 + 512

// sparseDisk is a raw file of 40 MiB, an eighth of which is data.
func sparseDisk(t *testing.T) (name string, want []byte) {
	t.Helper()
	want = make([]byte, size)
	r := rand.New(rand.NewSource(1))
	for off := 0; off < size; off += 8 << 20 {
		part := want[off:min(off+1<<20, size)]
		for i := range part {
			part[i] = byte(1 + r.Intn(8))
		}
	}
	name = filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < size; off += 8 << 20 {
		if _, err := f.WriteAt(want[off:min(off+1<<20, size)], off); err != nil {
			t.Fatal(err)
		}
	}
	return name, want
}

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	testbed.Need(t, "qemu-img", "qemu-utils")
	testbed.Run(t, "qemu-img", args...)
}

func open(t *testing.T, ctx context.Context, format, name string) *goqcow2.Image {
	t.Helper()
	e := engine.New(engine.Options{CacheBytes: 16 << 20, TableBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	driver, ok := formats.Find(all.Drivers(), format)
	if !ok {
		t.Fatalf("no driver %q", format)
	}
	d, err := e.Open(context.Background(), driver, formattest.OpenFile(t, name), engine.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	img := goqcow2.New(ctx, d)
	t.Cleanup(func() { img.Close() })
	return img
}

func TestConvertWritesASparseRawFileOfEveryFormat(t *testing.T) {
	raw, want := sparseDisk(t)
	variants := []struct{ format, options string }{{"raw", ""}, {"vmdk", "subformat=monolithicSparse"}, {"vmdk", "subformat=streamOptimized"}}
	if _, ok := formats.Find(all.Drivers(), "qcow2"); ok {
		variants = append(variants, []struct{ format, options string }{
			{"qcow2", ""}, {"qcow2", "compression_type=zlib"}, {"qcow2", "compression_type=zstd"}}...)
	}
	for _, v := range variants {
		t.Run(fmt.Sprint(v.format, " ", v.options), func(t *testing.T) {
			name := raw
			if v.format != "raw" {
				name = filepath.Join(t.TempDir(), "disk")
				args := []string{"convert", "-O", v.format}
				if v.options != "" {
					args = append(args, "-o", v.options)
				}
				if v.format == "qcow2" && v.options != "" {
					args = append(args, "-c")
				}
				qemuImg(t, append(args, raw, name)...)
			}
			img := open(t, context.Background(), v.format, name)
			if img.Type() != image.Type(v.format) || img.Size() != size || img.Readable() != nil {
				t.Fatalf("type %s, %d bytes, readable: %v", img.Type(), img.Size(), img.Readable())
			}
			out, err := os.Create(filepath.Join(t.TempDir(), "out.raw"))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			if err := out.Truncate(size); err != nil {
				t.Fatal(err)
			}
			if err := convert.Convert(out, img, convert.Options{SegmentSize: 4 << 20}); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(out.Name())
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Error("the raw file differs from the disk")
			}
			st, err := out.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 8<<20 {
				t.Errorf("%d bytes are allocated for 6 MiB of data", used)
			}
		})
	}
}

func TestReadsAsAReaderAtDoes(t *testing.T) {
	raw, want := sparseDisk(t)
	img := open(t, context.Background(), "raw", raw)
	if err := iotest.TestReader(io.NewSectionReader(img, size-5000, 5000), want[size-5000:]); err != nil {
		t.Error(err)
	}
	p := make([]byte, 100)
	if n, err := img.ReadAt(p, size-40); n != 40 || err != io.EOF {
		t.Errorf("across the end: %d, %v", n, err)
	}
	if n, err := img.ReadAt(p, size); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
	if _, err := img.ReadAt(p, -1); !errors.Is(err, formats.ErrRange) {
		t.Errorf("before the start: %v", err)
	}
}

func TestExtentSaysWhatARangeBeginsWith(t *testing.T) {
	raw, _ := sparseDisk(t)
	img := open(t, context.Background(), "raw", raw)
	for start, want := range map[int64]image.Extent{
		512:       {Start: 512, Length: 1<<20 - 512, Allocated: true},
		1 << 20:   {Start: 1 << 20, Length: 7 << 20, Allocated: true, Zero: true},
		8<<20 - 1: {Start: 8<<20 - 1, Length: 1, Allocated: true, Zero: true},
	} {
		if got, err := img.Extent(start, size-start); err != nil || got != want {
			t.Errorf("at %d: %+v, %v, want %+v", start, got, err, want)
		}
	}
	if _, err := img.Extent(size-1, 2); !errors.Is(err, formats.ErrRange) {
		t.Errorf("past the end: %v", err)
	}
}

func TestCallsFailWhenTheContextHasEnded(t *testing.T) {
	raw, _ := sparseDisk(t)
	name := filepath.Join(t.TempDir(), "disk.vmdk")
	qemuImg(t, "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, name)
	ctx, end := context.WithCancel(context.Background())
	img := open(t, ctx, "vmdk", name)
	end()
	if _, err := img.ReadAt(make([]byte, 100), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
