package vhdx_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats/formattest"
	"glanced/formats/vhdx"
)

func TestReadsWhatQemuWrites(t *testing.T) {
	const small = 64 << 20
	formattest.Golden(t, vhdx.Driver(), "vhdx", []formattest.Variant{
		{},
		{Options: "subformat=dynamic,block_size=1M"},
		{Options: "subformat=dynamic,block_size=2M,log_size=3M", Args: []string{"-S", "0"}, Largest: small},
		{Options: "subformat=dynamic,block_size=256M", Largest: small},
		{Options: "subformat=dynamic,block_size=16M,log_size=17M", Largest: small},
		{Options: "subformat=dynamic,block_state_zero=on", Largest: small},
		{Options: "subformat=dynamic,block_state_zero=off,block_size=1M", Args: []string{"-S", "0"}, Largest: small},
		{Options: "subformat=fixed", Largest: small},
		{Options: "subformat=fixed,block_size=1M", Largest: small},
		{Options: "subformat=fixed,block_state_zero=off,block_size=4M", Largest: small},
	})
}

// Blocks that qemu-io writes in any order, and makes zeros again.
func TestReadsWhatQemuWroteOutOfOrder(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	for _, options := range []string{"block_size=1M", "block_size=2M,block_state_zero=off", "subformat=fixed,block_size=1M", "block_size=32M"} {
		t.Run(options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vhdx")
			testbed.Run(t, "qemu-img", "create", "-f", "vhdx", "-o", options, path, "100M")
			args := []string{"-t", "unsafe", "-f", "vhdx", path}
			for i, k := range []int{97, 7, 44, 8, 3, 31, 32, 0, 43} { // MiB
				args = append(args, "-c", fmt.Sprintf("write -P %d %dk 300k", i+1, k<<10+i))
			}
			testbed.Run(t, "qemu-io", args...)
			formattest.Image{Driver: vhdx.Driver(), Path: path, QemuFormat: "vhdx"}.Compare(t, options)
		})
	}
}
