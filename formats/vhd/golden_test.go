package vhd_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats/formattest"
	"glanced/formats/vhd"
)

func TestReadsWhatQemuWrites(t *testing.T) {
	const small = 16 << 20
	formattest.Golden(t, vhd.Driver(), "vpc", []formattest.Variant{
		{},
		{Options: "subformat=dynamic,force_size=on"},
		{Options: "subformat=dynamic", Args: []string{"-S", "0"}, Largest: small},
		{Options: "subformat=fixed"},
		{Options: "subformat=fixed,force_size=on"},
		{Options: "subformat=fixed,force_size=on", Args: []string{"-S", "0"}, Largest: small},
		{Options: "subformat=fixed,preallocation=full", Largest: small},
		{Options: "subformat=fixed,preallocation=falloc,force_size=on", Largest: small},
		{Options: "subformat=fixed,preallocation=off,extent_size_hint=0,nocow=on", Largest: small},
	})
}

// Blocks that qemu-io writes in any order, in parts, and again.
func TestReadsWhatQemuWroteOutOfOrder(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.vhd")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "vpc", path, "200M")
	args := []string{"-f", "vpc", path}
	for i, mib := range []int{150, 7, 90, 8, 3, 51, 52, 0, 89, 150} {
		args = append(args, "-c", fmt.Sprintf("write -P %d %dM 700k", i+1, mib))
	}
	testbed.Run(t, "qemu-io", append(args, "-c", "write -P 77 30223k 3M", "-c", "write -z 7M 64k")...)
	formattest.Image{Driver: vhd.Driver(), Path: path, QemuFormat: "vpc"}.Compare(t, "out of order")
}

// compareWithQemu checks that we and qemu read the same from an image whose
// blocks have all their bits set: qemu does not look at them.
func compareWithQemu(t *testing.T, image []byte, what string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.vhd")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	formattest.Image{Driver: vhd.Driver(), Path: path, QemuFormat: "vpc"}.Compare(t, what)
}

// The tests' own writer stands in for Hyper-V's; that qemu reads the same from
// what it writes shows that it is no format of our own.
func TestQemuReadsWhatTheTestsWrite(t *testing.T) {
	guest := guestOf(300*sector + 3*sector)
	for name, b := range map[string]builder{
		"plain":           {},
		"backwards":       {backward: true},
		"header behind":   {headerAt: 8192},
		"spare entries":   {spare: 1000},
		"blocks of 2 MiB": {block: 2 << 20},
		"blocks of 8 MiB": {block: 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			blockSectors := max(b.block, 16<<10) / sector
			wholeBlocks := func(s int) bool { return s/blockSectors%3 != 1 }
			compareWithQemu(t, b.sparse(guest, wholeBlocks).image, name)
		})
	}
	t.Run("fixed", func(t *testing.T) { compareWithQemu(t, builder{}.fixed(guest), "fixed") })
}

// A block near the highest sector that a BAT entry can hold.
func TestReadsBlocksNearTwoTiBOfTheFile(t *testing.T) {
	guest := guestOf(2 << 20)
	b := builder{block: 2 << 20}
	x := b.sparse(guest, all)
	const at = 1<<32 - 8192
	x.entry(0, at)
	path := filepath.Join(t.TempDir(), "disk.vhd")
	if err := os.WriteFile(path, x.image[:x.blocks[0]*sector], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(x.image[x.blocks[0]*sector:], at*sector); err != nil {
		t.Fatal(err)
	}
	mustRead(t, openDisk(t, formattest.OpenFile(t, path), nil), guest)
	formattest.Image{Driver: vhd.Driver(), Path: path, QemuFormat: "vpc"}.Compare(t, "far block")
}
