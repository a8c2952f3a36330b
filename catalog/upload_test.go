package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"glanced/catalog"
)

func TestABodyThatIsNotWhatWasAnnouncedIsRefused(t *testing.T) {
	w := newWorld(t, func(cfg *catalog.Config) { cfg.SizeCap = 5 << 20 })
	gone := func(n int) io.Reader {
		return io.MultiReader(bytes.NewReader(noise(1, n)), iotest.ErrReader(io.ErrUnexpectedEOF))
	}
	for _, c := range []struct {
		name      string
		body      io.Reader
		announced int64
		want      error
	}{
		{"a byte short", bytes.NewReader(noise(1, 4095)), 4096, catalog.ErrBodySize},
		{"a byte long", bytes.NewReader(noise(1, 4097)), 4096, catalog.ErrBodySize},
		{"empty, but announced", strings.NewReader(""), 1, catalog.ErrBodySize},
		{"announced empty, but not", strings.NewReader("x"), 0, catalog.ErrBodySize},
		{"long by megabytes", bytes.NewReader(noise(1, 3<<20)), 1 << 20, catalog.ErrBodySize},
		{"short, the end told with the last byte", iotest.DataErrReader(bytes.NewReader(noise(1, 4095))), 4096, catalog.ErrBodySize},
		{"the client gone, size announced", gone(3 << 20), 4 << 20, catalog.ErrBody},
		{"the client gone, size unknown", gone(3 << 20), -1, catalog.ErrBody},
		{"the client gone before it began", gone(0), -1, catalog.ErrBody},
		{"the client gone at the last byte", gone(4096), 4096, catalog.ErrBody},
		{"too large, size announced", iotest.ErrReader(errors.New("the body was read")), 5<<20 + 1, catalog.ErrTooLarge},
		{"too large, size unknown", bytes.NewReader(noise(1, 5<<20+1)), -1, catalog.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := w.queued(t, "raw", "bare")
			err := w.Upload(t.Context(), img.ID, c.body, catalog.UploadOptions{Size: c.announced})
			wantErr(t, err, c.want)
			w.wantUntouched(t, img.ID)
		})
	}
}

func TestABodyIsTakenInWhateverPiecesItComes(t *testing.T) {
	w := newWorld(t, func(cfg *catalog.Config) { cfg.SizeCap = 5 << 20 })
	large, small := noise(1, 5<<20), noise(2, 70_001)
	for _, c := range []struct {
		name      string
		content   []byte
		body      func(io.Reader) io.Reader
		announced int64
	}{
		{"as large as allowed, announced", large, iotest.HalfReader, int64(len(large))},
		{"as large as allowed, unknown", large, iotest.HalfReader, -1},
		{"the end told with the last bytes", small, iotest.DataErrReader, -1},
		{"the end told with the last bytes, announced", small, iotest.DataErrReader, int64(len(small))},
		{"byte by byte", small, iotest.OneByteReader, int64(len(small))},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := w.queued(t, "raw", "bare")
			if err := w.Upload(t.Context(), img.ID, c.body(bytes.NewReader(c.content)), catalog.UploadOptions{Size: c.announced}); err != nil {
				t.Fatal(err)
			}
			w.wantGuest(t, img.ID, c.content)
			if got := w.get(t, img.ID); got.Node != "" || got.Reserved != 0 || got.Claims != nil {
				t.Errorf("an upload that has ended is still on record: %+v", got)
			}
		})
	}
}

// hooked calls at once, before the byte at off is read.
type hooked struct {
	r   io.Reader
	n   int64
	off int64
	at  func()
}

func (h *hooked) Read(p []byte) (int, error) {
	if h.n >= h.off && h.at != nil {
		h.at()
		h.at = nil
	}
	n, err := h.r.Read(p)
	h.n += int64(n)
	return n, err
}

func TestAHangUpEndsTheUpload(t *testing.T) {
	w := newWorld(t, nil)
	for _, off := range []int64{0, 1 << 20, 3 << 20} {
		for _, announced := range []int64{-1, 3 << 20} {
			img := w.queued(t, "raw", "bare")
			why := errors.New("the client hung up")
			ctx, hangUp := context.WithCancelCause(t.Context())
			body := &hooked{r: bytes.NewReader(noise(1, 3<<20)), off: off, at: func() { hangUp(why) }}
			err := w.Upload(ctx, img.ID, body, catalog.UploadOptions{Size: announced})
			if off == 3<<20 && err == nil {
				continue // all was there
			}
			wantErr(t, err, catalog.ErrBody)
			wantErr(t, err, why)
			w.wantUntouched(t, img.ID)
		}
	}
}

func TestAnUploadWhoseClientIsGoneAlreadyDoesNotBegin(t *testing.T) {
	w := newWorld(t, nil)
	img := w.queued(t, "raw", "bare")
	ctx, hangUp := context.WithCancelCause(t.Context())
	why := errors.New("the client hung up")
	hangUp(why)
	err := w.Upload(ctx, img.ID, strings.NewReader("x"), catalog.UploadOptions{Size: 1})
	wantErr(t, err, catalog.ErrBody)
	wantErr(t, err, why)
	w.wantUntouched(t, img.ID)
}

