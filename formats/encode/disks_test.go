package encode_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/encode"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
	"glanced/formats/raw"
	"glanced/formats/vmdk"
)

// patternDisk is a disk of any size, of which the ranges in stored hold bytes that
// tell where they are, and the rest is absent. It counts what is read.
type patternDisk struct {
	size   int64
	stored func(yield func(off, n int64) bool) // in order, with gaps between
	failAt int64                               // a read of this byte fails; < 0: none
	read   atomic.Int64
	reads  atomic.Int64
}

var _ encode.Disk = (*patternDisk)(nil)

func (d *patternDisk) Size() int64 { return d.size }

func (d *patternDisk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if off < 0 || off > d.size-int64(len(p)) {
		return formats.ErrRange
	}
	end := off + int64(len(p))
	if d.failAt >= off && d.failAt < end {
		return formattest.ErrInjected
	}
	d.reads.Add(1)
	d.read.Add(int64(len(p)))
	clear(p)
	d.stored(func(at, n int64) bool {
		for i, to := max(at, off), min(at+n, end); i < to; {
			i += int64(copy(p[i-off:to-off], pattern[i%int64(len(pattern)):]))
		}
		return at+n < end
	})
	return nil
}

// pattern is the content of what is stored, over and over: its length is a prime
// number, so that no two clusters within reach are alike. It has no zeros.
var pattern = func() []byte {
	b := make([]byte, 1_048_573)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range b {
		b[i] = byte(rnd.Uint32()) | 1
	}
	return b
}()

func (d *patternDisk) Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	run, err := formats.NewRun(d.size, off, n, yield)
	if err != nil {
		return err
	}
	at := int64(0)
	d.stored(func(from, n int64) bool {
		run.Add(formats.Extent{Off: at, Len: from - at, Kind: formats.Absent})
		run.Add(formats.Extent{Off: from, Len: n, Kind: formats.Data, Pos: from})
		at = from + n
		return at < run.End() && !run.Stopped()
	})
	run.Add(formats.Extent{Off: at, Len: d.size - at, Kind: formats.Zero})
	run.Flush()
	return ctx.Err()
}

// every stores n bytes at each multiple of step.
func every(size, step, n int64) *patternDisk {
	return &patternDisk{size: size, failAt: -1, stored: func(yield func(off, n int64) bool) {
		for off := int64(0); off < size; off += step {
			if !yield(off, min(n, size-off)) {
				return
			}
		}
	}}
}

// empty stores nothing.
func empty(size int64) *patternDisk {
	return &patternDisk{size: size, failAt: -1, stored: func(func(int64, int64) bool) {}}
}

