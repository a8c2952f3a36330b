package ova_test

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/formattest"
)

func TestServesADiskInAFolderOfTheArchive(t *testing.T) {
	for href, disk := range map[string]string{
		"disks/a.vmdk":                  "disks/a.vmdk",
		"./disks/a.vmdk":                "disks/a.vmdk",
		"disks/./a.vmdk":                "disks/a.vmdk",
		"disks/my%20disk.vmdk":          "disks/my disk.vmdk",
		"disks%2fa.vmdk":                "disks/a.vmdk",
		"a/b/c/d/e/f/a.vmdk":            "a/b/c/d/e/f/a.vmdk",
		"..disks/...":                   "..disks/...",
		"đĩa/磁盘.vmdk":                   "đĩa/磁盘.vmdk",
		"disks/a:b.vmdk":                "disks/a:b.vmdk",
		"./a:b.vmdk":                    "a:b.vmdk",
		strings.Repeat("a/", 400) + "x": strings.Repeat("a/", 400) + "x",
	} {
		for _, stored := range []string{disk, "./" + disk, strings.ReplaceAll(disk, "/", "//")} {
			archive := pack(t, fileIn{"vm.ovf", virtualBoxOVF(href)}, fileIn{"a.vmdk", "another"}, fileIn{stored, "a disk"}, manifest("SHA256", fileIn{disk, "a disk"}))
			o, err := open(t, formattest.Memory(archive))
			if err != nil {
				t.Errorf("%.40q: %v", href, err)
				continue
			}
			if o.Name != disk || content(t, o.Image) != "a disk" {
				t.Errorf("%.40q is %.40q", href, o.Name)
			}
			if err := verify(archive, 1000); err != nil {
				t.Errorf("%.40q: Verify: %v", href, err)
			}
		}
	}
}

// Nothing but a plain path down from the top names a file of the archive, and no
// spelling of one names another.
func TestHostileHrefsAreRefused(t *testing.T) {
	for href, want := range map[string]error{
		"/disks/a.vmdk": formats.ErrReference, "//disks/a.vmdk": formats.ErrReference, "disks//a.vmdk": formats.ErrReference,
		"../a.vmdk": formats.ErrReference, "disks/../disks/a.vmdk": formats.ErrReference, "disks/..": formats.ErrReference,
		"%2e%2e/a.vmdk": formats.ErrReference, "disks%2f..%2fa.vmdk": formats.ErrReference, "%2fdisks/a.vmdk": formats.ErrReference,
		"disks/": formats.ErrReference, "./": formats.ErrReference, ".": formats.ErrReference, "": formats.ErrReference,
		`disks\a.vmdk`: formats.ErrReference, "disks%5ca.vmdk": formats.ErrReference, "disks%00/a.vmdk": formats.ErrReference,
		"file:disks/a.vmdk": formats.ErrReference, "file:///disks/a.vmdk": formats.ErrReference, "http://h/disks/a.vmdk": formats.ErrReference, "c:/disks/a.vmdk": formats.ErrReference,
		"Disks/a.vmdk": formats.ErrCorrupt, "disks/A.VMDK": formats.ErrCorrupt, "a.vmdk": formats.ErrCorrupt, "disks": formats.ErrCorrupt,
		"disks/a.vmdk?x": formats.ErrCorrupt, "disks/a.vmdk/b": formats.ErrCorrupt, "disks/%61.vmdk%": formats.ErrCorrupt,
		strings.Repeat("a/", 5000) + "x": formats.ErrCorrupt,
	} {
		archive := pack(t, fileIn{"vm.ovf", virtualBoxOVF(href)}, fileIn{"disks/a.vmdk", "a disk"})
		if o, err := open(t, formattest.Memory(archive)); !errors.Is(err, want) {
			t.Errorf("%.60q: got %q, %v; want %v", href, o.Name, err, want)
		}
	}
}

