package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// applianceOf makes an OVA of the files at paths, the first of which is the disk:
// a descriptor, a manifest if digests are wanted, and the files.
func applianceOf(t *testing.T, digests bool, paths ...string) string {
	t.Helper()
	type member struct {
		name string
		data []byte
	}
	var members []member
	var files strings.Builder
	for i, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member{filepath.Base(path), data})
		fmt.Fprintf(&files, `<File ovf:href="%s" ovf:id="file%d" ovf:size="%d"/>`, filepath.Base(path), i, len(data))
	}
	descriptor := `<?xml version="1.0"?><Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"><References>` +
		files.String() + `</References><DiskSection><Info>x</Info><Disk ovf:capacity="25166336" ovf:diskId="d" ovf:fileRef="file0"/></DiskSection></Envelope>`
	members = slices.Insert(members, 0, member{"vm.ovf", []byte(descriptor)})
	if digests {
		var manifest strings.Builder
		for _, m := range members {
			fmt.Fprintf(&manifest, "SHA256(%s)= %x\n", m.name, sha256.Sum256(m.data))
		}
		members = slices.Insert(members, 1, member{"vm.mf", []byte(manifest.String())})
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.data)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		w.Write(m.data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "vm.ova", b.Bytes())
}

// streamOf is guest as a streamOptimized vmdk.
func streamOf(t *testing.T, guest string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk1.vmdk")
	qemuImg(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", guest, path)
	return path
}

func zipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type described struct {
	Container, InnerName *string
	Format               string
	InnerSize            *int64 `json:"inner_size"`
	VirtualSize          int64  `json:"virtual_size"`
	FileSize             int64  `json:"file_size"`
	Safe                 bool
}

func TestTheDiskInAContainerIsFoundAndRead(t *testing.T) {
	guest := guestDisk(t)
	want, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	disk := streamOf(t, guest)
	stream, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ file, container, format string }{
		"ova":                {applianceOf(t, true, disk), "ova", "vmdk"},
		"compressed":         {writeFile(t, "disk.gz", zipped(t, stream)), "compressed", "vmdk"},
		"a compressed raw":   {writeFile(t, "disk.raw.gz", zipped(t, want)), "compressed", "raw"},
		"in several extents": {severalExtents(t, guest), "ova", "vmdk"},
		"as ESX has it":      {esxAppliance(t, guest), "ova", "vmdk"},
	} {
		t.Run(name, func(t *testing.T) {
			info := decode[described](t, glancectl(t, "", "disk", "info", tt.file, "-f", "json").ok())
			if info.Container == nil || *info.Container != tt.container || info.Format != tt.format || info.VirtualSize != int64(len(want)) || info.InnerSize == nil || !info.Safe {
				t.Errorf("info: %+v", info)
			}
			for _, args := range [][]string{{tt.file}, {tt.file, "--container", tt.container}, {tt.file, "--container", tt.container, "--format", tt.format}} {
				if !bytes.Equal(converted(t, args...), want) {
					t.Errorf("%q: the disk is another one", args[1:])
				}
			}
			checkDisk(t, exitDone, tt.file)
			if b := bench(t, tt.file); b.Bytes == 0 {
				t.Error("bench reads nothing")
			}
			// What it is declared to be, it is: nothing is looked for in it.
			file, err := os.ReadFile(tt.file)
			if err != nil {
				t.Fatal(err)
			}
			for _, args := range [][]string{{tt.file, "--format", "raw"}, {tt.file, "--container", "bare", "--format", "raw"}, {tt.file, "--container", "bare"}} {
				if !bytes.Equal(converted(t, args...), file) {
					t.Errorf("%q: the bytes are other ones", args[1:])
				}
			}
			glancectl(t, "", "disk", "info", tt.file, "--format", "vdi").fails(exitFailed, "add --container "+tt.container)
		})
	}
	glancectl(t, "", "disk", "info", disk, "--container", "ova").fails(exitFailed, "--container bare")
	glancectl(t, "", "disk", "info", disk, "--container", "docker").fails(exitUsage, `"docker" is not one of bare, ova, compressed`)
}

