package formattest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"glanced/backends/localfile"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
)

// Image is an image in a file, to be compared with what qemu-img reads from it.
type Image struct {
	Driver     formats.Driver
	Path       string
	QemuFormat string
	Open       engine.OpenOptions // a snapshot, and who supplies what the image refers to
	Truth      string             // the image that qemu-img reads in its place; "" = Path
	Seed       uint64             // of the random reads
}

const (
	compareChunk = 1 << 20 // bytes compared at a time
	readers      = 4       // concurrent random readers
	readsEach    = 30
	largestRead  = 300_000 // bytes
)

// Compare opens the image through an engine and checks, against the raw disk
// and the map that qemu-img makes of the same file, or of Truth: the size; every stored byte;
// that what is said to be absent or zero reads as zeros; that what qemu-img's map
// knows to be zeros is not said to be data; and odd-sized concurrent reads. what
// names the image in messages.
func (img Image) Compare(t *testing.T, what string) {
	t.Helper()
	testbed.Need(t, "qemu-img", "qemu-utils")
	judged := cmp.Or(img.Truth, img.Path)
	raw := filepath.Join(t.TempDir(), "truth.raw")
	defer os.Remove(raw)
	testbed.Run(t, "qemu-img", "convert", "-f", img.QemuFormat, "-O", "raw", judged, raw)
	truth := OpenFile(t, raw)

	src := OpenFile(t, img.Path)
	e := engine.New(engine.Options{CacheBytes: 8 << 20, TableBytes: 2 << 20})
	defer e.Close()
	disk, err := e.Open(t.Context(), img.Driver, src, img.Open)
	if err != nil {
		t.Fatalf("%s: Open: %v", what, err)
	}
	defer disk.Close()
	if disk.Size() != truth.Size() {
		t.Fatalf("%s: Size is %d, qemu-img says %d", what, disk.Size(), truth.Size())
	}

	extents, err := diskExtents(t.Context(), disk)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := compareContent(t.Context(), disk, truth, extents); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if err := compareMap(extents, testbed.Run(t, "qemu-img", "map", "--output=json", "-f", img.QemuFormat, judged)); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if err := compareRandomReads(t.Context(), disk, truth, img.Seed); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// diskExtents is the whole disk's extents, which must follow each other.
func diskExtents(ctx context.Context, disk *engine.Disk) ([]formats.Extent, error) {
	var all []formats.Extent
	at := int64(0)
	err := disk.Extents(ctx, 0, disk.Size(), func(x formats.Extent) bool {
		if x.Off != at || x.Len <= 0 {
			return false
		}
		at = x.End()
		all = append(all, x)
		return true
	})
	if err == nil && at != disk.Size() {
		err = fmt.Errorf("the extents of a disk of %d bytes break off at %d", disk.Size(), at)
	}
	return all, err
}

// compareContent reads what the extents or the truth say is there; what both
// say is not, is zeros on both sides.
func compareContent(ctx context.Context, disk *engine.Disk, truth *localfile.File, extents []formats.Extent) error {
	got, want := make([]byte, compareChunk), make([]byte, compareChunk)
	for _, x := range extents {
		stored := x.Kind.Stored()
		var bad error
		compare := func(off, n int64, hole bool) bool {
			if hole && !stored {
				return true
			}
			for end := off + n; off < end && bad == nil; off += compareChunk {
				n := min(compareChunk, end-off)
				if bad = truth.ReadAt(ctx, want[:n], off); bad != nil {
					return false
				}
				if bad = disk.ReadAt(ctx, got[:n], off); bad != nil {
					return false
				}
				if i := firstDifference(got[:n], want[:n]); i >= 0 {
					bad = fmt.Errorf("guest offset %d differs from what qemu-img reads (in extent %+v)", off+int64(i), x)
				}
				if x.Kind == formats.Zero && firstDifference(want[:n], make([]byte, n)) >= 0 {
					bad = fmt.Errorf("extent %+v is said to be zeros, and qemu-img reads data", x)
				}
			}
			return bad == nil
		}
		if stored {
			compare(x.Off, x.Len, false)
		} else if err := truth.Extents(ctx, x.Off, x.Len, compare); err != nil {
			return err
		}
		if bad != nil {
			return bad
		}
	}
	return nil
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// compareMap checks that no range that qemu-img's map calls zero, without host
// data, is called data.
func compareMap(extents []formats.Extent, mapJSON string) error {
	var runs []struct {
		Start, Length int64
		Zero, Data    bool
	}
	if err := json.Unmarshal([]byte(mapJSON), &runs); err != nil {
		return fmt.Errorf("qemu-img map: %w", err)
	}
	i := 0
	for _, run := range runs {
		if !run.Zero || run.Data {
			continue
		}
		for i < len(extents) && extents[i].End() <= run.Start {
			i++
		}
		for _, x := range extents[i:] {
			if x.Off >= run.Start+run.Length {
				break
			}
			if x.Kind.Stored() {
				return fmt.Errorf("extent %+v; qemu-img map says that %d bytes at %d are zeros", x, run.Length, run.Start)
			}
		}
	}
	return nil
}

// compareRandomReads reads at odd places with odd lengths from several
// goroutines at once, more often near the ends of the disk and where there is data.
func compareRandomReads(ctx context.Context, disk *engine.Disk, truth *localfile.File, seed uint64) error {
	if disk.Size() == 0 {
		return nil
	}
	var data []int64 // where runs of data begin
	if err := truth.Extents(ctx, 0, truth.Size(), func(off, _ int64, hole bool) bool {
		if !hole {
			data = append(data, off)
		}
		return true
	}); err != nil {
		return err
	}
	errs := make([]error, readers)
	var wg sync.WaitGroup
	for r := range readers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(r)))
			got, want := make([]byte, largestRead), make([]byte, largestRead)
			for range readsEach {
				off := rnd.Int64N(disk.Size())
				switch pick := rnd.IntN(4); {
				case pick == 0:
					off = disk.Size() - 1 - rnd.Int64N(min(disk.Size(), largestRead))
				case pick <= 2 && len(data) > 0:
					off = data[rnd.IntN(len(data))] + rnd.Int64N(200_000) - 1000
					off = min(max(off, 0), disk.Size()-1)
				}
				n := min(1+rnd.Int64N(int64(1)<<rnd.IntN(18)+largestRead/100), disk.Size()-off, largestRead)
				if err := disk.ReadAt(ctx, got[:n], off); err != nil {
					errs[r] = err
					return
				}
				if err := truth.ReadAt(ctx, want[:n], off); err != nil && err != io.EOF {
					errs[r] = err
					return
				}
				if i := firstDifference(got[:n], want[:n]); i >= 0 {
					errs[r] = fmt.Errorf("a read of %d bytes at %d differs from what qemu-img reads at byte %d", n, off, i)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
