package catalog_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"

	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/contrib/testbed"
	"glanced/formats/all"
	"glanced/formats/container"
	"glanced/formats/container/spool"
)

// withContainers is a world that opens containers, spooling below its folder.
func withContainers(t *testing.T, cfg *catalog.Config, dir string) {
	t.Helper()
	s, err := spool.New(filepath.Join(dir, "spool"), 1<<30, 2)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Containers, cfg.Spool = all.Containers(), s
}

func containerWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	return openWorld(t, dir, func(cfg *catalog.Config) { withContainers(t, cfg, dir) })
}

// member is one file of an archive.
type member struct {
	name    string
	content []byte
}

const descriptor = `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="f1" ovf:href="%s"/></References>
<DiskSection><Info/><Disk ovf:diskId="d1" ovf:fileRef="f1" ovf:capacity="1"/></DiskSection></Envelope>`

// archive is an OVA whose descriptor names the first of files; its manifest has
// every file, the digest of wrong being that of something else.
func archive(t *testing.T, wrong string, files ...member) []byte {
	t.Helper()
	files = append([]member{{"vm.ovf", fmt.Appendf(nil, descriptor, files[0].name)}}, files...)
	var manifest bytes.Buffer
	for _, f := range files {
		content := f.content
		if f.name == wrong {
			content = []byte("something else")
		}
		fmt.Fprintf(&manifest, "SHA256(%s)= %x\n", f.name, sha256.Sum256(content))
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range append(files[:1:1], append([]member{{"vm.mf", manifest.Bytes()}}, files[1:]...)...) {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), Format: tar.FormatUSTAR}); err != nil {
			t.Fatal(err)
		}
		w.Write(f.content)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// vmdk converts the raw disk at path, and is the files that came of it.
func vmdk(t *testing.T, path, subformat string) []member {
	t.Helper()
	dir := t.TempDir()
	testbed.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat="+subformat, path, filepath.Join(dir, "disk.vmdk"))
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var files []member
	for _, e := range entries {
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		f := member{e.Name(), content}
		if f.name == "disk.vmdk" {
			files = append([]member{f}, files...)
		} else {
			files = append(files, f)
		}
	}
	return files
}

func TestTheDiskInAnOVAIsServed(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	w := containerWorld(t)
	rawDisk, content := guestDisk(t.TempDir(), t)
	for _, subformat := range []string{"streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse"} {
		t.Run(subformat, func(t *testing.T) {
			ova := archive(t, "", vmdk(t, rawDisk, subformat)...)
			img := w.active(t, "vmdk", "ova", ova)
			if img.DiskError != "" || img.VirtualSize == nil || *img.VirtualSize != int64(len(content)) {
				t.Fatalf("disk error %q, virtual size %v", img.DiskError, show(img.VirtualSize))
			}
			w.wantGuest(t, img.ID, content)
			w.wantStored(t, img.ID, ova)
		})
	}
	t.Run("in a folder", func(t *testing.T) {
		files := vmdk(t, rawDisk, "monolithicFlat")
		for i := range files {
			files[i].name = "disks/" + files[i].name
		}
		img := w.active(t, "vmdk", "ova", archive(t, "", files...))
		if img.DiskError != "" {
			t.Fatalf("disk error %q", img.DiskError)
		}
		w.wantGuest(t, img.ID, content)
		upload := w.queued(t, "vmdk", "ova")
		err := w.Upload(t.Context(), upload.ID, bytes.NewReader(archive(t, files[1].name, files...)), catalog.UploadOptions{Size: -1})
		wantErr(t, err, catalog.ErrFormat) // its manifest is of other bytes
	})
	t.Run("in bare its extents are nothing", func(t *testing.T) {
		img := w.queued(t, "vmdk", "bare")
		err := w.Upload(t.Context(), img.ID, bytes.NewReader(vmdk(t, rawDisk, "monolithicFlat")[0].content), catalog.UploadOptions{Size: -1})
		wantErr(t, err, catalog.ErrUnsafe)
	})
}

