package qcow2_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
	"glanced/formats/raw"
)

// resolver supplies what the test names, and nothing else: it finds a reference
// by its name as written in the image.
type resolver struct {
	t      *testing.T
	engine *engine.Engine
	files  map[string]string // name in the image -> path
	asked  []formats.Ref
}

func newResolver(t *testing.T, files map[string]string) *resolver {
	e := engine.New(engine.Options{CacheBytes: 1 << 20, TableBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	return &resolver{t: t, engine: e, files: files}
}

// open is how an image is opened with the resolver.
func (r *resolver) open() engine.OpenOptions {
	return engine.OpenOptions{Files: r.file, Parent: r.disk}
}

func (r *resolver) file(_ context.Context, ref formats.Ref) (stored.Bytes, error) {
	r.asked = append(r.asked, ref)
	return formattest.OpenFile(r.t, r.files[ref.Name]), nil
}

func (r *resolver) disk(ctx context.Context, ref formats.Ref) (*engine.Disk, error) {
	r.asked = append(r.asked, ref)
	src := formattest.OpenFile(r.t, r.files[ref.Name])
	d := raw.Driver()
	if ref.Format == "qcow2" {
		d = qcow2.Driver()
	}
	disk, err := r.engine.Open(ctx, d, src, r.open())
	if err == nil {
		r.t.Cleanup(func() { disk.Close() })
	}
	return disk, err
}

// A chain of three: a raw base shorter than its children, a compressed qcow2, and
// an overlay that hides some of it with data, zeros, and discarded clusters.
func TestBackingFilesShowThrough(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	for i, options := range []string{"compat=0.10", "compat=1.1", "extended_l2=on", "cluster_size=512"} {
		t.Run(options, func(t *testing.T) {
			dir := t.TempDir()
			base := formattest.Truths[0].Make(t, dir)
			middle, top := filepath.Join(dir, "middle"), filepath.Join(dir, "top")
			testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", middle, "5M")
			qemuIO(t, middle, "write -c -P 1 64k 64k", "write -P 2 3M 10k")
			testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "-b", middle, "-F", "qcow2", top, "7M")
			qemuIO(t, top, "write -P 3 1000k 3k", "write -z 0 70k", "write -z 2M 2k", "write -P 4 6M 1k", "write -z 6200k 64k")

			r := newResolver(t, map[string]string{base: base, middle: middle})
			formattest.Image{
				Driver: qcow2.Driver(), Path: top, QemuFormat: "qcow2", Open: r.open(), Seed: uint64(i),
			}.Compare(t, "the chain")
			want := []formats.Ref{
				{Kind: formats.RefBacking, Name: middle, Format: "qcow2"},
				{Kind: formats.RefBacking, Name: base, Format: "raw"},
			}
			if !slices.Equal(r.asked, want) {
				t.Errorf("the resolver was asked for %+v, want %+v", r.asked, want)
			}
		})
	}
}

func TestDataFilesHoldTheClusters(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	dir := t.TempDir() // one without commas, which would end the name
	for i, options := range []string{
		"data_file_raw=off", "data_file_raw=on", "data_file_raw=on,preallocation=metadata",
		"data_file_raw=off,extended_l2=on", "data_file_raw=off,cluster_size=512",
	} {
		t.Run(options, func(t *testing.T) {
			image, data := filepath.Join(dir, fmt.Sprint("image", i)), filepath.Join(dir, fmt.Sprint("data", i))
			testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+data+","+options, image, "6M")
			qemuIO(t, image, "write -P 1 0 70k", "write -P 2 3M 5k", "write -z 1M 64k", "write -P 3 6140k 4k", "discard 3M 64k")
			r := newResolver(t, map[string]string{data: data})
			formattest.Image{
				Driver: qcow2.Driver(), Path: image, QemuFormat: "qcow2", Open: r.open(), Seed: uint64(i),
			}.Compare(t, "with a data file")
		})
	}
}

// Backing file and data file at once: both are asked for, and each is used.
func TestBackingAndDataFileTogether(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	dir := t.TempDir()
	base := formattest.Truths[0].Make(t, dir)
	image, data := filepath.Join(dir, "image"), filepath.Join(dir, "data")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+data, "-b", base, "-F", "raw", image)
	qemuIO(t, image, "write -P 1 64k 70k")
	r := newResolver(t, map[string]string{base: base, data: data})
	formattest.Image{Driver: qcow2.Driver(), Path: image, QemuFormat: "qcow2", Open: r.open()}.Compare(t, "both")
}
