package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"glanced/catalog"
	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// project has a Vietnamese name, as a project's id may be any text.
const project = "dự án"

// audited is a records.DB that looks at the project's usage after every
// change: what goes over the quota is seen even if it goes back again.
type audited struct {
	records.DB
	t     *testing.T
	limit int64 // bytes
}

func (a audited) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	err := a.DB.Change(ctx, what, do)
	u, uerr := rules.New(a.DB, rules.Options{}).Usage(context.WithoutCancel(ctx), project)
	if uerr != nil || u.ImageBytes > a.limit {
		a.t.Errorf("%d bytes in use, %d are allowed, %v", u.ImageBytes, a.limit, uerr)
	}
	return err
}

// limited is a world in which project may have some MiB and no more.
func limited(t *testing.T, mib int64) *world {
	t.Helper()
	w := newWorld(t, func(cfg *catalog.Config) {
		cfg.Records = audited{cfg.Records, t, mib << 20}
	})
	if err := w.SetQuota(t.Context(), project, &catalog.Quota{ImageSizeTotal: mib}); err != nil {
		t.Fatal(err)
	}
	return w
}

// mine adds a queued image of project.
func (w *world) mine(t *testing.T) catalog.Image {
	t.Helper()
	img, err := w.Create(t.Context(), catalog.Image{Owner: project, DiskFormat: ptr("raw"), ContainerFormat: ptr("bare")})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// wantUsage fails unless project uses that many bytes.
func (w *world) wantUsage(t *testing.T, want int64) {
	t.Helper()
	if u, err := w.records.Usage(t.Context(), project); err != nil || u.ImageBytes != want {
		t.Errorf("%d bytes in use, want %d, %v", u.ImageBytes, want, err)
	}
}

// wantOver fails unless err is a quota error of these figures.
func wantOver(t *testing.T, err error, resource string, limit, usage, delta int64) {
	t.Helper()
	wantErr(t, err, catalog.ErrQuota)
	want := catalog.QuotaError{Project: project, Resource: resource, Limit: limit, Usage: usage, Delta: delta}
	var over *catalog.QuotaError
	if !errors.As(err, &over) || *over != want {
		t.Errorf("error %v, want %v", err, &want)
	}
}

func TestParallelUploadsCannotPassTheSizeQuota(t *testing.T) {
	const uploads, each, fit = 8, 3 << 20, 3 // 3 of 3 MiB fit into 11
	for _, known := range []bool{true, false} {
		t.Run(fmt.Sprintf("size known: %v", known), func(t *testing.T) {
			w := limited(t, 11)
			announced := int64(-1)
			if known {
				announced = each
			}
			images := make([]catalog.Image, uploads)
			errs := make([]error, uploads)
			var all sync.WaitGroup
			for i := range uploads {
				images[i] = w.mine(t)
				all.Go(func() {
					errs[i] = w.Upload(t.Context(), images[i].ID, bytes.NewReader(noise(uint64(i), each)), catalog.UploadOptions{Size: announced})
				})
			}
			all.Wait()
			in := 0
			for i, err := range errs {
				if err == nil {
					in++
					continue
				}
				wantErr(t, err, catalog.ErrQuota)
				if got := w.get(t, images[i].ID); got.Status != catalog.Queued {
					t.Errorf("a refused image is %s", got.Status)
				}
			}
			// Where sizes are unknown, uploads can take the last room from each other.
			if in > fit || known && in < fit {
				t.Errorf("%d uploads went in, %d fit", in, fit)
			}
			w.wantUsage(t, int64(in)*each)
			for i, err := range errs {
				if err != nil && in < fit {
					if err := w.Upload(t.Context(), images[i].ID, bytes.NewReader(noise(uint64(i), each)), catalog.UploadOptions{Size: announced}); err != nil {
						t.Errorf("alone, what fits: %v", err)
					}
					in++
				}
			}
			w.wantUsage(t, fit*each)
		})
	}
}

func TestWhatFitsToTheLastByteIsLetIn(t *testing.T) {
	const quota = 11 // MiB: more than an upload of unknown size reserves at first
	for _, there := range []int{0, 1, 4<<20 + 1, 11<<20 - 1} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d bytes are there, size known: %v", there, known), func(t *testing.T) {
				w := limited(t, quota)
				upload := func(content []byte, known bool) error {
					o := catalog.UploadOptions{Size: -1}
					if known {
						o.Size = int64(len(content))
					}
					return w.Upload(t.Context(), w.mine(t).ID, iotest.HalfReader(bytes.NewReader(content)), o)
				}
				if err := upload(noise(1, there), true); err != nil {
					t.Fatal(err)
				}
				room := quota<<20 - there
				wantErr(t, upload(noise(2, room+1), known), catalog.ErrQuota)
				w.wantUsage(t, int64(there))
				if err := upload(noise(2, room), known); err != nil {
					t.Error(err)
				}
				w.wantUsage(t, quota<<20)
				if err := upload(nil, known); err != nil {
					t.Errorf("an empty image: %v", err)
				}
			})
		}
	}
}