func TestAnOVAThatIsNotWhatItsManifestSaysIsRefused(t *testing.T) {
	w := containerWorld(t)
	img := w.queued(t, "raw", "ova")
	err := w.Upload(t.Context(), img.ID, bytes.NewReader(archive(t, "disk.raw", member{"disk.raw", noise(1, 3<<20)})), catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrFormat)
	if err == nil || !strings.Contains(err.Error(), "disk.raw") {
		t.Errorf("error %v does not name the file", err)
	}
	w.wantUntouched(t, img.ID)
}

func TestAContainerThatIsNoneIsStoredOnly(t *testing.T) {
	w := containerWorld(t)
	for _, c := range []struct{ disk, container, says string }{
		{"vmdk", "ova", "container ova"},
		{"raw", "compressed", "container compressed"},
		{"raw", "docker", "is not opened"},
	} {
		img := w.active(t, c.disk, c.container, noise(1, 100_000))
		if !strings.Contains(img.DiskError, c.says) {
			t.Errorf("%s: disk error %q does not say %q", c.container, img.DiskError, c.says)
		}
		w.wantStored(t, img.ID, noise(1, 100_000))
	}
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(content)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// spooled counts the files in the spool.
func spooled(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "spool"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestACompressedDiskIsServedDecompressed(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	dir := t.TempDir()
	var id string
	rawDisk, content := guestDisk(t.TempDir(), t)
	image := filepath.Join(t.TempDir(), "qcow2")
	testbed.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", rawDisk, image)
	qcow2, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("as it was uploaded", func(t *testing.T) {
		w := openWorld(t, dir, func(cfg *catalog.Config) { withContainers(t, cfg, dir) })
		img := w.active(t, "raw", "compressed", zipped(t, content))
		if img.DiskError != "" || *img.VirtualSize != int64(len(content)) {
			t.Fatalf("disk error %q, virtual size %v", img.DiskError, show(img.VirtualSize))
		}
		w.wantGuest(t, img.ID, content)
		w.wantStored(t, img.ID, zipped(t, content))
		inside := w.active(t, "qcow2", "compressed", zipped(t, qcow2))
		w.wantGuest(t, inside.ID, content)
		if err := w.Delete(t.Context(), inside.ID); err != nil {
			t.Fatal(err)
		}
		if n := spooled(t, dir); n != 1 {
			t.Errorf("%d files are in the spool, of 1 image", n)
		}
		id = img.ID
	})
	t.Run("after the spool was lost", func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(dir, "spool")); err != nil {
			t.Fatal(err)
		}
		w := openWorld(t, dir, func(cfg *catalog.Config) { withContainers(t, cfg, dir) })
		w.wantGuest(t, id, content)
	})
	t.Run("in a spool without room", func(t *testing.T) {
		w := openWorld(t, dir, func(cfg *catalog.Config) { cfg.Containers, cfg.Spool = all.Containers(), fullSpool{} })
		_, err := w.Open(t.Context(), id, catalog.View{})
		wantErr(t, err, catalog.ErrSpoolFull)
	})
	t.Run("without a spool", func(t *testing.T) {
		w := openWorld(t, dir, func(cfg *catalog.Config) { cfg.Containers = all.Containers() })
		if _, err := w.Open(t.Context(), id, catalog.View{}); err == nil {
			t.Error("it opens")
		}
		img := w.active(t, "raw", "compressed", zipped(t, content))
		if img.DiskError == "" {
			t.Error("it is not stored only")
		}
	})
}

