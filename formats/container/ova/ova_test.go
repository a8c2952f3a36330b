package ova_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/backends/localfile"
	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/all"
	"glanced/formats/container"
	"glanced/formats/container/ova"
	"glanced/formats/engine"
	"glanced/formats/formattest"
)

func TestServesTheDiskInPlaceFromWhatTarWrites(t *testing.T) {
	dir := t.TempDir()
	disk := strings.Repeat("a disk, byte for byte. ", 10000)
	writeFile(t, filepath.Join(dir, "disk.img"), disk)
	writeFile(t, filepath.Join(dir, "vm.ovf"), oneDisk().content)
	for name, args := range map[string][]string{
		"gnu":            {"--format=gnu", "vm.ovf", "disk.img"},
		"oldgnu":         {"--format=oldgnu", "vm.ovf", "disk.img"},
		"ustar":          {"--format=ustar", "vm.ovf", "disk.img"},
		"pax":            {"--format=pax", "--pax-option=globexthdr.name=/tmp/g,comment=x,a:=b", "vm.ovf", "disk.img"},
		"v7":             {"--format=v7", "vm.ovf", "disk.img"},
		"the OVF last":   {"disk.img", "vm.ovf"},
		"with ./":        {"./vm.ovf", "./disk.img"},
		"a whole folder": {"."},
		"no padding":     {"-b1", "vm.ovf", "disk.img"},
	} {
		t.Run(name, func(t *testing.T) {
			src := packFiles(t, dir, args...)
			if head, err := formats.ReadHead(t.Context(), src); err != nil || !ova.Container().Probe(head) {
				t.Errorf("not recognised: %v", err)
			}
			o, err := open(t, src)
			if err != nil {
				t.Fatal(err)
			}
			defer o.Image.Close()
			if o.Name != "disk.img" || len(o.Others) > 0 || content(t, o.Image) != disk {
				t.Errorf("%q (others %q) has other content", o.Name, o.Others)
			}
			f, ok := o.Image.(stored.FileRanger).FileRange(100, 50)
			if !ok {
				t.Fatal("the file's range is not given")
			}
			part := make([]byte, 50)
			if _, err := f.File.ReadAt(part, f.Pos); err != nil || string(part) != disk[100:150] {
				t.Errorf("the file has %q there: %v", part, err)
			}
		})
	}
}

// guest opens the disk that is in an OVA, and its content is that of the raw file.
func guest(t *testing.T, src stored.Bytes, raw string) {
	t.Helper()
	o, err := open(t, src)
	if err != nil {
		t.Fatal(err)
	}
	name, err := formats.DetectSource(t.Context(), all.Drivers(), o.Image)
	if err != nil {
		t.Fatal(err)
	}
	driver, _ := formats.Find(all.Drivers(), name)
	e := engine.New(engine.Options{})
	defer e.Close()
	disk, err := e.Open(t.Context(), driver, o.Image, engine.OpenOptions{Files: o.Beside})
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, disk.Size())
	if err := disk.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("the %s disk has other content", name)
	}
}

func TestReadsTheDisksThatQemuWrites(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	raw := filepath.Join(t.TempDir(), "raw")
	part := strings.Repeat("guest bytes\n", 20000)
	writeFile(t, raw, part+strings.Repeat("\x00", 3<<20-len(part))+strings.Repeat("end.", 256<<8))
	for _, kind := range []string{"streamOptimized", "monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"} {
		t.Run(kind, func(t *testing.T) {
			guest(t, packVMDK(t, raw, t.TempDir(), kind), raw)
		})
	}
	t.Run("qcow2", func(t *testing.T) {
		dir := t.TempDir()
		testbed.Run(t, "qemu-img", "convert", "-c", "-O", "qcow2", raw, filepath.Join(dir, "disk.qcow2"))
		writeFile(t, filepath.Join(dir, "vm.ovf"), virtualBoxOVF("disk.qcow2"))
		guest(t, packFiles(t, dir, "disk.qcow2", "vm.ovf"), raw)
	})
}

