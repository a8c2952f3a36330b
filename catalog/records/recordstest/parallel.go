package recordstest

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

const (
	workers = 8
	mib     = 1 << 20
)

// parallel runs do on several goroutines at once.
func parallel(do func(worker int)) {
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() { do(w) })
	}
	wg.Wait()
}

func testParallelUpdates(t *testing.T, s *rules.Records) {
	img := create(t, s, records.Image{})
	parallel(func(w int) {
		for i := range 10 {
			_, err := s.Update(t.Context(), img.ID, func(img *records.Image) error {
				img.MinRAM++
				img.Properties[fmt.Sprintf("%d-%d", w, i)] = "x"
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	got := get(t, s, img.ID)
	if got.MinRAM != workers*10 || len(got.Properties) != workers*10 {
		t.Errorf("%d increments and %d properties of %d", got.MinRAM, len(got.Properties), workers*10)
	}
}

func testParallelMoves(t *testing.T, s *rules.Records) {
	img := create(t, s, records.Image{Status: records.Queued})
	var won atomic.Int32
	parallel(func(int) {
		_, err := s.Update(t.Context(), img.ID, func(img *records.Image) error {
			if img.Status != records.Queued {
				return &records.StatusError{ID: img.ID, Have: img.Status, Want: records.Saving}
			}
			img.Status = records.Saving
			return nil
		})
		if err == nil {
			won.Add(1)
		} else {
			wantErr(t, err, records.ErrStatus)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d of %d won", won.Load(), workers)
	}
}

func testCountQuota(t *testing.T, s *rules.Records) {
	if err := s.SetQuota(t.Context(), "p", &records.Quota{ImageCountTotal: 10}); err != nil {
		t.Fatal(err)
	}
	var made atomic.Int64
	parallel(func(int) {
		for range 3 {
			_, err := s.Create(t.Context(), fill(records.Image{Owner: "p"}))
			var qe *records.QuotaError
			switch {
			case err == nil:
				made.Add(1)
			case !errors.As(err, &qe) || *qe != records.QuotaError{Project: "p", Resource: "image_count_total", Limit: 10, Usage: 10, Delta: 1}:
				t.Errorf("error %v", err)
			}
		}
	})
	u, err := s.Usage(t.Context(), "p")
	if made.Load() != 10 || err != nil || u.ImageCount != 10 {
		t.Errorf("%d were made, usage %+v, %v; the limit is 10", made.Load(), u, err)
	}
	// Another project's image cannot be moved in past the limit.
	other := create(t, s, records.Image{Owner: "q"})
	_, err = s.Update(t.Context(), other.ID, func(i *records.Image) error { i.Owner = "p"; return nil })
	wantErr(t, err, records.ErrQuota)
}

func testSizeQuota(t *testing.T, s *rules.Records) {
	if err := s.SetQuota(t.Context(), "p", &records.Quota{ImageSizeTotal: 100}); err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int32
	parallel(func(w int) {
		img := create(t, s, records.Image{Owner: "p", Status: records.Saving})
		for range 5 {
			_, err := s.Update(t.Context(), img.ID, func(i *records.Image) error { i.Reserved += 7 * mib; return nil })
			if err != nil {
				wantErr(t, err, records.ErrQuota)
				refused.Add(1)
			}
			if u, err := s.Usage(t.Context(), "p"); err != nil || u.ImageBytes > 100*mib {
				t.Errorf("usage %+v, %v; the limit is 100 MiB", u, err)
			}
		}
		// What was reserved becomes the size: that must always be possible.
		update(t, s, img.ID, func(i *records.Image) { i.Size, i.Reserved, i.Status = ptr(i.Reserved), 0, records.Active })
	})
	u, err := s.Usage(t.Context(), "p")
	if err != nil || u.ImageBytes != 98*mib || refused.Load() != workers*5-14 {
		t.Errorf("usage %+v, %v, %d refused", u, err, refused.Load())
	}
	img := create(t, s, records.Image{Owner: "p"})
	_, err = s.Update(t.Context(), img.ID, func(i *records.Image) error { i.Reserved = 2*mib + 1; return nil })
	var qe *records.QuotaError
	if !errors.As(err, &qe) || *qe != (records.QuotaError{Project: "p", Resource: "image_size_total", Limit: 100, Usage: 98, Delta: 3}) {
		t.Errorf("one byte over: %v", err)
	}
	update(t, s, img.ID, func(i *records.Image) { i.Reserved = 2 * mib })
	// What the image has itself is not what is in its way.
	_, err = s.Update(t.Context(), img.ID, func(i *records.Image) error { i.Reserved = 5 * mib; return nil })
	if !errors.As(err, &qe) || *qe != (records.QuotaError{Project: "p", Resource: "image_size_total", Limit: 100, Usage: 98, Delta: 5}) {
		t.Errorf("an image that grows: %v", err)
	}
}

func testLoweredQuota(t *testing.T, s *rules.Records) {
	img := create(t, s, records.Image{Owner: "p", Size: ptr(int64(10 * mib)), Status: records.Active})
	create(t, s, records.Image{Owner: "p"})
	if err := s.SetQuota(t.Context(), "p", &records.Quota{ImageCountTotal: 1, ImageSizeTotal: 1}); err != nil {
		t.Fatal(err)
	}
	update(t, s, img.ID, func(i *records.Image) { i.Name = ptr("still mine") })
	update(t, s, img.ID, func(i *records.Image) { i.Status = records.Deleted })
}

func testUsage(t *testing.T, s *rules.Records) {
	want := func(project string, count, bytes int64) {
		t.Helper()
		u, err := s.Usage(t.Context(), project)
		if err != nil || u != (records.Usage{ImageCount: count, ImageBytes: bytes}) {
			t.Errorf("usage of %s: %+v, %v; want %d images, %d bytes", project, u, err, count, bytes)
		}
	}
	want("p", 0, 0)
	a := create(t, s, records.Image{Owner: "p", Size: ptr(int64(10))})
	b := create(t, s, records.Image{Owner: "p", Reserved: 5})
	want("p", 2, 15)
	update(t, s, b.ID, func(i *records.Image) { i.Size, i.Reserved = ptr(int64(4)), 0 })
	want("p", 2, 14)
	update(t, s, a.ID, func(i *records.Image) { i.Owner = "q" })
	want("p", 1, 4)
	want("q", 1, 10)
	update(t, s, a.ID, func(i *records.Image) { i.Status = records.Deleted })
	want("q", 0, 0)
	update(t, s, a.ID, func(i *records.Image) { i.Claims, i.Reserved = nil, 0; i.Locations = nil; i.Size = nil })
	want("q", 0, 0)
	create(t, s, records.Image{Owner: "q", Status: records.Active})
	create(t, s, records.Image{Owner: "r", Status: records.Active})
	got, err := s.Counts(t.Context())
	if want := (map[records.Status]int64{b.Status: 1, records.Active: 2}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("counts %v, %v; want %v", got, err, want)
	}
}

func testDefaultQuota(t *testing.T, s *rules.Records) {
	create(t, s, records.Image{Owner: "a"})
	create(t, s, records.Image{Owner: "b"})
	_, err := s.Create(t.Context(), fill(records.Image{Owner: "a"}))
	wantErr(t, err, records.ErrQuota)
}

func testOwnQuota(t *testing.T, s *rules.Records) {
	want := func(q records.Quota, set bool) {
		t.Helper()
		got, own, err := s.Quota(t.Context(), "p")
		if err != nil || got != q || own != set {
			t.Errorf("quota %+v, own %v, %v; want %+v, %v", got, own, err, q, set)
		}
	}
	want(records.Quota{}, false)
	for _, q := range []records.Quota{{ImageCountTotal: 1, ImageSizeTotal: 1 << 62}, {ImageCountTotal: 5}} {
		if err := s.SetQuota(t.Context(), "p", &q); err != nil {
			t.Fatal(err)
		}
		want(q, true)
		create(t, s, records.Image{Owner: "p", Size: ptr(int64(1 << 50))})
	}
	if err := s.SetQuota(t.Context(), "p", nil); err != nil {
		t.Fatal(err)
	}
	want(records.Quota{}, false)
}
