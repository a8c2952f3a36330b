package catalog_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"

	"glanced/catalog"
	"glanced/formats"
	"glanced/formats/formattest/hostile"
)

// hostileHeap is what taking an image in, or reading its disk, may allocate
// altogether, beside a few times the image's size; bytes. Most of it is zstd's window.
const hostileHeap = 256 << 20

// TestHostileImagesAreNotServed takes every hostile image in as what it is
// declared: bare ones are refused and leave nothing, those in containers are
// stored only; what is only seen when data is read fails then. The same bytes
// declared raw are a disk like any other, and nobody looks into it.
func TestHostileImagesAreNotServed(t *testing.T) {
	dir := t.TempDir()
	w := openWorld(t, dir, func(cfg *catalog.Config) { withContainers(t, cfg, dir) })
	for _, img := range hostile.Images() {
		t.Run(img.Name, func(t *testing.T) {
			content := img.Bytes()
			before := allocatedBytes()
			h := hostileUpload{t, w, img, content}
			switch {
			case img.Format == "qed":
				h.unknown()
			case img.Want == nil:
				h.accepted(nil)
			case img.Step == hostile.Read:
				h.accepted(img.Want)
			case img.Container == "bare":
				h.refused()
			default:
				h.storedOnly()
			}
			if img.Container == "bare" && img.Size <= 1<<20 {
				h.raw()
			}
			if spent, most := allocatedBytes()-before, hostileHeap+16*uint64(img.Size); spent > most {
				t.Errorf("%d MiB were allocated for %d bytes", spent>>20, img.Size)
			}
			w.wantNothingStored(t)
			if left, err := filepath.Glob(filepath.Join(dir, "spool", "*")); err != nil || len(left) > 0 {
				t.Errorf("left in the spool: %v, %v", left, err)
			}
		})
	}
}

// hostileUpload is one image on its way in.
type hostileUpload struct {
	t       *testing.T
	w       *world
	img     hostile.Image
	content []byte
}

// unknown: a format that Glance has no word for cannot be declared.
func (h hostileUpload) unknown() {
	h.t.Helper()
	bare := "bare"
	_, err := h.w.Create(h.t.Context(), catalog.Image{Owner: "p", DiskFormat: &h.img.Format, ContainerFormat: &bare})
	wantErr(h.t, err, catalog.ErrInvalid)
}

func (h hostileUpload) refused() {
	h.t.Helper()
	img := h.w.queued(h.t, h.img.Format, "bare")
	err := h.w.Upload(h.t.Context(), img.ID, bytes.NewReader(h.content), catalog.UploadOptions{Size: -1})
	if errors.Is(h.img.Want, formats.ErrFormat) {
		wantErr(h.t, err, catalog.ErrFormat)
	} else {
		wantErr(h.t, err, catalog.ErrUnsafe)
		wantErr(h.t, err, h.img.Want)
	}
	h.w.wantUntouched(h.t, img.ID)
	h.remove(img.ID)
}

func (h hostileUpload) storedOnly() {
	h.t.Helper()
	img := h.w.active(h.t, h.img.Format, h.img.Container, h.content)
	if !strings.Contains(img.DiskError, h.img.Want.Error()) {
		h.t.Errorf("disk error %q, want %q", img.DiskError, h.img.Want)
	}
	_, err := h.w.Open(h.t.Context(), img.ID, catalog.View{})
	wantErr(h.t, err, catalog.ErrStoredOnly)
	h.w.wantStored(h.t, img.ID, h.content)
	h.remove(img.ID)
}

// accepted reads the guest disk's data, some of which fails with want.
func (h hostileUpload) accepted(want error) {
	h.t.Helper()
	img := h.w.active(h.t, h.img.Format, h.img.Container, h.content)
	defer h.remove(img.ID)
	if img.DiskError != "" {
		h.t.Errorf("disk error %q", img.DiskError)
	}
	disk, err := h.w.Open(h.t.Context(), img.ID, catalog.View{})
	if err != nil {
		h.t.Error(err)
		return
	}
	defer disk.Close()
	var failed error
	p := make([]byte, min(disk.Size(), 1<<20))
	for off := int64(0); off < min(disk.Size(), 32<<20) && failed == nil; off += int64(len(p)) {
		failed = disk.ReadAt(h.t.Context(), p[:min(int64(len(p)), disk.Size()-off)], off)
	}
	if !errors.Is(failed, want) {
		h.t.Errorf("reading the disk: %v, want %v", failed, want)
	}
}

func (h hostileUpload) raw() {
	h.t.Helper()
	img := h.w.active(h.t, "raw", "bare", h.content)
	if img.DiskError != "" || *img.VirtualSize != h.img.Size {
		h.t.Errorf("declared raw: disk error %q, virtual size %d", img.DiskError, *img.VirtualSize)
	}
	h.w.wantGuest(h.t, img.ID, h.content)
	h.remove(img.ID)
}

func (h hostileUpload) remove(id string) {
	h.t.Helper()
	if err := h.w.Delete(h.t.Context(), id); err != nil {
		h.t.Error(err)
	}
}

// allocatedBytes is how many bytes the program has allocated so far.
func allocatedBytes() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// A manifest that the archive contradicts is refused, whatever else is wrong with it.
func TestAHostileArchiveIsRefusedByItsManifest(t *testing.T) {
	dir := t.TempDir()
	w := openWorld(t, dir, func(cfg *catalog.Config) { withContainers(t, cfg, dir) })
	for name, archive := range hostile.ArchivesWithWrongManifests() {
		t.Run(name, func(t *testing.T) {
			img := w.queued(t, "vmdk", "ova")
			err := w.Upload(t.Context(), img.ID, bytes.NewReader(archive), catalog.UploadOptions{Size: -1})
			wantErr(t, err, catalog.ErrFormat)
			w.wantUntouched(t, img.ID)
		})
	}
}