// packVMDK makes an OVA, in dir, of raw as a vmdk of the kind.
func packVMDK(t *testing.T, raw, dir, kind string) *localfile.File {
	t.Helper()
	testbed.Run(t, "qemu-img", "convert", "-O", "vmdk", "-o", "subformat="+kind, raw, filepath.Join(dir, "disk.vmdk"))
	writeFile(t, filepath.Join(dir, "vm.ovf"), virtualBoxOVF("disk.vmdk"))
	return packFiles(t, dir, append([]string{"vm.ovf"}, filesIn(t, dir, "vm.ovf")...)...)
}

func filesIn(t *testing.T, dir, but string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != but {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestMembersOver8GiBHaveSizesOfOtherKinds(t *testing.T) {
	for name, format := range map[string]string{"base-256": "gnu", "pax": "pax"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			const size = 9 << 30
			writeFile(t, filepath.Join(dir, "disk.img"), "begin")
			if err := os.Truncate(filepath.Join(dir, "disk.img"), size); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(dir, "vm.ovf"), oneDisk().content)
			// Only the headers are wanted: the archive is the first of them, made long.
			testbed.Need(t, "tar", "tar")
			testbed.Need(t, "sh", "dash")
			head := testbed.Run(t, "sh", "-c", `tar -C "$1" --format="$2" -cf - vm.ovf disk.img 2>/dev/null | head -c 20480`, "sh", dir, format)
			path := filepath.Join(t.TempDir(), "vm.ova")
			writeFile(t, path, head)
			if err := os.Truncate(path, size+20480); err != nil {
				t.Fatal(err)
			}
			o, err := open(t, formattest.OpenFile(t, path))
			if err != nil {
				t.Fatal(err)
			}
			defer o.Image.Close()
			begin := make([]byte, 5)
			if err := o.Image.ReadAt(t.Context(), begin, 0); err != nil || string(begin) != "begin" || o.Image.Size() != size {
				t.Errorf("%q, %d bytes: %v", begin, o.Image.Size(), err)
			}
			// Nothing but headers and the descriptor was read of it.
			counted := &countingSource{Bytes: formattest.OpenFile(t, path)}
			if _, err := open(t, counted); err != nil || counted.bytes > 128<<10 {
				t.Errorf("%d bytes were read to open it: %v", counted.bytes, err)
			}
		})
	}
}

type countingSource struct {
	stored.Bytes
	bytes int
}

func (c *countingSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	c.bytes += len(p)
	return c.Bytes.ReadAt(ctx, p, off)
}

func TestTheFirstDiskWithAFileIsTheImage(t *testing.T) {
	ovf := vmwareOVF(
		[]string{`ovf:href="vm-disk1.vmdk" ovf:id="a" ovf:size="3"`, `ovf:href="my%20second.vmdk" ovf:id="b"`, `ovf:href="third.vmdk" ovf:id="c"`, `ovf:href="nvram" ovf:id="n"`},
		[]string{``, `ovf:fileRef="b"`, `ovf:fileRef="a"`, `ovf:fileRef="b"`, `ovf:fileRef="c"`})
	o, err := open(t, formattest.Memory(pack(t, fileIn{"third.vmdk", "3"}, fileIn{"vm-disk1.vmdk", "one"}, fileIn{"my second.vmdk", "two!"}, fileIn{"nvram", "x"}, fileIn{"VM.OVF", ovf})))
	if err != nil {
		t.Fatal(err)
	}
	if o.Name != "my second.vmdk" || content(t, o.Image) != "two!" || !slices.Equal(o.Others, []string{"vm-disk1.vmdk", "third.vmdk"}) {
		t.Errorf("image %q, others %q", o.Name, o.Others)
	}
}

