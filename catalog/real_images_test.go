package catalog_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/catalog"
	"glanced/contrib/testbed"
)

// withQemu is a world for images that qemu-img makes.
func withQemu(t *testing.T) *world {
	t.Helper()
	testbed.Need(t, "qemu-img", "qemu-utils")
	return newWorld(t, nil)
}

// guestDisk is a disk as guests have them: text, noise, zeros, and data at the end.
func guestDisk(dir string, t *testing.T) (path string, content []byte) {
	t.Helper()
	content = make([]byte, 6<<20)
	copy(content, noise(1, 1<<20+777))
	copy(content[3<<20:], bytes.Repeat([]byte("云计算平台的虚拟磁盘 đĩa ảo\n"), 20_000))
	copy(content[len(content)-512:], noise(2, 512))
	path = filepath.Join(dir, "guest.raw")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, content
}

func TestTheGuestDiskOfRealImagesIsWhatQemuPutIn(t *testing.T) {
	w := withQemu(t)
	dir := t.TempDir()
	rawDisk, content := guestDisk(dir, t)
	for _, c := range []struct{ disk, name, args string }{
		{"qcow2", "plain", "-O qcow2"},
		{"qcow2", "version 2", "-O qcow2 -o compat=0.10"},
		{"qcow2", "zlib", "-c -O qcow2 -o compression_type=zlib"},
		{"qcow2", "zstd", "-c -O qcow2 -o compression_type=zstd"},
		{"vmdk", "streamOptimized", "-O vmdk -o subformat=streamOptimized"},
		{"vmdk", "monolithicSparse", "-O vmdk -o subformat=monolithicSparse"},
		{"raw", "raw", "-O raw"},
	} {
		t.Run(c.disk+" "+c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image")
			args := append([]string{"convert", "-f", "raw"}, strings.Fields(c.args)...)
			testbed.Run(t, "qemu-img", append(args, rawDisk, path)...)
			image, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			img := w.active(t, c.disk, "bare", image)
			if *img.VirtualSize != int64(len(content)) || *img.Size != int64(len(image)) || img.DiskError != "" {
				t.Errorf("virtual size %d, size %d, disk error %q", *img.VirtualSize, *img.Size, img.DiskError)
			}
			// 1 MiB of noise, 0.7 MiB of text and the last sector, in clusters of
			// 64 KiB; the zeros between are no data.
			if a := *img.Allocated; a < 1<<20+700_000 || a > 2<<20 {
				t.Errorf("%d bytes are allocated of %d", a, len(content))
			}
			w.wantGuest(t, img.ID, content)
			w.wantStored(t, img.ID, image)
			// Declared as something else it is refused, however it came about.
			other := map[string]string{"qcow2": "vmdk", "vmdk": "qcow2", "raw": "qcow2"}[c.disk]
			wrong := w.queued(t, other, "bare")
			err = w.Upload(t.Context(), wrong.ID, bytes.NewReader(image), catalog.UploadOptions{Size: -1})
			wantErr(t, err, catalog.ErrFormat)
			if err == nil || !strings.Contains(err.Error(), "declared "+other) {
				t.Errorf("error %v does not say what was declared", err)
			}
		})
	}
}

func TestRealImagesThatAreNotSafeAreRefusedWithAReason(t *testing.T) {
	w := withQemu(t)
	dir := t.TempDir()
	rawDisk, _ := guestDisk(dir, t)
	run := func(args ...string) { testbed.Run(t, "qemu-img", args...) }
	in := func(name string) string { return filepath.Join(dir, name) }
	read := func(name string) []byte {
		t.Helper()
		p, err := os.ReadFile(in(name))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	run("create", "-f", "qcow2", "-b", rawDisk, "-F", "raw", in("backed"))
	run("create", "-f", "qcow2", "-o", "data_file="+in("kho dữ liệu")+",data_file_raw=on", in("external"), "8M")
	run("convert", "-f", "raw", "-O", "qcow2", rawDisk, in("plain"))
	run("convert", "-c", "-f", "raw", "-O", "qcow2", rawDisk, in("compressed"))
	run("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", rawDisk, in("stream"))
	run("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", rawDisk, in("flat"))
	plain, stream, compressed := read("plain"), read("stream"), read("compressed")
	for _, c := range []struct {
		name, disk string
		content    []byte
		want       error
		says       []string
	}{
		{"a backing file", "qcow2", read("backed"), catalog.ErrUnsafe, []string{"refers to another file", "backing file", rawDisk}},
		{"an external data file", "qcow2", read("external"), catalog.ErrUnsafe, []string{"refers to another file", "data file", "kho dữ liệu"}},
		{"a descriptor that names its extent", "vmdk", read("flat"), catalog.ErrUnsafe, []string{"refers to another file", "extent", "flat-flat", "not part of the upload"}},
		{"the magic number alone", "qcow2", plain[:4], catalog.ErrFormat, []string{"declared qcow2"}},
		{"half a header", "qcow2", plain[:60], catalog.ErrFormat, []string{"declared qcow2"}},
		{"the header alone", "qcow2", plain[:65536], catalog.ErrUnsafe, []string{"corrupt"}},
		{"without its last half", "qcow2", plain[:len(plain)/2], catalog.ErrUnsafe, []string{"corrupt", "past the end"}},
		{"a compressed one without its last half", "qcow2", compressed[:len(compressed)/2], catalog.ErrUnsafe, []string{"corrupt"}},
		{"a vmdk without its last half", "vmdk", stream[:len(stream)/2], catalog.ErrUnsafe, []string{"corrupt"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := w.queued(t, c.disk, "bare")
			err := w.Upload(t.Context(), img.ID, bytes.NewReader(c.content), catalog.UploadOptions{Size: int64(len(c.content))})
			wantErr(t, err, c.want)
			for _, s := range c.says {
				if err == nil || !strings.Contains(err.Error(), s) {
					t.Errorf("error %v does not say %q", err, s)
				}
			}
			w.wantUntouched(t, img.ID)
		})
	}
}

func TestARealEncryptedImageIsStoredOnly(t *testing.T) {
	w := withQemu(t)
	path := filepath.Join(t.TempDir(), "encrypted")
	// AES, for making a LUKS image fails where the CPU's time cannot be told well.
	testbed.Run(t, "qemu-img", "create", "-f", "qcow2", "--object", "secret,id=s,data=x",
		"-o", "encrypt.format=aes,encrypt.key-secret=s", path, "8M")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	img := w.active(t, "qcow2", "bare", image)
	if img.VirtualSize == nil || *img.VirtualSize != 8<<20 || img.Allocated != nil || !strings.Contains(img.DiskError, "encrypted") {
		t.Errorf("virtual size %s, allocated %s, disk error %q", show(img.VirtualSize), show(img.Allocated), img.DiskError)
	}
	w.wantStored(t, img.ID, image)
	_, err = w.Open(t.Context(), img.ID, catalog.View{})
	wantErr(t, err, catalog.ErrStoredOnly)
}