func TestAFailedUploadKillsTheImageWhereConfigured(t *testing.T) {
	w := newWorld(t, func(cfg *catalog.Config) { cfg.FailedUpload = catalog.Killed })
	img := w.queued(t, "raw", "bare")
	err := w.Upload(t.Context(), img.ID, strings.NewReader("short"), catalog.UploadOptions{Size: 6})
	wantErr(t, err, catalog.ErrBodySize)
	if got := w.get(t, img.ID); got.Status != catalog.Killed || got.Reserved != 0 || got.Node != "" {
		t.Errorf("after the failure: %+v", got)
	}
	w.wantNothingStored(t)
	err = w.Upload(t.Context(), img.ID, strings.NewReader("again"), catalog.UploadOptions{Size: 5})
	wantErr(t, err, catalog.ErrStatus)
	_, err = w.Open(t.Context(), img.ID, catalog.View{})
	wantErr(t, err, catalog.ErrNoData)
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Error(err)
	}
}

func TestOtherStatusesOfAFailedUploadAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	cfg := w.cfg
	cfg.FailedUpload = catalog.Active
	if c, err := catalog.New(t.Context(), cfg); err == nil {
		c.Close()
		t.Error("a failed upload may make an image active")
	}
}

func TestAnUploadNeedsAnImageThatIsReadyForIt(t *testing.T) {
	w := newWorld(t, nil)
	unread := func() io.Reader { return iotest.ErrReader(errors.New("the body was read")) }
	for field, img := range map[string]catalog.Image{
		"disk_format":      {ContainerFormat: ptr("bare")},
		"container_format": {DiskFormat: ptr("raw")},
	} {
		img, err := w.Create(t.Context(), img)
		if err != nil {
			t.Fatal(err)
		}
		err = w.Upload(t.Context(), img.ID, unread(), catalog.UploadOptions{Size: -1})
		wantErr(t, err, catalog.ErrInvalid)
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("error %v does not name %s", err, field)
		}
		wantErr(t, w.Activate(t.Context(), img.ID), catalog.ErrInvalid)
		w.wantUntouched(t, img.ID)
	}
	err := w.Upload(t.Context(), "nobody", unread(), catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrNotFound)
	img := w.queued(t, "raw", "bare")
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	err = w.Upload(t.Context(), img.ID, unread(), catalog.UploadOptions{Size: -1})
	wantErr(t, err, catalog.ErrNotFound)
}

func TestActivateMakesAnImageOfNoBytes(t *testing.T) {
	w := newWorld(t, nil)
	img := w.queued(t, "raw", "bare")
	if err := w.Activate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	got := w.get(t, img.ID)
	const md5OfNothing = "d41d8cd98f00b204e9800998ecf8427e"
	if got.Status != catalog.Active || *got.Size != 0 || *got.VirtualSize != 0 || *got.Checksum != md5OfNothing {
		t.Errorf("activated: %+v", got)
	}
	w.wantGuest(t, img.ID, []byte{})
}

func TestOfUploadsOfOneImageOneWins(t *testing.T) {
	w := newWorld(t, nil)
	for range 3 {
		img := w.queued(t, "raw", "bare")
		const rivals = 4
		errs := make([]error, rivals)
		var all sync.WaitGroup
		for i := range rivals {
			all.Go(func() {
				errs[i] = w.Upload(t.Context(), img.ID, bytes.NewReader(noise(uint64(i), 1<<20)), catalog.UploadOptions{Size: -1})
			})
		}
		all.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Errorf("uploads %d and %d both won", winner, i)
			default:
				wantErr(t, err, catalog.ErrStatus)
			}
		}
		if winner < 0 {
			t.Fatalf("nobody won: %v", errs)
		}
		w.wantGuest(t, img.ID, noise(uint64(winner), 1<<20))
	}
	if u, err := w.records.Usage(t.Context(), "p"); err != nil || u.ImageBytes != 3<<20 {
		t.Errorf("usage %+v, %v; want 3 MiB", u, err)
	}
}

// The losers of a deletion: the body goes on until the store asks for more.
func TestDeletedWhileUploadingIsGone(t *testing.T) {
	w := newWorld(t, nil)
	for _, off := range []int64{0, 2 << 20} {
		for _, announced := range []int64{-1, 3 << 20} {
			img := w.queued(t, "raw", "bare")
			body := &hooked{r: bytes.NewReader(noise(1, 3<<20)), off: off, at: func() {
				if err := w.Delete(t.Context(), img.ID); err != nil {
					t.Error(err)
				}
			}}
			err := w.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: announced})
			wantErr(t, err, catalog.ErrGone)
			w.wantNothingStored(t)
		}
	}
	if u, err := w.records.Usage(t.Context(), "p"); err != nil || u != (catalog.Usage{}) {
		t.Errorf("usage %+v, %v; want none", u, err)
	}
}
