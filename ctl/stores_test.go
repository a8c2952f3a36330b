package ctl_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/catalog/records"
)

// downloads are the ways to an image's data.
var downloads = []string{"/file", "/file?disk_format=raw", "/file?disk_format=qcow2"}

// wantNoData fails unless every download is refused, with these words, and promises
// nothing of the bytes.
func (w *world) wantNoData(id, words string) {
	w.t.Helper()
	for _, path := range downloads {
		a := w.do("GET", "/v2/images/"+id+path, nil)
		w.refused(a, http.StatusServiceUnavailable, words)
		if sum := a.Header.Get("Content-MD5"); sum != "" {
			w.t.Errorf("%s: the answer has the checksum %s", path, sum)
		}
	}
}

func TestAnImageWhoseStoreFailsAnswers503(t *testing.T) {
	var op atomic.Pointer[backendtest.Op]
	var why error
	w := newWorld(t, options{store: func(s backends.Store) backends.Store {
		return backendtest.Faulty{Store: s, Fail: func(o backendtest.Op) error {
			if at := op.Load(); at != nil && *at == o {
				return why
			}
			return nil
		}}
	}})
	data := randomBytes(100_000)
	id := w.create(nil)
	w.upload(id, data)
	for _, at := range []backendtest.Op{backendtest.OpOpen, backendtest.OpRead} {
		for err, words := range map[error]string{
			backends.ErrUnavailable: "cannot be reached", backends.ErrChanged: "not what was uploaded", backends.ErrNotFound: "no longer in the image store", backends.ErrDenied: "refuses access",
		} {
			why = err
			op.Store(&at)
			w.wantNoData(id, words)
			op.Store(nil)
		}
	}
	if a := w.do("GET", "/v2/images/"+id+"/file", nil); a.StatusCode != 200 || len(a.body) != len(data) {
		t.Errorf("afterwards: %d, %d bytes", a.StatusCode, len(a.body))
	}
}

func TestAFileThatIsNotWhatWasUploadedIsNotSent(t *testing.T) {
	for name, tamper := range map[string]func(file string) error{
		"cut off": func(file string) error { return os.Truncate(file, 50_000) },
		"grown":   func(file string) error { return os.Truncate(file, 200_000) },
		"swapped": func(file string) error {
			return errors.Join(os.Remove(file), os.WriteFile(file, make([]byte, 100_000), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, options{})
			id := w.create(nil)
			w.upload(id, randomBytes(100_000))
			if err := tamper(filepath.Join(w.dir, "fast", id)); err != nil {
				t.Fatal(err)
			}
			w.wantNoData(id, "not what was uploaded")
		})
	}
}

func TestAnImageInAStoreThatIsNotConfiguredIsUnavailable(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	w.upload(id, randomBytes(1000))
	_, err := w.records.Update(t.Context(), id, func(img *records.Image) error {
		img.Locations[0].Store = "cellar"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.wantNoData(id, "cannot be reached")
}

func TestAnImageInAReadOnlyStoreIsNotDeleted(t *testing.T) {
	w := newWorld(t, options{})
	id := w.create(nil)
	w.upload(id, randomBytes(1000))
	if err := os.Rename(filepath.Join(w.dir, "fast", id), filepath.Join(w.dir, "web", id)); err != nil {
		t.Fatal(err)
	}
	_, err := w.records.Update(t.Context(), id, func(img *records.Image) error {
		img.Locations[0].Store, img.Locations[0].URL = "web", "file://"+filepath.Join(w.dir, "web", id)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	w.refused(w.do("DELETE", "/v2/images/"+id, nil), http.StatusForbidden, "read-only")
	if a := w.do("GET", "/v2/images/"+id+"/file", nil); a.StatusCode != 200 {
		t.Errorf("afterwards: %d %s", a.StatusCode, a.body)
	}
}
