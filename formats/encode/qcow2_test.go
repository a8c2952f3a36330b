package encode_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"glanced/backends/localfile"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/encode"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
	"glanced/formats/raw"
)

func mustQCOW2(t testing.TB, d encode.Disk) encode.Image {
	t.Helper()
	img, err := encode.QCOW2(context.Background(), d)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestQemuAcceptsQCOW2(t *testing.T) {
	for _, s := range subjects(t) {
		t.Run(s.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.qcow2")
			save(t, mustQCOW2(t, s.disk), path)
			// Fails for errors and for leaks.
			testbed.Run(t, "qemu-img", "check", "-f", "qcow2", path)
			testbed.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "qcow2", s.raw, path)
			var info struct {
				VirtualSize int64  `json:"virtual-size"`
				ClusterSize int64  `json:"cluster-size"`
				Backing     string `json:"backing-filename"`
				Specific    struct {
					Data struct{ Compat string }
				} `json:"format-specific"`
			}
			if err := json.Unmarshal([]byte(testbed.Run(t, "qemu-img", "info", "--output=json", "-f", "qcow2", path)), &info); err != nil {
				t.Fatal(err)
			}
			if want := (s.disk.Size() + 511) / 512 * 512; info.VirtualSize != want || info.ClusterSize != 64<<10 || info.Specific.Data.Compat != "1.1" || info.Backing != "" {
				t.Errorf("qemu-img info: %+v, want a size of %d", info, want)
			}
			sameDisk(t, open(t, qcow2.Driver(), formattest.OpenFile(t, path)), s.raw)
		})
	}
}

// Any range of the image alone has the bytes that it has in the whole, and a
// second layout of the same disk has them too.
func TestAnyRangeOfQCOW2(t *testing.T) {
	for name, d := range map[string]*patternDisk{
		"no bytes":   empty(0),
		"fragmented": every(30<<20+5, 192<<10, 100_000),
		"full":       every(8<<20+5, 1<<30, 1<<30),
		"sparse":     every(600<<20, 555<<20, 1),
	} {
		t.Run(name, func(t *testing.T) {
			img := mustQCOW2(t, d)
			whole := make([]byte, img.Size())
			if err := img.ReadAt(t.Context(), whole, 0); err != nil {
				t.Fatal(err)
			}
			checkRefcounts(t, whole)
			again := mustQCOW2(t, d)
			rnd := rand.New(rand.NewPCG(1, 2))
			buf := make([]byte, 300_000)
			for i := range 2000 {
				// Half of them are in the tables.
				off := rnd.Int64N(img.Size())
				if i%2 == 0 {
					off = rnd.Int64N(min(8*64<<10, img.Size()))
				}
				b := buf[:min(1+rnd.Int64N(int64(1)<<rnd.IntN(18)), img.Size()-off)]
				if err := again.ReadAt(t.Context(), b, off); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(b, whole[off:off+int64(len(b))]) {
					t.Fatalf("%d bytes at %d differ from those of the whole", len(b), off)
				}
			}
			for _, r := range [][2]int64{{-1, 1}, {img.Size(), 1}, {img.Size() - 1, 2}, {1 << 62, 1}} {
				if err := img.ReadAt(t.Context(), make([]byte, r[1]), r[0]); !errors.Is(err, formats.ErrRange) {
					t.Errorf("%d bytes at %d: %v, want ErrRange", r[1], r[0], err)
				}
			}
			if err := img.ReadAt(t.Context(), nil, img.Size()); err != nil {
				t.Errorf("nothing at the end: %v", err)
			}
		})
	}
}

// checkRefcounts reads the refcounts as the format defines them: 1 for each cluster
// of the image, 0 beyond it (which qemu-img check does not look at).
func checkRefcounts(t *testing.T, image []byte) {
	t.Helper()
	const cluster = 64 << 10
	be := binary.BigEndian
	table := image[be.Uint64(image[48:]):][:be.Uint32(image[56:])*cluster]
	n := 0
	for ; len(table) > 0; table = table[8:] {
		at := be.Uint64(table)
		for i := 0; at != 0 && i < cluster; i += 2 {
			want := uint16(0)
			if n < len(image)/cluster {
				want = 1
			}
			if got := be.Uint16(image[at+uint64(i):]); got != want {
				t.Fatalf("cluster %d of %d has the refcount %d", n, len(image)/cluster, got)
			}
			n++
		}
	}
	if n < len(image)/cluster {
		t.Errorf("%d of %d clusters have a refcount", n, len(image)/cluster)
	}
}

