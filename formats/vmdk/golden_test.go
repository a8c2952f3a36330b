package vmdk_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vmdk"
)

func TestReadsWhatQemuWrites(t *testing.T) {
	variants := []formattest.Variant{
		{Options: "subformat=monolithicSparse"},
		{Options: "subformat=streamOptimized"},
		{Options: "subformat=monolithicSparse,zeroed_grain=on"},
		{Options: "subformat=monolithicSparse,zeroed_grain=on", Args: []string{"-S", "0"}, Largest: 1 << 30},
		{Options: "subformat=streamOptimized,adapter_type=lsilogic,hwversion=10"},
		{Options: "subformat=streamOptimized,adapter_type=legacyESX,toolsversion=1", Largest: 1 << 30},
		{Options: "subformat=monolithicSparse,adapter_type=buslogic,compat6", Largest: 1 << 30},
		{Options: "subformat=monolithicSparse,adapter_type=ide,hwversion=4,toolsversion=2147483647", Largest: 1 << 30},
		{Options: "subformat=streamOptimized,zeroed_grain=on"},
		{Options: "subformat=streamOptimized,compat6", Args: []string{"-S", "0"}, Largest: 1 << 30},
	}
	formattest.Golden(t, vmdk.Driver(), "vmdk", variants)
}

// Grains that qemu-io writes in any order, rewrites, and makes zeros again.
func TestReadsWhatQemuWroteOutOfOrder(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	for _, options := range []string{"subformat=monolithicSparse", "subformat=monolithicSparse,zeroed_grain=on", "subformat=streamOptimized"} {
		t.Run(options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vmdk")
			testbed.Run(t, "qemu-img", "create", "-f", "vmdk", "-o", options, path, "100M")
			args := []string{"-f", "vmdk", path}
			for i, k := range []int{1500, 7, 900, 8, 3, 511, 512, 0, 899} { // grains of 64 KiB
				args = append(args, "-c", fmt.Sprintf("write -P %d %dk 64k", i+1, 64*k))
			}
			if strings.Contains(options, "monolithic") {
				args = append(args, "-c", "write -P 77 3333k 200k", "-c", "write -z 448k 64k", "-c", "write -P 78 99999k 1k")
			}
			testbed.Run(t, "qemu-io", args...)
			formattest.Image{Driver: vmdk.Driver(), Path: path, QemuFormat: "vmdk"}.Compare(t, options)
		})
	}
}

// The tests' own writer stands in for VMware's tools; that qemu reads the same
// from what it writes shows that it is no format of our own.
func TestReadsWhatVMwareWrites(t *testing.T) {
	for name, b := range map[string]*builder{
		"footer":                     {},
		"footer, version 1":          {version: 1},
		"footer, zeroed grains":      {zeroGrains: true, version: 2},
		"whole last grain":           {wholeLast: true},
		"directory in front":         {frontGD: true},
		"smallest grains":            {grainSize: 8},
		"largest grains":             {grainSize: 4096},
		"short tables":               {grainSize: 16, tableLen: 3},
		"one entry a table":          {grainSize: 16, tableLen: 1},
		"barely compressed":          {level: 1},
		"unused bit of the low half": {flags: 1 << 9},
	} {
		t.Run(name, func(t *testing.T) {
			compareBuilt(t, guestOf(5*sector), (*builder).stream, *b)
			compareBuilt(t, guestOf(1172*sector), (*builder).stream, *b)
		})
	}
	t.Run("several tables", func(t *testing.T) {
		compareBuilt(t, guestOf(33<<20+sector), (*builder).stream, builder{})
	})
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
			compareBuilt(t, guestOf(3000320), (*builder).sparse, *b)
		})
	}
}

// compareBuilt checks that we and qemu both read guest from what b writes.
func compareBuilt(t *testing.T, guest []byte, write func(*builder, []byte) []byte, b builder) {
	t.Helper()
	image := write(&b, guest)
	if i := firstDifference(readAll(t, formattest.Memory(image)), guest); i >= 0 {
		t.Fatalf("of %d bytes, the one at %d differs", len(guest), i)
	}
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	formattest.Image{Driver: vmdk.Driver(), Path: path, QemuFormat: "vmdk"}.Compare(t, fmt.Sprintf("%d bytes", len(guest)))
}

func openDisk(t testing.TB, src stored.Bytes) *engine.Disk {
	t.Helper()
	e := engine.New(engine.Options{CacheBytes: 8 << 20, TableBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	d, err := e.Open(t.Context(), vmdk.Driver(), src, engine.OpenOptions{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func readAll(t testing.TB, src stored.Bytes) []byte {
	t.Helper()
	d := openDisk(t, src)
	p := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}

// A grain at the highest sector that a table entry can hold.
func TestReadsGrainsPastTwoTiBOfTheFile(t *testing.T) {
	b := builder{version: 1}
	guest := bytes.Repeat([]byte("near the end"), 64<<10/12+1)[:64<<10]
	image := b.sparse(guest)
	const at = 1<<32 - 128
	binary.LittleEndian.PutUint32(image[b.tables[0]*sector:], at)
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	if err := os.WriteFile(path, image[:b.firstGrain*sector], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(guest, at*sector); err != nil {
		t.Fatal(err)
	}
	if i := firstDifference(readAll(t, formattest.OpenFile(t, path)), guest); i >= 0 {
		t.Errorf("the byte at %d differs", i)
	}
	formattest.Image{Driver: vmdk.Driver(), Path: path, QemuFormat: "vmdk"}.Compare(t, "far grain")
}

// VirtualBox rounds the capacity up to whole grains, and says the disk's own size
// in the descriptor. The capacity counts, as for qemu.
func TestCapacityMayExceedTheDescriptor(t *testing.T) {
	b := builder{descriptor: descriptorOf("streamOptimized", 100, "disk.vmdk")}
	guest := guestOf(128 * sector)
	if got := openDisk(t, formattest.Memory(b.stream(guest))).Size(); got != int64(len(guest)) {
		t.Errorf("Size is %d, want %d", got, len(guest))
	}
}

// VMware's readers take the redundant directory of such a file, and qemu takes its
// first sector for the directory: two readers, two disks.
func TestRefusesAFileWithTheRedundantDirectoryAlone(t *testing.T) {
	b := builder{flags: 1 << 1}
	image := b.sparse(guestOf(1 << 20))
	binary.LittleEndian.PutUint64(image[48:], uint64(b.gd))
	binary.LittleEndian.PutUint64(image[56:], 0)
	formattest.Refuse(t, vmdk.Driver(), image, formats.ErrCorrupt)
	info, err := vmdk.Driver().Inspect(t.Context(), formattest.Memory(image))
	if err != nil || info.Refused == nil || !strings.Contains(info.Refused.Error(), "no grain directory but the redundant one") {
		t.Errorf("refused: %v, %v", info.Refused, err)
	}
	image[8] &^= 1 << 1
	formattest.Refuse(t, vmdk.Driver(), image, formats.ErrCorrupt)
}
