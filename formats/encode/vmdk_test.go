package encode_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/encode"
	"glanced/formats/formattest"
	"glanced/formats/vmdk"
)

func saveVMDK(t testing.TB, d encode.Disk, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := encode.VMDK(context.Background(), d, f); err != nil {
		t.Fatal(err)
	}
}

func TestQemuAcceptsVMDK(t *testing.T) {
	for _, s := range subjects(t) {
		if s.disk.Size() == 0 {
			continue // refused: TestVMDKLimits
		}
		t.Run(s.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vmdk")
			saveVMDK(t, s.disk, path)
			testbed.Run(t, "qemu-img", "check", "-f", "vmdk", path)
			testbed.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "vmdk", s.raw, path)
			var info struct {
				VirtualSize int64 `json:"virtual-size"`
				Specific    struct {
					Data struct {
						CreateType string `json:"create-type"`
						CID        uint32
						ParentCID  uint32 `json:"parent-cid"`
					}
				} `json:"format-specific"`
			}
			if err := json.Unmarshal([]byte(testbed.Run(t, "qemu-img", "info", "--output=json", "-f", "vmdk", path)), &info); err != nil {
				t.Fatal(err)
			}
			data := info.Specific.Data
			if want := (s.disk.Size() + 511) / 512 * 512; info.VirtualSize != want || data.CreateType != "streamOptimized" ||
				data.ParentCID != 0xffffffff || data.CID == 0xffffffff {
				t.Errorf("qemu-img info: %+v, want a size of %d", info, want)
			}
			sameDisk(t, open(t, vmdk.Driver(), formattest.OpenFile(t, path)), s.raw)
		})
	}
}

// The file is made as VMware's tools make it: the directory's place only in the
// footer, which says the same as the header otherwise.
func TestVMDKEndsInAFooter(t *testing.T) {
	var b bytes.Buffer
	if err := encode.VMDK(t.Context(), every(70<<20, 40<<20, 100_000), &b); err != nil {
		t.Fatal(err)
	}
	file, le := b.Bytes(), binary.LittleEndian
	if len(file)%512 != 0 {
		t.Fatalf("%d bytes are not whole sectors", len(file))
	}
	head, tail := file[:512], file[len(file)-3*512:]
	if gd := le.Uint64(head[56:]); gd != 1<<64-1 {
		t.Errorf("the header places the directory at %d", gd)
	}
	if le.Uint64(tail) != 1 || le.Uint32(tail[12:]) != 3 {
		t.Errorf("no footer marker: % x", tail[:16])
	}
	if len(bytes.Trim(tail[2*512:], "\x00")) > 0 {
		t.Error("no end-of-stream marker")
	}
	foot := bytes.Clone(tail[512 : 2*512])
	gd := int(le.Uint64(foot[56:]))
	le.PutUint64(foot[56:], 1<<64-1)
	if !bytes.Equal(head, foot) {
		t.Error("the footer differs from the header")
	}
	// 70 MiB are three tables, the last without a grain.
	if m := file[(gd-1)*512:]; le.Uint64(m) != 1 || le.Uint32(m[8:]) != 0 || le.Uint32(m[12:]) != 2 {
		t.Errorf("no directory marker before sector %d: % x", gd, m[:16])
	}
	for i, want := range []bool{true, true, false} {
		gt := int(le.Uint32(file[gd*512+4*i:]))
		if (gt != 0) != want {
			t.Errorf("table %d is at sector %d", i, gt)
		}
		if gt == 0 {
			continue
		}
		if m := file[(gt-1)*512:]; le.Uint64(m) != 4 || le.Uint32(m[12:]) != 1 {
			t.Errorf("no table marker before sector %d: % x", gt, m[:16])
		}
	}
	text := string(bytes.TrimRight(file[512:21*512], "\x00"))
	for _, line := range []string{"parentCID=ffffffff", `createType="streamOptimized"`, `RDONLY 143360 SPARSE "call-me-stream.vmdk"`, `ddb.adapterType = "lsilogic"`} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("the descriptor has no line %s:\n%s", line, text)
		}
	}
}

