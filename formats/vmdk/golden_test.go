package vmdk_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"glanced/formats"
)

// file is a Source over a local file.
type file struct {
	*os.File
	size int64
}

func (f file) Size() int64 { return f.size }
func (f file) ReadAt(_ context.Context, p []byte, off int64) error {
	n, err := f.File.ReadAt(p, off)
	if n == len(p) || err == nil {
		return nil
	}
	return err
}

func openFile(t testing.TB, path string) file {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return file{f, st.Size()}
}

// qemuImg runs qemu-img.
func qemuImg(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		if os.Getenv("CI") != "" || strings.Contains(os.Getenv("GLANCED_MUST_RUN"), "vmdk") {
			t.Fatal("qemu-img is missing: install qemu-utils")
		}
		t.Skip("qemu-img is missing: install qemu-utils")
	}
	out, err := exec.CommandContext(t.Context(), "qemu-img", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func writeFile(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// sameAs compares the disk with guest: whole, then by concurrent odd-sized reads;
// and the map's holes with guest's zeros.
func sameAs(t *testing.T, d *formats.Disk, guest []byte) {
	t.Helper()
	if d.Size() != int64(len(guest)) {
		t.Fatalf("the disk has %d bytes, want %d", d.Size(), len(guest))
	}
	got := make([]byte, len(guest))
	if err := d.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, guest) {
		for i := range got {
			if got[i] != guest[i] {
				t.Fatalf("the disk differs at %d", i)
			}
		}
	}
	for _, x := range mapOf(t, d) {
		zero := len(bytes.Trim(guest[x.Off:x.End()], "\x00")) == 0
		if hole := x.Kind == formats.Absent || x.Kind == formats.Zero; hole && !zero {
			t.Fatalf("%+v is said to be a hole, and is not", x)
		}
	}
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(5, uint64(w)))
			for range 60 {
				off := rnd.IntN(len(guest))
				p := make([]byte, rnd.IntN(min(len(guest)-off, 200<<10)+1))
				if err := d.ReadAt(t.Context(), p, int64(off)); err != nil {
					t.Errorf("%d bytes at %d: %v", len(p), off, err)
					return
				}
				if !bytes.Equal(p, guest[off:off+len(p)]) {
					t.Errorf("%d bytes at %d differ", len(p), off)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestReadsWhatQemuWrites(t *testing.T) {
	sizes := []int{sector, 64 << 10, 3000320, 40<<20 + 3*sector}
	guests := map[int]string{}
	for _, n := range sizes {
		guests[n] = writeFile(t, "guest.raw", guestOf(n))
	}
	variants := []string{
		"subformat=monolithicSparse",
		"subformat=streamOptimized",
		"subformat=monolithicSparse,zeroed_grain=on",
		"subformat=monolithicSparse,compat6",
		"subformat=monolithicSparse,adapter_type=lsilogic,hwversion=10",
		"subformat=streamOptimized,adapter_type=buslogic",
		"subformat=streamOptimized,adapter_type=legacyESX,toolsversion=1",
	}
	for i, options := range variants {
		for j, n := range sizes {
			if i > 2 && j != i%3 {
				continue // what these change does not depend on the size
			}
			t.Run(fmt.Sprintf("%s/%d", options, n), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "disk.vmdk")
				qemuImg(t, "convert", "-f", "raw", "-O", "vmdk", "-o", options, guests[n], path)
				guest, err := os.ReadFile(guests[n])
				if err != nil {
					t.Fatal(err)
				}
				d := mustOpen(t, openFile(t, path))
				if want, _, _ := strings.Cut(strings.TrimPrefix(options, "subformat="), ","); d.Info().Variant != want {
					t.Errorf("variant %q, want %q", d.Info().Variant, want)
				}
				if len(d.Info().Refs) != 0 {
					t.Errorf("references in a plain disk: %+v", d.Info().Refs)
				}
				sameAs(t, d, guest)
			})
		}
	}
}

// Grains that qemu-io writes in any order, rewrites and discards.
func TestReadsWhatQemuWroteOutOfOrder(t *testing.T) {
	for _, options := range []string{"subformat=monolithicSparse", "subformat=monolithicSparse,zeroed_grain=on", "subformat=streamOptimized"} {
		t.Run(options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vmdk")
			qemuImg(t, "create", "-f", "vmdk", "-o", options, path, "100M")
			args := []string{"-f", "vmdk", path}
			for i, k := range []int{1500, 7, 900, 8, 3, 511, 512, 0, 899} { // grains of 64 KiB
				args = append(args, "-c", fmt.Sprintf("write -P %d %dk 64k", i+1, 64*k))
			}
			if strings.Contains(options, "monolithic") {
				args = append(args, "-c", "write -P 77 3333k 200k", "-c", "write -z 448k 64k", "-c", "write -P 78 99999k 1k")
			}
			if out, err := exec.CommandContext(t.Context(), "qemu-io", args...).CombinedOutput(); err != nil {
				t.Fatalf("qemu-io: %v\n%s", err, out)
			}
			raw := filepath.Join(t.TempDir(), "disk.raw")
			qemuImg(t, "convert", "-O", "raw", path, raw)
			guest, err := os.ReadFile(raw)
			if err != nil {
				t.Fatal(err)
			}
			sameAs(t, mustOpen(t, openFile(t, path)), guest)
		})
	}
}

