package fs

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/catalog"
	"glanced/contrib/testbed"

	"golang.org/x/sys/unix"
)

func TestDisksAreDecodedWhateverTheirFormat(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	w := newWorld(t)
	mnt := w.mount()
	dir := t.TempDir()
	base := filepath.Join(dir, "base.raw")
	if err := os.WriteFile(base, sparse(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, format string
		options      []string
	}{
		{"plain qcow2", "qcow2", nil},
		{"compressed qcow2", "qcow2", []string{"-c"}},
		{"zstd qcow2", "qcow2", []string{"-c", "-o", "compression_type=zstd"}},
		{"streamOptimized vmdk", "vmdk", []string{"-o", "subformat=streamOptimized"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(dir, c.name)
			testbed.Run(t, "qemu-img", append(append([]string{"convert", "-f", "raw", "-O", c.format}, c.options...), base, file)...)
			stored, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			img := w.uploaded(c.name, stored, func(i *catalog.Image) { i.DiskFormat = &c.format })
			if img.DiskError != "" {
				t.Fatal(img.DiskError)
			}
			folder := filepath.Join(mnt, "by-name", c.name)
			if out := testbed.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", base, folder+"/disk"); !strings.Contains(out, "identical") {
				t.Error(out)
			}
			if got, err := os.ReadFile(folder + "/file"); err != nil || !bytes.Equal(got, stored) {
				t.Errorf("the stored bytes: %v, or other bytes", err)
			}
			st := stat(t, folder+"/disk")
			if st.Blocks*512 < 3*mib/2 || st.Blocks*512 > 3*mib || st.Size < int64(len(sparse())) {
				t.Errorf("the disk has %d bytes, %d of them allocated", st.Size, st.Blocks*512)
			}
			if st := stat(t, folder+"/file"); st.Blocks != (int64(len(stored))+511)/512 {
				t.Errorf("the stored bytes, %d, have %d blocks", len(stored), st.Blocks)
			}
			f, err := os.Open(folder + "/disk")
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if off, err := unix.Seek(int(f.Fd()), 3*mib, unix.SEEK_DATA); err != nil || off < 4*mib || off > 5*mib {
				t.Errorf("SEEK_DATA from 3 MiB: %d, %v", off, err)
			}
		})
	}
}

func TestAnImageThatIsStoredOnlySaysWhyItHasNoDisk(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	w := newWorld(t)
	mnt := w.mount()
	file := filepath.Join(t.TempDir(), "locked.qcow2")
	testbed.Run(t, "qemu-img", "create", "-f", "qcow2", "--object", "secret,id=s,data=secret",
		"-o", "encrypt.format=aes,encrypt.key-secret=s", file, "1M")
	stored, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	img := w.uploaded("locked", stored, func(i *catalog.Image) { i.DiskFormat = ptr("qcow2") })
	folder := filepath.Join(mnt, "images", img.ID)
	if _, err := os.Lstat(folder + "/disk"); !os.IsNotExist(err) {
		t.Errorf("it has a disk: %v", err)
	}
	if got, err := os.ReadFile(folder + "/file"); err != nil || !bytes.Equal(got, stored) {
		t.Errorf("the stored bytes: %v, or other bytes", err)
	}
	fields, _ := metadata(t, folder)
	why := getfattr(t, folder)["user.glance.disk_error"]
	if !strings.Contains(why, "encrypted") || fields["disk_error"] != why {
		t.Errorf("the attribute says %q, metadata.json %q", why, fields["disk_error"])
	}
	if api := "os_glance_disk_error"; getfattr(t, folder)["user.glance."+api] != why || fields[api] != why {
		t.Errorf("under the API's name metadata.json says %q, want %q", fields[api], why)
	}
}