// Zeros are left out, whether the map knows of them or not, and what the map says
// is zeros is not read.
func TestVMDKLeavesOutZeros(t *testing.T) {
	d := every(1<<40, 1<<38, 100)
	var n counter
	if err := encode.VMDK(t.Context(), d, &n); err != nil {
		t.Fatal(err)
	}
	if d.read.Load() > 4*64<<10 {
		t.Errorf("%d bytes were read for 4 grains", d.read.Load())
	}
	small := n
	n = 0
	if err := encode.VMDK(t.Context(), zeroData{empty(20<<20 + 5)}, &n); err != nil {
		t.Fatal(err)
	}
	if n > 80<<10 || small > 400<<10 {
		t.Errorf("20 MiB of zeros made %d bytes, 4 grains of 1 TiB %d", n, small)
	}
}

// zeroData is a disk that calls its zeros data.
type zeroData struct{ *patternDisk }

func (d zeroData) Extents(_ context.Context, off, n int64, yield func(formats.Extent) bool) error {
	yield(formats.Extent{Off: off, Len: n, Kind: formats.Data, Pos: off, N: n})
	return nil
}

// counter counts bytes written.
type counter int64

func (c *counter) Write(p []byte) (int, error) { *c += counter(len(p)); return len(p), nil }

func TestVMDKLimits(t *testing.T) {
	for name, d := range map[string]encode.Disk{"no bytes": empty(0), "more than 62 TiB": empty(62<<40 + 1)} {
		var n counter
		if err := encode.VMDK(t.Context(), d, &n); !errors.Is(err, formats.ErrLimit) || n != 0 {
			t.Errorf("%s: %v after %d bytes, want ErrLimit after 0", name, err, n)
		}
	}
}

func TestVMDKStops(t *testing.T) {
	before := runtime.NumGoroutine()
	d := every(200<<20, 1<<20, 600_000)

	ctx, cancel := context.WithCancel(t.Context())
	if err := encode.VMDK(ctx, d, &after{n: 5, do: func() error { cancel(); return nil }}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	for n := range 8 {
		if err := encode.VMDK(t.Context(), d, &after{n: n, do: func() error { return io.ErrClosedPipe }}); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("write %d fails: %v", n, err)
		}
	}
	d.failAt = 100<<20 + 5
	w := &after{n: 1 << 30}
	if err := encode.VMDK(t.Context(), d, w); !errors.Is(err, formattest.ErrInjected) {
		t.Errorf("a disk that fails: %v", err)
	}
	if tail := w.last; len(tail) >= 512 && len(bytes.Trim(tail[len(tail)-512:], "\x00")) == 0 {
		t.Error("what was written before the error ends as if it were whole")
	}
	for silent, want := range map[bool]string{false: formattest.ErrInjected.Error(), true: "breaks off"} {
		if err := encode.VMDK(t.Context(), &brokenMap{Disk: every(200<<20, 1<<20, 600_000), silent: silent}, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a map that ends early: %v", err)
		}
	}
	// Goroutines that have done their last may take a moment to be gone.
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// after takes n writes, and then answers what do does.
type after struct {
	n    int
	do   func() error
	last []byte
}

func (a *after) Write(p []byte) (int, error) {
	a.last = append(a.last[:0], p...)
	if a.n--; a.n == -1 {
		if err := a.do(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// The heap is bounded, however large the disk and what is stored of it.
func TestVMDKMemoryIsBounded(t *testing.T) {
	for name, d := range map[string]*patternDisk{
		"1 TiB, sparse":    every(1<<40, 1<<34, 1000),
		"60 TiB, sparse":   every(60<<40, 20<<40, 1000),
		"96 MiB, all read": every(96<<20, 96<<20, 96<<20),
	} {
		t.Run(name, func(t *testing.T) {
			before := heap()
			var w peak
			if err := encode.VMDK(t.Context(), d, &w); err != nil {
				t.Fatal(err)
			}
			t.Logf("at most %d KiB more than before", (int64(w)-before)>>10)
			if int64(w)-before > 64<<20 {
				t.Errorf("the heap grew from %d to %d bytes", before, w)
			}
		})
	}
}

// peak is the most that the heap held, garbage included, during a write.
type peak int64

func (m *peak) Write(p []byte) (int, error) {
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	*m = max(*m, peak(s.HeapAlloc))
	return len(p), nil
}
