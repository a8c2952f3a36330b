package ova_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/backends/localfile"
	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats/container"
	"glanced/formats/container/ova"
	"glanced/formats/formattest"
)

// fileIn is a member to be.
type fileIn struct {
	name, content string
}

// vmwareOVF is a descriptor in the manner of VMware's ovftool, of the files and
// disks given as XML attributes.
func vmwareOVF(files, disks []string) string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!-- an appliance -->
<Envelope vmw:buildId="build-1" xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:cim="http://schemas.dmtf.org/wbem/wscim/1/common" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:vmw="http://www.vmware.com/schema/ovf" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <References>
`)
	for _, f := range files {
		fmt.Fprintf(&b, "    <File %s/>\n", f)
	}
	b.WriteString("  </References>\n  <DiskSection>\n    <Info>Virtual disk information</Info>\n")
	for i, d := range disks {
		fmt.Fprintf(&b, "    <Disk ovf:capacity=\"1\" ovf:capacityAllocationUnits=\"byte * 2^30\" ovf:diskId=\"vmdisk%d\" %s ovf:format=\"http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\"/>\n", i+1, d)
	}
	b.WriteString("  </DiskSection>\n  <VirtualSystem ovf:id=\"vm\"><Info>A virtual machine</Info></VirtualSystem>\n</Envelope>\n")
	return b.String()
}

// virtualBoxOVF is a descriptor in the manner of VirtualBox, of one disk.
func virtualBoxOVF(href string) string {
	return `<?xml version="1.0"?>
<Envelope ovf:version="1.0" xml:lang="en-US" xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:vbox="http://www.virtualbox.org/ovf/machine">
  <References>
    <File ovf:id="file1" ovf:href="` + href + `"/>
  </References>
  <DiskSection>
    <Info>List of the virtual disks used in the package</Info>
    <Disk ovf:capacity="1048576" ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized" vbox:uuid="8e4e1d2c-0000-0000-0000-000000000000"/>
  </DiskSection>
  <VirtualSystem ovf:id="vm"><vbox:Machine><Hardware><Memory RAMSize="512"/></Hardware></vbox:Machine></VirtualSystem>
</Envelope>
`
}

// oneDisk is the descriptor of one disk, disk.img.
func oneDisk() fileIn {
	return fileIn{"vm.ovf", vmwareOVF([]string{`ovf:href="disk.img" ovf:id="file1"`}, []string{`ovf:fileRef="file1"`})}
}

// pack makes an archive of plain files.
func pack(t testing.TB, files ...fileIn) []byte {
	t.Helper()
	var headers []*tar.Header
	for _, f := range files {
		headers = append(headers, &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content))})
	}
	return packHeaders(t, headers, files)
}

// packHeaders makes an archive of headers, the i-th with the content of files[i].
func packHeaders(t testing.TB, headers []*tar.Header, files []fileIn) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(files[i].content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// manifest lists files in the manner of ovftool, by one algorithm.
func manifest(algorithm string, files ...fileIn) fileIn {
	var b strings.Builder
	for _, f := range files {
		fmt.Fprintf(&b, "%s(%s)= %s\n", algorithm, f.name, digest(algorithm, f.content))
	}
	return fileIn{"vm.mf", b.String()}
}

func digest(algorithm, content string) string {
	switch algorithm {
	case "SHA1":
		return fmt.Sprintf("%x", sha1.Sum([]byte(content)))
	case "SHA256":
		return fmt.Sprintf("%x", sha256.Sum256([]byte(content)))
	}
	return fmt.Sprintf("%x", sha512.Sum512([]byte(content)))
}

// packFiles packs what is in dir by the tar command, in the order given.
func packFiles(t testing.TB, dir string, args ...string) *localfile.File {
	t.Helper()
	testbed.Need(t, "tar", "tar")
	path := filepath.Join(t.TempDir(), "vm.ova")
	testbed.Run(t, "tar", append([]string{"-C", dir, "-cf", path}, args...)...)
	return formattest.OpenFile(t, path)
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, src stored.Bytes) (container.Opened, error) {
	t.Helper()
	return ova.Container().Open(t.Context(), src, container.Options{})
}

// verify streams b through a Verifier in pieces of n bytes; it is its first error.
func verify(b []byte, n int) error {
	v := ova.Container().Verify()
	for len(b) > 0 {
		k := min(n, len(b))
		if _, err := v.Write(b[:k]); err != nil {
			v.Close()
			return err
		}
		b = b[k:]
	}
	return v.Close()
}

func content(t testing.TB, src stored.Bytes) string {
	t.Helper()
	b := make([]byte, src.Size())
	if err := src.ReadAt(t.Context(), b, 0); err != nil {
		t.Fatal(err)
	}
	return string(b)
}
