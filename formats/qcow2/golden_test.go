package qcow2_test

import (
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
)

// small leaves the sparse disk out where each of its bytes would be written.
const small = 64 << 20

func TestGolden(t *testing.T) {
	var vs []formattest.Variant
	add := func(options string, args ...string) {
		vs = append(vs, formattest.Variant{Options: options, Args: args})
	}
	// The truth disks differ in what a cluster holds and how far the tables reach;
	// what comes between the extremes is made of one of them.
	one := func(options string, args ...string) {
		vs = append(vs, formattest.Variant{Options: options, Args: args, Smallest: 3 << 20, Largest: small})
	}
	for _, size := range []string{"512", "4k", "64k", "2M"} {
		add("compat=0.10,cluster_size=" + size)
		add("compat=1.1,cluster_size="+size, "-c")
	}
	for _, size := range []string{"1k", "2k", "8k", "16k", "32k", "128k", "256k", "512k", "1M"} {
		one("compat=1.1,cluster_size=" + size)
		one("compat=0.10,cluster_size="+size, "-c")
		one("compression_type=zstd,cluster_size="+size, "-c")
	}
	for _, size := range []string{"512", "2M"} {
		one("compat=0.10,cluster_size="+size, "-c")
		add("compat=1.1,cluster_size=" + size)
		add("compression_type=zstd,cluster_size="+size, "-c")
	}
	for _, size := range []string{"16k", "64k", "2M"} {
		add("extended_l2=on,cluster_size=" + size)
		one("extended_l2=on,cluster_size="+size, "-c")
		one("extended_l2=on,compression_type=zstd,cluster_size="+size, "-c")
	}
	for _, n := range []string{"1", "2", "4", "8", "32", "64"} {
		one("refcount_bits="+n, "-c")
	}
	add("lazy_refcounts=on")
	for _, mode := range []string{"metadata", "falloc", "full"} {
		for _, o := range []string{"compat=0.10", "compat=1.1", "cluster_size=512", "cluster_size=2M", "extended_l2=on"} {
			vs = append(vs, formattest.Variant{Options: o + ",preallocation=" + mode, Smallest: 2 << 20, Largest: small})
		}
	}
	vs = append(vs, formattest.Variant{Args: []string{"-S", "0"}, Largest: small})
	formattest.Golden(t, qcow2.Driver(), "qcow2", vs)
}

// edits are what happens to an image after it was made. Each works on the
// first MiB or so of the mixed truth disk.
var edits = map[string]func(t *testing.T, path string){
	"zeroed": func(t *testing.T, path string) {
		qemuIO(t, path, "write -z 64k 192k", "write -z 500k 3k", "write -z -u 1M 256k")
	},
	"discarded": func(t *testing.T, path string) {
		qemuIO(t, path, "discard 0 128k", "discard 640k 512k")
	},
	"overwritten": func(t *testing.T, path string) {
		qemuIO(t, path, "write -P 7 3k 70k", "write -z 128k 64k", "write -P 9 130k 1k", "discard 1M 64k", "write -c -P 5 1M 64k")
	},
	"grown": func(t *testing.T, path string) {
		testbed.Run(t, "qemu-img", "resize", "-q", path, "+700M")
	},
	"grown preallocated": func(t *testing.T, path string) {
		testbed.Run(t, "qemu-img", "resize", "-q", "--preallocation=metadata", path, "+3M")
	},
	"shrunk": func(t *testing.T, path string) {
		testbed.Run(t, "qemu-img", "resize", "-q", "--shrink", path, "1100k")
	},
	"reverted to a snapshot": func(t *testing.T, path string) {
		testbed.Run(t, "qemu-img", "snapshot", "-c", "before", path)
		qemuIO(t, path, "write -P 1 0 1M")
		testbed.Run(t, "qemu-img", "snapshot", "-a", "before", path)
		testbed.Run(t, "qemu-img", "snapshot", "-d", "before", path)
	},
	"with a bitmap": func(t *testing.T, path string) {
		testbed.Run(t, "qemu-img", "bitmap", "--add", path, "changes")
		qemuIO(t, path, "write -P 3 64k 64k")
	},
}

func qemuIO(t *testing.T, path string, commands ...string) {
	t.Helper()
	args := []string{"-f", "qcow2", "-d", "unmap", "-t", "unsafe"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	testbed.Run(t, "qemu-io", append(args, path)...)
}

func TestGoldenOfEditedImages(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	var vs []formattest.Variant
	for name, edit := range edits {
		for _, options := range []string{"compat=0.10", "compat=1.1", "cluster_size=4k", "extended_l2=on"} {
			if name == "with a bitmap" && options == "compat=0.10" {
				continue // version 2 has none
			}
			v := formattest.Variant{Options: options, EditName: name, Edit: edit, Smallest: 3 << 20, Largest: small}
			vs = append(vs, v)
			v.Args = []string{"-c"}
			vs = append(vs, v)
		}
	}
	formattest.Golden(t, qcow2.Driver(), "qcow2", vs)
}

// Each preallocated or half-written state that qemu-img create leaves.
func TestGoldenOfCreatedImages(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	for i, options := range []string{
		"compat=0.10", "compat=1.1", "extended_l2=on", "cluster_size=2M", "lazy_refcounts=on",
		"preallocation=metadata", "preallocation=metadata,extended_l2=on", "preallocation=falloc", "preallocation=full,cluster_size=512",
	} {
		for _, size := range []string{"0", "512", "1000k", "10M"} {
			t.Run(options+" "+size, func(t *testing.T) {
				t.Parallel()
				path := t.TempDir() + "/image"
				testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", options, path, size)
				img := formattest.Image{Driver: qcow2.Driver(), Path: path, QemuFormat: "qcow2", Seed: uint64(i)}
				img.Compare(t, "as created")
				if size == "10M" {
					qemuIO(t, path, "write -P 1 5M 1k", "write -P 2 10239k 1k", "write -z 2M 70k")
					img.Compare(t, "written")
				}
			})
		}
	}
}

// A crash leaves the dirty bit, and refcounts that are wrong.
func TestGoldenOfADirtyImage(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	path := t.TempDir() + "/image"
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", path, "10M")
	crash(t, path, "write -P 1 1M 100k", "flush", "abort")
	if h := header(t, path); h[79]&1 == 0 {
		t.Fatalf("the image is not dirty: incompatible features %x", h[72:80])
	}
	formattest.Image{Driver: qcow2.Driver(), Path: path, QemuFormat: "qcow2"}.Compare(t, "dirty")
}

// LUKS is among the hostile images: to make one, qemu-img measures the machine's
// speed, which fails now and then on a busy one.
func TestEncryptedImagesAreRefused(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	path := t.TempDir() + "/image"
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=secret",
		"-o", "encrypt.format=aes,encrypt.key-secret=s", path, "1M")
	wantEncrypted(t, path)
}