// A folder can be a link, and a file can be there under two spellings.
func TestHostileFoldersAreRefused(t *testing.T) {
	disk, ovf := fileIn{"disks/a.vmdk", "a disk"}, fileIn{"vm.ovf", virtualBoxOVF("disks/a.vmdk")}
	for name, h := range map[string]tar.Header{
		"a folder that is a link":   {Name: "disks", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		"a folder that is a link 2": {Name: "disks/", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		"a hard link in it":         {Name: "disks/b", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"},
		"another spelling":          {Name: "disks//a.vmdk"},
		"another spelling, by ./":   {Name: "disks/./a.vmdk"},
		"another spelling, by both": {Name: "./disks/.//a.vmdk"},
		"leading up":                {Name: "disks/../disks/a.vmdk"},
		"leading up at the end":     {Name: "disks/.."},
		"absolute":                  {Name: "/disks/a.vmdk"},
	} {
		t.Run(name, func(t *testing.T) {
			files := []fileIn{ovf, disk, {}}
			headers := []*tar.Header{{Name: ovf.name, Size: int64(len(ovf.content))}, {Name: disk.name, Size: int64(len(disk.content))}, &h}
			both(t, packHeaders(t, headers, files), formats.ErrCorrupt)
		})
	}
	deep := pack(t, ovf, disk, fileIn{strings.Repeat("a/", 512) + "x", ""})
	both(t, deep, formats.ErrLimit)
}

func TestExtentsLieBesideTheirDiskInItsFolder(t *testing.T) {
	src := formattest.Memory(pack(t, fileIn{"vm.ovf", virtualBoxOVF("disks/a.vmdk")}, fileIn{"disks/a.vmdk", "image"},
		fileIn{"disks/a-flat.vmdk", "extent"}, fileIn{"top.vmdk", "x"}, fileIn{"disks/more/b", "y"}))
	o, err := open(t, src)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Image.Close()
	got, err := o.Beside(t.Context(), formats.Ref{Kind: formats.RefExtent, Name: "a-flat.vmdk"})
	if err != nil || content(t, got) != "extent" {
		t.Fatalf("got %v", err)
	}
	for _, name := range []string{"top.vmdk", "../top.vmdk", "disks/a-flat.vmdk", "./a-flat.vmdk", "more/b", "/disks/a-flat.vmdk", "", ".", ".."} {
		if _, err := o.Beside(t.Context(), formats.Ref{Kind: formats.RefExtent, Name: name}); !errors.Is(err, formats.ErrReference) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Disks of one file and of two, in a folder, packed by tar as a whole.
func TestReadsTheDisksThatQemuWritesIntoAFolder(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	raw := filepath.Join(t.TempDir(), "raw")
	writeFile(t, raw, strings.Repeat("guest bytes\n", 20000)+strings.Repeat("\x00", 2<<20-240000))
	for _, kind := range []string{"streamOptimized", "monolithicFlat", "vmfs", "twoGbMaxExtentSparse"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "disks"), 0o755); err != nil {
				t.Fatal(err)
			}
			text := filepath.Join(dir, "disks", "disk.vmdk")
			made := strings.Replace(kind, "vmfs", "monolithicFlat", 1)
			testbed.Run(t, "qemu-img", "convert", "-O", "vmdk", "-o", "subformat="+made, raw, text)
			if kind == "vmfs" {
				b, err := os.ReadFile(text)
				if err != nil {
					t.Fatal(err)
				}
				writeFile(t, text, strings.NewReplacer(`"monolithicFlat"`, `"vmfs"`, `FLAT "disk-flat.vmdk" 0`, `VMFS "disk-flat.vmdk"`).Replace(string(b)))
			}
			writeFile(t, filepath.Join(dir, "vm.ovf"), virtualCenterOVF("disks/disk.vmdk"))
			guest(t, packFiles(t, dir, "."), raw)
		})
	}
}

func TestDisksInFoldersAreToldApart(t *testing.T) {
	ovf := vmwareOVF(
		[]string{`ovf:href="a/disk.vmdk" ovf:id="a" ovf:size="3"`, `ovf:href="b/disk.vmdk" ovf:id="b"`},
		[]string{`ovf:fileRef="b"`, `ovf:fileRef="a"`})
	o, err := open(t, formattest.Memory(pack(t, fileIn{"vm.ovf", ovf}, fileIn{"a/disk.vmdk", "one"}, fileIn{"b/disk.vmdk", "two!"})))
	if err != nil || o.Name != "b/disk.vmdk" || content(t, o.Image) != "two!" || !slices.Equal(o.Others, []string{"a/disk.vmdk"}) {
		t.Errorf("image %q, others %q, %v", o.Name, o.Others, err)
	}
}
