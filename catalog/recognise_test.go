package catalog_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"glanced/catalog"
	"glanced/formats/formattest/hostile"
)

// pieces yields n bytes at a time; io.EOF comes with the last of them, or after it.
type pieces struct {
	r     *bytes.Reader
	n     int
	early bool
}

func (p pieces) Read(b []byte) (int, error) {
	n, err := p.r.Read(b[:min(p.n, len(b))])
	if err == nil && p.early && p.r.Len() == 0 {
		err = io.EOF
	}
	return n, err
}

// What an image ends in counts too, in whatever pieces it comes, and nothing else
// of it: the same bytes a little further in front are its own.
func TestAFooterBehindAnImageIsSeenInAnyPieces(t *testing.T) {
	w := newWorld(t, nil)
	for _, p := range hostile.Pairs() {
		if p.Declared != "qcow2" || p.Also != "vhd" {
			continue
		}
		further := append(bytes.Clone(p.Bytes), make([]byte, 512)...)
		for _, n := range []int{1, 7, 511, 512, 513, 4096, 64<<10 - 1, 64 << 10, 64<<10 + 1, 1 << 20} {
			for _, early := range []bool{false, true} {
				img := w.queued(t, "qcow2", "bare")
				err := w.Upload(t.Context(), img.ID, pieces{bytes.NewReader(p.Bytes), n, early}, catalog.UploadOptions{Size: -1})
				wantErr(t, err, catalog.ErrFormat)
				if err == nil || !strings.Contains(err.Error(), "qcow2 and vhd at once") {
					t.Errorf("by %d: %v", n, err)
				}
				w.wantUntouched(t, img.ID)
				if err := w.Upload(t.Context(), img.ID, pieces{bytes.NewReader(further), n, early}, catalog.UploadOptions{Size: int64(len(further))}); err != nil {
					t.Errorf("by %d, further on: %v", n, err)
				}
				if err := w.Delete(t.Context(), img.ID); err != nil {
					t.Error(err)
				}
			}
		}
		w.wantNothingStored(t)
		return
	}
	t.Error("there is no such pair")
}

// The store knows the size, and may ask for no more than that.
func TestAFooterBehindAnImageOfAnnouncedSizeIsSeen(t *testing.T) {
	w := newWorld(t, nil)
	for _, p := range hostile.Pairs() {
		if p.Also == "vhd" && p.Declared != "qed" {
			img := w.queued(t, p.Declared, "bare")
			err := w.Upload(t.Context(), img.ID, bytes.NewReader(p.Bytes), catalog.UploadOptions{Size: int64(len(p.Bytes))})
			if wantErr(t, err, catalog.ErrFormat); errors.Is(err, catalog.ErrUnsafe) {
				t.Errorf("%s: %v", p.Name, err)
			}
			w.wantUntouched(t, img.ID)
		}
	}
}

func TestBootRecordsInFrontOfDisksAndDiscsAreNoSecondFormat(t *testing.T) {
	w := newWorld(t, nil)
	n := 0
	for _, p := range hostile.Pairs() {
		if p.Harmless {
			img := w.active(t, p.Declared, "bare", p.Bytes)
			if img.DiskError != "" {
				t.Errorf("%s: disk error %q", p.Name, img.DiskError)
			}
			n++
		}
	}
	if n != 3 { // a disc with an MBR; a fixed vhd with an MBR, and with LUKS
		t.Errorf("%d pairs are harmless", n)
	}
	// A fixed disk that lacks its footer is none, which shows at its end.
	img := w.queued(t, "vhd", "bare")
	err := w.Upload(t.Context(), img.ID, bytes.NewReader(make([]byte, 100_000)), catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrFormat)
	if err == nil || !strings.Contains(err.Error(), "declared vhd, which it is not") {
		t.Errorf("%v", err)
	}
}