// Tables are made of the map alone; adjacent clusters are one read; what a stored
// cluster has no bytes of is not read of the source.
func TestQCOW2ReadsOnlyWhatIsStored(t *testing.T) {
	d := every(64<<20, 16<<20, 4<<20)
	img := mustQCOW2(t, d)
	if d.reads.Load() != 0 {
		t.Errorf("the layout made %d reads", d.reads.Load())
	}
	if err := img.ReadAt(t.Context(), make([]byte, img.Size()), 0); err != nil {
		t.Fatal(err)
	}
	if d.reads.Load() != 4 || d.read.Load() != 16<<20 {
		t.Errorf("%d bytes in %d reads, want 16 MiB in 4", d.read.Load(), d.reads.Load())
	}

	// A raw source's own holes: 4 KiB in each cluster of 64.
	tr := formattest.Truths[1] // sparse
	src := &countingFile{File: formattest.OpenFile(t, tr.Make(t, t.TempDir()))}
	img = mustQCOW2(t, open(t, raw.Driver(), src))
	if src.read != 0 {
		t.Errorf("the layout read %d bytes", src.read)
	}
	if err := img.ReadAt(t.Context(), make([]byte, img.Size()), 0); err != nil {
		t.Fatal(err)
	}
	stored := int64(0)
	if err := src.Extents(t.Context(), 0, src.Size(), func(_, n int64, hole bool) bool {
		if !hole {
			stored += n
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if src.read > stored {
		t.Errorf("%d bytes were read, where %d are stored", src.read, stored)
	}
}

// countingFile counts the bytes read; it hides that it is a file.
type countingFile struct {
	*localfile.File
	read int64
}

func (f *countingFile) ReadAt(ctx context.Context, p []byte, off int64) error {
	f.read += int64(len(p))
	return f.File.ReadAt(ctx, p, off)
}

func TestQCOW2PassesErrorsOn(t *testing.T) {
	d := every(10<<20, 1<<20, 200_000)
	d.failAt = 5<<20 + 1000
	img := mustQCOW2(t, d)
	whole := make([]byte, img.Size())
	if err := img.ReadAt(t.Context(), whole, 0); !errors.Is(err, formattest.ErrInjected) {
		t.Errorf("a disk that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := img.ReadAt(ctx, whole[:100], 0); !errors.Is(err, context.Canceled) {
		t.Errorf("read with an ended context: %v", err)
	}
	if _, err := encode.QCOW2(ctx, d); !errors.Is(err, context.Canceled) {
		t.Errorf("layout with an ended context: %v", err)
	}

	broken := &brokenMap{Disk: d}
	if _, err := encode.QCOW2(t.Context(), broken); !errors.Is(err, formattest.ErrInjected) {
		t.Errorf("a map that fails: %v", err)
	}
	broken.silent = true
	if _, err := encode.QCOW2(t.Context(), broken); err == nil {
		t.Error("a map that breaks off was taken for the whole disk")
	}
}

// brokenMap ends its map early, with an error or without one.
type brokenMap struct {
	encode.Disk
	silent bool
}

func (b *brokenMap) Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if err := b.Disk.Extents(ctx, off, min(n, 3<<20), yield); err != nil || b.silent {
		return err
	}
	return formattest.ErrInjected
}

// Large disks get larger clusters, up to what qcow2 can hold.
func TestQCOW2OfLargeDisks(t *testing.T) {
	for _, c := range []struct {
		size, step, cluster int64
	}{
		{16 << 40, 3 << 40, 64 << 10},
		{16<<40 + 1, 3 << 40, 128 << 10},
		{500 << 40, 77 << 40, 2 << 20},
		{1 << 61, 1 << 56, 2 << 20},
	} {
		d := every(c.size, c.step, 100)
		path := filepath.Join(t.TempDir(), "disk.qcow2")
		img := mustQCOW2(t, d)
		save(t, img, path)
		testbed.Run(t, "qemu-img", "check", "-f", "qcow2", path)
		read := open(t, qcow2.Driver(), formattest.OpenFile(t, path))
		if info := read.Info(); info.VirtualSize != (c.size+511)/512*512 || info.ClusterSize != c.cluster {
			t.Errorf("a disk of %d bytes: %+v", c.size, info)
		}
		last := (c.size - 1) / c.step * c.step
		got, want := make([]byte, min(200, c.size-last)), make([]byte, min(200, c.size-last))
		if err := d.ReadAt(t.Context(), want, last); err != nil {
			t.Fatal(err)
		}
		if err := read.ReadAt(t.Context(), got, last); err != nil || !bytes.Equal(got, want) {
			t.Errorf("a disk of %d bytes: %d bytes at %d differ (%v)", c.size, len(got), last, err)
		}
	}
	for name, d := range map[string]encode.Disk{
		"too large":     empty(1<<61 + 1),
		"too much":      every(1<<60, 1<<60, 1<<60),
		"too scattered": every(1<<52, 4<<30, 1),
	} {
		if _, err := encode.QCOW2(t.Context(), d); !errors.Is(err, formats.ErrLimit) {
			t.Errorf("%s: %v, want ErrLimit", name, err)
		}
	}
}