func TestRoomComesBack(t *testing.T) {
	w := limited(t, 2)
	for range 3 {
		img := w.mine(t)
		cut := io.MultiReader(bytes.NewReader(noise(1, 1<<20)), iotest.ErrReader(io.ErrUnexpectedEOF))
		wantErr(t, w.Upload(t.Context(), img.ID, cut, catalog.UploadOptions{Size: 2 << 20}), catalog.ErrBody)
		if err := w.Upload(t.Context(), img.ID, bytes.NewReader(noise(1, 2<<20)), catalog.UploadOptions{Size: -1}); err != nil {
			t.Fatal(err)
		}
		w.wantUsage(t, 2<<20)
		if err := w.Delete(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
		w.wantUsage(t, 0)
	}
}

func TestParallelCreatesCannotPassTheCountQuota(t *testing.T) {
	w := newWorld(t, nil)
	const limit = 3
	if err := w.SetQuota(t.Context(), project, &catalog.Quota{ImageCountTotal: limit}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var made []string
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			img, err := w.Create(t.Context(), catalog.Image{Owner: project})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				made = append(made, img.ID)
				return
			}
			wantOver(t, err, "image_count_total", limit, limit, 1)
		})
	}
	all.Wait()
	if len(made) != limit {
		t.Fatalf("%d images were made, %d are allowed", len(made), limit)
	}
	if _, err := w.Create(t.Context(), catalog.Image{Owner: "another"}); err != nil {
		t.Errorf("another project: %v", err)
	}
	if err := w.Delete(t.Context(), made[0]); err != nil {
		t.Fatal(err)
	}
	w.mine(t)
}

func TestAQuotaErrorGivesTheFigures(t *testing.T) {
	w := limited(t, 5)
	upload := func(n int, announced int64) error {
		return w.Upload(t.Context(), w.mine(t).ID, bytes.NewReader(noise(1, n)), catalog.UploadOptions{Size: announced})
	}
	if err := upload(2<<20, 2<<20); err != nil {
		t.Fatal(err)
	}
	// In MiB, as the quota is, rounded up.
	wantOver(t, upload(4<<20-5, 4<<20-5), "image_size_total", 5, 2, 4)
	if err := upload(1, 1); err != nil {
		t.Fatal(err)
	}
	wantOver(t, upload(3<<20, 3<<20), "image_size_total", 5, 3, 3)
	err := upload(3<<20, -1)
	var over *catalog.QuotaError
	if !errors.As(err, &over) || over.Limit != 5 || over.Resource != "image_size_total" || over.Usage+over.Delta <= over.Limit {
		t.Errorf("error %v does not show why", err)
	}
}

func TestALoweredQuotaTakesNothingAway(t *testing.T) {
	w := limited(t, 4)
	img := w.mine(t)
	if err := w.Upload(t.Context(), img.ID, bytes.NewReader(noise(1, 3<<20)), catalog.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	if err := w.SetQuota(t.Context(), project, &catalog.Quota{ImageSizeTotal: 1, ImageCountTotal: 1}); err != nil {
		t.Fatal(err)
	}
	if q, u, own, err := w.Quota(t.Context(), project); err != nil || !own || q.ImageSizeTotal != 1 || u.ImageBytes != 3<<20 || u.ImageCount != 1 {
		t.Errorf("quota %+v, own %v, usage %+v, %v", q, own, u, err)
	}
	_, err := w.Update(t.Context(), img.ID, func(i *catalog.Image) error { i.Name = ptr("镜像"); return nil })
	if err != nil {
		t.Error(err)
	}
	w.wantStored(t, img.ID, noise(1, 3<<20))
	_, err = w.Create(t.Context(), catalog.Image{Owner: project})
	wantOver(t, err, "image_count_total", 1, 1, 1)
	for _, q := range []catalog.Quota{{ImageSizeTotal: -1}, {ImageCountTotal: -1}} {
		wantErr(t, w.SetQuota(t.Context(), project, &q), catalog.ErrInvalid)
	}
	if err := w.SetQuota(t.Context(), project, nil); err != nil {
		t.Fatal(err)
	}
	w.mine(t)
}