func TestReadsPastFourGiB(t *testing.T) {
	const size = 2<<40 + 5*sector
	raw := filepath.Join(t.TempDir(), "big.raw")
	f, err := os.Create(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	spots := []int64{0, 4<<30 - 512, 5<<30 + 100, 1<<41 - 70000, size - 700}
	want := guestOf(100 << 10)
	length := func(off int64) int64 { return min(int64(len(want)), size-off) }
	for _, off := range spots {
		if _, err := f.WriteAt(want[:length(off)], off); err != nil {
			t.Fatal(err)
		}
	}
	for _, subformat := range []string{"monolithicSparse", "streamOptimized"} {
		t.Run(subformat, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vmdk")
			qemuImg(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, raw, path)
			d := mustOpen(t, openFile(t, path))
			if d.Size() != size {
				t.Fatalf("the disk has %d bytes, want %d", d.Size(), size)
			}
			for _, off := range spots {
				p := make([]byte, length(off))
				if err := d.ReadAt(t.Context(), p, off); err != nil {
					t.Fatal(err)
				}
				there := make([]byte, len(p))
				if _, err := f.ReadAt(there, off); err != nil && err != io.EOF {
					t.Fatal(err)
				}
				if !bytes.Equal(p, there) {
					t.Errorf("%d bytes at %d differ", len(p), off)
				}
			}
			var allocated int64
			for _, x := range mapOf(t, d) {
				if x.Kind != formats.Absent {
					allocated += x.Len
				}
			}
			if allocated == 0 || allocated > int64(len(spots))*(256<<10) {
				t.Errorf("%d bytes of the disk are allocated", allocated)
			}
		})
	}
}

func TestReadsWhatVMwareWrites(t *testing.T) {
	for name, b := range map[string]*builder{
		"footer":                    {},
		"footer, version 1":         {version: 1},
		"footer, zeroed grains":     {zeroGrains: true, version: 2},
		"whole last grain":          {wholeLast: true},
		"directory in front":        {frontGD: true},
		"smallest grains":           {grainSize: 8},
		"largest grains":            {grainSize: 4096},
		"short tables":              {grainSize: 16, tableLen: 3},
		"one entry a table":         {grainSize: 16, tableLen: 1},
		"not compressible, level 1": {level: 1},
		"redundant directory unset": {flags: 1 << 1, frontGD: true},
	} {
		for _, n := range []int{5 * sector, 3000320, 33<<20 + sector} {
			if n > 4<<20 && b.grainSize != 0 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", name, n), func(t *testing.T) {
				b := *b
				guest := guestOf(n)
				image := b.stream(guest)
				sameAs(t, mustOpen(t, mem(image)), guest)
				if b.flags == 0 { // qemu reads the redundant directory whether it is there or not
					qemuAgrees(t, image, guest)
				}
			})
		}
	}
}

func TestReadsSparseOfAnyGeometry(t *testing.T) {
	for name, b := range map[string]*builder{
		"plain":           {version: 1},
		"zeroed grains":   {zeroGrains: true, version: 2},
		"smallest grains": {grainSize: 8},
		"largest grains":  {grainSize: 4096, tableLen: 2},
		"short tables":    {grainSize: 16, tableLen: 5},
	} {
		t.Run(name, func(t *testing.T) {
			guest := guestOf(3000320)
			image := b.sparse(guest)
			sameAs(t, mustOpen(t, mem(image)), guest)
			qemuAgrees(t, image, guest)
		})
	}
}

// qemuAgrees checks the test's own writer: qemu reads guest from image.
func qemuAgrees(t *testing.T, image, guest []byte) {
	t.Helper()
	out := qemuImg(t, "compare", "-f", "vmdk", "-F", "raw", writeFile(t, "d.vmdk", image), writeFile(t, "d.raw", guest))
	if !strings.Contains(out, "identical") {
		t.Errorf("qemu-img compare: %s", out)
	}
}