// open opens an image through an engine of its own for the length of the test.
func open(t testing.TB, d formats.Driver, src stored.Bytes) *engine.Disk {
	t.Helper()
	e := engine.New(engine.Options{CacheBytes: 8 << 20, TableBytes: 2 << 20})
	t.Cleanup(func() { e.Close() })
	disk, err := e.Open(context.Background(), d, src, engine.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	return disk
}

// subject is a disk to encode, and the same in a raw file.
type subject struct {
	name string
	disk encode.Disk
	raw  string // path
}

// subjects are the disks that every encoder is tried with. A disk of no bytes is
// among them.
func subjects(t *testing.T) []subject {
	t.Helper()
	testbed.Need(t, "qemu-img", "qemu-utils")
	dir := t.TempDir()
	var all []subject
	for _, tr := range formattest.Truths {
		path := tr.Make(t, dir)
		all = append(all, subject{tr.Name, open(t, raw.Driver(), formattest.OpenFile(t, path)), path})
		for _, format := range []string{"qcow2", "vmdk"} {
			options := map[string]string{"qcow2": "compression_type=zstd,cluster_size=32k", "vmdk": "subformat=streamOptimized"}
			driver := map[string]formats.Driver{"qcow2": qcow2.Driver(), "vmdk": vmdk.Driver()}
			from := filepath.Join(dir, tr.Name+"."+format)
			args := []string{"convert", "-f", "raw", "-O", format, "-o", options[format]}
			if format == "qcow2" {
				args = append(args, "-c")
			}
			testbed.Run(t, "qemu-img", append(args, path, from)...)
			all = append(all, subject{tr.Name + " from " + format, open(t, driver[format], formattest.OpenFile(t, from)), path})
		}
	}
	for name, d := range map[string]*patternDisk{
		"no bytes":                 empty(0),
		"one byte":                 every(1, 1, 1),
		"nothing stored":           empty(3<<30 + 1),
		"a sector and a byte":      every(513, 513, 513),
		"full":                     every(24<<20, 24<<20, 24<<20),
		"full, odd end":            every(9<<20+777, 1<<30, 1<<30),
		"every second cluster":     every(70<<20+1, 128<<10, 64<<10),
		"every second grain, late": every(40<<20+70_000, 128<<10, 3),
		"a sector in each MiB":     every(1100<<20, 1<<20, 512),
		"across clusters":          every(33<<20+100, 200_000, 100_000),
	} {
		path := filepath.Join(dir, name+".raw")
		save(t, d, path)
		all = append(all, subject{name, d, path})
	}
	return all
}

// save writes img into a file, in odd pieces, leaving holes for zeros.
func save(t testing.TB, img encode.Image, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(img.Size()); err != nil {
		t.Fatal(err)
	}
	holes, _ := img.(stored.Extenter)
	buf := make([]byte, 1<<20-4096+1)
	copyRange := func(off, n int64, hole bool) bool {
		for end := off + n; !hole && off < end; {
			b := buf[:min(int64(len(buf)), end-off)]
			if err := img.ReadAt(t.Context(), b, off); err != nil {
				t.Fatalf("%s at %d: %v", path, off, err)
			}
			if len(bytes.TrimLeft(b, "\x00")) > 0 {
				if _, err := f.WriteAt(b, off); err != nil {
					t.Fatal(err)
				}
			}
			off += int64(len(b))
		}
		return true
	}
	if holes == nil {
		copyRange(0, img.Size(), false)
		return
	}
	if err := holes.Extents(t.Context(), 0, img.Size(), copyRange); err != nil {
		t.Fatal(err)
	}
}

// sameDisk fails the test unless disk has the content of the raw file, zeros
// after it up to a whole sector.
func sameDisk(t *testing.T, disk *engine.Disk, rawPath string) {
	t.Helper()
	truth := formattest.OpenFile(t, rawPath)
	if want := (truth.Size() + 511) / 512 * 512; disk.Size() != want {
		t.Fatalf("the disk has %d bytes, want %d", disk.Size(), want)
	}
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	compare := func(off, n int64) error {
		for end := off + n; off < end; {
			n := min(int64(len(got)), end-off)
			clear(want)
			if inside := min(n, truth.Size()-off); inside > 0 {
				if err := truth.ReadAt(t.Context(), want[:inside], off); err != nil {
					return err
				}
			}
			if err := disk.ReadAt(t.Context(), got[:n], off); err != nil {
				return err
			}
			if !bytes.Equal(got[:n], want[:n]) {
				return fmt.Errorf("the %d bytes at %d differ", n, off)
			}
			off += n
		}
		return nil
	}
	// What either side stores is compared.
	var bad error
	err := disk.Extents(t.Context(), 0, disk.Size(), func(x formats.Extent) bool {
		if x.Kind.Stored() {
			bad = compare(x.Off, x.Len)
		}
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	if err == nil {
		err = truth.Extents(t.Context(), 0, truth.Size(), func(off, n int64, hole bool) bool {
			if !hole {
				bad = compare(off, n)
			}
			return bad == nil
		})
	}
	if err == nil {
		err = bad
	}
	if err != nil {
		t.Error(err)
	}
}