func TestBesideSuppliesMembersByTheirPlainNameOnly(t *testing.T) {
	src := formattest.Memory(pack(t, oneDisk(), fileIn{"disk.img", "image"}, fileIn{"extent.vmdk", "extent"}, fileIn{"sub/inner.vmdk", "x"}))
	o, err := open(t, src)
	if err != nil {
		t.Fatal(err)
	}
	got, err := o.Beside(t.Context(), formats.Ref{Kind: formats.RefExtent, Name: "extent.vmdk"})
	if err != nil || content(t, got) != "extent" {
		t.Fatalf("got %v", err)
	}
	got.Close()
	if content(t, o.Image) != "image" {
		t.Error("closing an extent closed the archive")
	}
	for _, ref := range []formats.Ref{
		{Kind: formats.RefExtent, Name: "other.vmdk"}, {Kind: formats.RefExtent, Name: "./extent.vmdk"},
		{Kind: formats.RefExtent, Name: "sub/inner.vmdk"}, {Kind: formats.RefExtent, Name: "/etc/passwd"},
		{Kind: formats.RefExtent, Name: ""}, {Kind: formats.RefParent, Name: "extent.vmdk"}, {Kind: formats.RefBacking, Name: "extent.vmdk"},
	} {
		if _, err := o.Beside(t.Context(), ref); !errors.Is(err, formats.ErrReference) {
			t.Errorf("%+v: %v", ref, err)
		}
	}
	o.Image.Close()
	if err := src.ReadAt(t.Context(), make([]byte, 1), 0); !errors.Is(err, formats.ErrClosed) {
		t.Errorf("the archive is still open: %v", err)
	}
}

func TestTheSectionIsNoLongerThanTheDisk(t *testing.T) {
	o, err := open(t, formattest.Memory(pack(t, oneDisk(), fileIn{"disk.img", "0123456789"}, fileIn{"secret", "secret"})))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ off, n int64 }{{-1, 1}, {10, 1}, {0, 11}, {1 << 62, 1}, {-512, 4}} {
		if err := o.Image.ReadAt(t.Context(), make([]byte, c.n), c.off); !errors.Is(err, stored.ErrRange) {
			t.Errorf("ReadAt(%d bytes, %d) = %v", c.n, c.off, err)
		}
	}
}

func TestAnImageOfOneDiskPastTheOVAIsNotFound(t *testing.T) {
	for name, b := range map[string][]byte{
		"no descriptor":       pack(t, fileIn{"disk.vmdk", "x"}),
		"a descriptor inside": pack(t, fileIn{"sub/vm.ovf", oneDisk().content}, fileIn{"disk.img", "x"}),
		"no disks":            pack(t, fileIn{"vm.ovf", vmwareOVF(nil, nil)}),
		"no disk with a file": pack(t, fileIn{"vm.ovf", vmwareOVF([]string{`ovf:href="disk.img" ovf:id="f"`}, []string{``})}, fileIn{"disk.img", "x"}),
	} {
		if _, err := open(t, formattest.Memory(b)); !errors.Is(err, container.ErrNoDisk) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenSaysWhetherThereIsAManifest(t *testing.T) {
	disk := fileIn{"disk.img", "a disk"}
	for name, c := range map[string]struct {
		more []fileIn
		want bool
	}{
		"one":                  {[]fileIn{manifest("SHA1", disk)}, true},
		"one in other letters": {[]fileIn{{"VM.MF", ""}}, true},
		"none":                 {nil, false},
		"a certificate":        {[]fileIn{{"vm.cert", ""}}, false},
		"one in a folder":      {[]fileIn{{"sub/vm.mf", ""}}, false},
	} {
		if o, err := open(t, formattest.Memory(pack(t, append(c.more, oneDisk(), disk)...))); err != nil || o.Digests != c.want {
			t.Errorf("%s: %v, %v", name, o.Digests, err)
		}
	}
}