// severalExtents is an OVA with a disk in two files.
func severalExtents(t *testing.T, guest string) string {
	t.Helper()
	dir := t.TempDir()
	qemuImg(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", guest, filepath.Join(dir, "disk.vmdk"))
	return applianceOf(t, false, filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "disk-s001.vmdk"))
}

// esxAppliance is an OVA with ESX's flat disk.
func esxAppliance(t *testing.T, guest string) string {
	t.Helper()
	dir := esxDisk(t, guest)
	return applianceOf(t, true, filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "disk-flat.vmdk"))
}

func TestCheckComparesTheDigestsOfAnAppliance(t *testing.T) {
	file := applianceOf(t, true, streamOf(t, guestDisk(t)))
	spoil(t, file, func(b []byte) {
		i := bytes.Index(b, []byte("SHA256(disk1.vmdk)= ")) + len("SHA256(disk1.vmdk)= ")
		copy(b[i:], "0000")
	})
	r := glancectl(t, "", "disk", "check", file, "-f", "json")
	k := decode[map[string]any](t, r.out)
	if r.code != exitFailed || k["ok"] != false || k["corrupt_places"] != 0.0 || !strings.Contains(fmt.Sprint(k["digests"]), "disk1.vmdk") {
		t.Errorf("exit code %d: %v", r.code, k)
	}
	if !strings.Contains(r.err, "not what its manifest says") {
		t.Errorf("said %q", r.err)
	}
}

func TestAFileWithTwoMeaningsIsRefused(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "QFI\xfb", Mode: 0o644, Format: tar.FormatGNU}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	file := writeFile(t, "both", b.Bytes())
	glancectl(t, "", "disk", "info", file).fails(exitFailed, "ova and qcow2 at once", "--container")
	glancectl(t, "", "disk", "info", file, "--format", "raw").ok()
}

func TestConvertWritesEachFormatToAFileOrAPipe(t *testing.T) {
	guest := guestDisk(t)
	image := filepath.Join(t.TempDir(), "in.qcow2")
	qemuImg(t, "convert", "-c", "-f", "raw", "-O", "qcow2", guest, image)
	for _, to := range []string{"raw", "qcow2", "vmdk"} {
		t.Run(to, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "out")
			r := glancectl(t, "", "disk", "convert", image, out, "--to", to, "--progress")
			r.ok()
			if !strings.Contains(r.err, "convert") {
				t.Errorf("no progress is shown: %q", r.err)
			}
			onlyFile(t, out, true)
			piped := writeFile(t, "piped", []byte(glancectl(t, "", "disk", "convert", image, "-", "--to", to).ok()))
			for _, file := range []string{out, piped} {
				qemuImg(t, "compare", "-f", to, "-F", "raw", file, guest)
				if to != "raw" {
					qemuImg(t, "check", "-f", to, file)
				}
				checkDisk(t, exitDone, file)
			}
		})
	}
	glancectl(t, "", "disk", "convert", image, "-", "--to", "vdi").fails(exitUsage, `"vdi" is not one of raw, qcow2, vmdk`)
}

func TestConvertOfABadImageLeavesNothing(t *testing.T) {
	image := qcow2File(t, "-c")
	spoil(t, image, func(b []byte) {
		clear(b[len(b)-2000:])
	})
	for _, to := range []string{"raw", "qcow2", "vmdk"} {
		out := filepath.Join(t.TempDir(), "out")
		glancectl(t, "", "disk", "convert", image, out, "--to", to).fails(exitFailed, "convert", "corrupt")
		onlyFile(t, out, false)
		if r := glancectl(t, "", "disk", "convert", image, "-", "--to", to); r.code != exitFailed {
			t.Errorf("to a pipe as %s: exit code %d", to, r.code)
		}
	}
}