// A crash may leave in the spool what an upload that did not become active
// decompressed to; the next upload of that image has other content.
func TestWhatAnotherUploadDecompressedToIsNotServed(t *testing.T) {
	w := containerWorld(t)
	upload := func(content []byte) {
		t.Helper()
		img, err := w.Create(t.Context(), catalog.Image{ID: "0b5c2a4e-6f0d-4c57-9d6f-0d2f4d3f9c11", Owner: "p", DiskFormat: ptr("raw"), ContainerFormat: ptr("compressed")})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Upload(t.Context(), img.ID, bytes.NewReader(zipped(t, content)), catalog.UploadOptions{Size: -1}); err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, img.ID, content)
	}
	upload(noise(1, 5000))
	left, err := filepath.Glob(filepath.Join(w.dir, "spool", "*"))
	if err != nil || len(left) != 1 {
		t.Fatalf("in the spool: %v, %v", left, err)
	}
	// The same folder with a database that knows nothing of the first image.
	fresh := openWorld(t, t.TempDir(), func(cfg *catalog.Config) { cfg.Containers, cfg.Spool = w.cfg.Containers, w.cfg.Spool })
	w = fresh
	upload(noise(2, 7000))
}

// What is left of a killed run must not stay: it may be of a deleted image.
func TestTheSpoolIsSweptAtTheStart(t *testing.T) {
	dir := t.TempDir()
	change := func(cfg *catalog.Config) { withContainers(t, cfg, dir) }
	content := noise(3, 5000)
	w := openWorld(t, dir, change)
	img := w.active(t, "raw", "compressed", zipped(t, content))
	gone := w.active(t, "raw", "compressed", zipped(t, content))
	queued := w.queued(t, "raw", "compressed")
	if err := w.Delete(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	hash := "." + (*img.HashValue)[:32]
	for _, key := range []string{gone.ID + hash, queued.ID + hash, uuid.NewString() + hash, img.ID + ".0123"} {
		if err := os.WriteFile(filepath.Join(dir, "spool", key+".disk"), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w = openWorld(t, dir, change)
	if n := spooled(t, dir); n != 1 {
		t.Errorf("%d files are in the spool, of 1 image", n)
	}
	w.wantGuest(t, img.ID, content)
}

// That others fill the spool just now says nothing of the image.
func TestASpoolThatIsFullNowFailsTheUpload(t *testing.T) {
	dir := t.TempDir()
	w := openWorld(t, dir, func(cfg *catalog.Config) {
		s, err := spool.New(filepath.Join(dir, "spool"), 2<<20, 1)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Containers, cfg.Spool = all.Containers(), s
	})
	first := w.active(t, "raw", "compressed", zipped(t, noise(1, 3<<19)))
	h := w.open(t, first.ID, catalog.View{})
	img := w.queued(t, "raw", "compressed")
	second := zipped(t, noise(2, 3<<19))
	err := w.Upload(t.Context(), img.ID, bytes.NewReader(second), catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrStoreFull)
	if got := w.get(t, img.ID); got.Status != catalog.Queued {
		t.Errorf("it is %s", got.Status)
	}
	h.Close()
	if err := w.Upload(t.Context(), img.ID, bytes.NewReader(second), catalog.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	w.wantGuest(t, img.ID, noise(2, 3<<19))
}

func TestABombIsStoredOnly(t *testing.T) {
	dir := t.TempDir()
	w := openWorld(t, dir, func(cfg *catalog.Config) { withContainers(t, cfg, dir); cfg.SizeCap = 70 << 20 })
	img := w.active(t, "raw", "compressed", zipped(t, make([]byte, 80<<20)))
	if !strings.Contains(img.DiskError, "limits") {
		t.Errorf("disk error %q", img.DiskError)
	}
	if n := spooled(t, dir); n != 0 {
		t.Errorf("%d files are left in the spool", n)
	}
	if _, err := w.Open(t.Context(), img.ID, catalog.View{}); !errors.Is(err, catalog.ErrStoredOnly) {
		t.Errorf("error %v", err)
	}
}

// fullSpool has no room.
type fullSpool struct{}

func (fullSpool) For(string, string) container.Spool {
	return func(context.Context, func(context.Context, io.Writer) error) (stored.Bytes, error) {
		return nil, container.ErrFull
	}
}
func (fullSpool) Remove(string) error { return nil }
func (fullSpool) Keys() []string      { return nil }
