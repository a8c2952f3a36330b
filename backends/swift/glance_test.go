package swift

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/contrib/testbed"
)

const imageID = "71c675ab-d94f-49cd-a114-e12490b328d9"

// wantRead reads an object at its location in ranges that begin and end anywhere.
func wantRead(t *testing.T, s backends.Store, url string, want []byte) backends.Location {
	t.Helper()
	loc, err := s.Stat(t.Context(), backends.Location{Store: "swift", URL: url, Size: -1})
	if err != nil {
		t.Fatalf("stat: %v", err)
	}
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	defer b.Close()
	if b.Size() != int64(len(want)) {
		t.Fatalf("%d bytes, want %d", b.Size(), len(want))
	}
	for _, r := range [][2]int{{0, len(want)}, {0, 1}, {len(want) - 1, len(want)}, {len(want) / 3, len(want)/3 + 150_000}, {99_999, 100_001}, {100_000, 200_000}} {
		p := make([]byte, r[1]-r[0])
		if err := b.ReadAt(t.Context(), p, int64(r[0])); err != nil || !bytes.Equal(p, want[r[0]:r[1]]) {
			t.Errorf("bytes %d to %d: %v, or other bytes", r[0], r[1], err)
		}
	}
	return loc
}

// putStatic puts a static large object, whose segments lie below <name>/.
func putStatic(t *testing.T, srv testbed.SwiftServer, name string, content []byte, segment int) {
	t.Helper()
	var entries []map[string]any
	for i := 0; len(content) > 0; i++ {
		n := min(segment, len(content))
		at := fmt.Sprintf("%s/slo/%08d", name, i)
		srv.Put(t, "", at, content[:n], nil)
		sum := md5.Sum(content[:n])
		entries = append(entries, map[string]any{"path": "/" + srv.Container + "/" + at, "etag": hex.EncodeToString(sum[:]), "size_bytes": n})
		content = content[n:]
	}
	text, err := json.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	srv.PutManifest(t, name, text)
}

// Each form of Glance's locations, over each layout that may lie there.
func TestWhatGlanceWroteIsReadAndDeleted(t *testing.T) {
	srv := testbed.Swift(t)
	content := backendtest.Noise(1, 1<<20+4711)
	ini := filepath.Join(t.TempDir(), "swift.conf")
	if err := os.WriteFile(ini, []byte("[theirs]\nuser = test:tester\nkey = testing\nauth_version = 1\nauth_address = "+srv.AuthURL+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	auth := strings.TrimPrefix(srv.AuthURL, "http://")
	host := strings.TrimPrefix(srv.StorageURL(t), "http://")
	tenant := srv.Container + "_" + imageID
	for _, form := range []struct{ name, url, container string }{
		{"the user of the store, with an old key", "swift+http://test%3Atester:old@" + auth + "/" + srv.Container + "/" + imageID, ""},
		{"another user, with what has to be escaped", "swift+http://test%3Aother:a/key%3Awith%40all@" + auth + "/" + srv.Container + "/" + imageID, ""},
		{"a reference", "swift+config://theirs/" + srv.Container + "/" + imageID, ""},
		{"multi-tenant", "swift+http://" + host + "/" + tenant + "/" + imageID, tenant},
	} {
		for layout, put := range map[string]func(){
			"plain":   func() { srv.Put(t, form.container, imageID, content, nil) },
			"dynamic": func() { srv.PutSegments(t, form.container, imageID, content, 100_000) },
			"static":  func() { putStatic(t, srv, imageID, content, 100_000) },
		} {
			if layout == "static" && form.container != "" {
				continue
			}
			t.Run(form.name+", "+layout, func(t *testing.T) {
				cfg := config(srv)
				cfg.ConfigFile = ini
				if form.container != "" { // whose token may read other accounts
					srv.MakeContainer(t, form.container)
					cfg.User, cfg.Key = testbed.SwiftAdmin, testbed.SwiftAdminKey
				}
				s := mustOpen(t, srv, cfg)
				defer s.Close()
				put()
				srv.Put(t, form.container, imageID+"0", []byte("another"), nil)
				loc := wantRead(t, s, form.url, content)
				if layout == "dynamic" {
					wantLostManifestDeleted(t, s, loc, func() { srv.RemoveFrom(t, form.container, imageID) }, put)
				}
				if err := s.Delete(t.Context(), loc); err != nil {
					t.Fatalf("delete: %v", err)
				}
				container := form.container
				if container == "" {
					container = srv.Container
				}
				if left := srv.ListIn(t, container); !slices.Equal(left, []string{imageID + "0"}) {
					t.Errorf("left: %v", left)
				}
				srv.RemoveFrom(t, form.container, imageID+"0")
			})
		}
	}
}

// wantLostManifestDeleted repeats a deletion that got no further than the manifest, and
// puts the object there again.
func wantLostManifestDeleted(t *testing.T, s backends.Store, loc backends.Location, lose, put func()) {
	t.Helper()
	lose()
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Errorf("delete what is left: %v", err)
	}
	if err := s.Delete(t.Context(), loc); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("delete it once more: %v", err)
	}
	put()
}

// A container of another image is not asked for with a token that may read it.
func TestAMultiTenantLocationSpeaksOfItsOwnContainer(t *testing.T) {
	srv := testbed.Swift(t)
	srv.Put(t, "", imageID, []byte("x"), nil)
	cfg := config(srv)
	cfg.User, cfg.Key = testbed.SwiftAdmin, testbed.SwiftAdminKey
	s := mustOpen(t, srv, cfg)
	defer s.Close()
	host := strings.TrimPrefix(srv.StorageURL(t), "http://")
	for _, url := range []string{"swift+http://" + host + "/" + srv.Container + "/" + imageID,
		"swift+http://evil.example/v1/AUTH_test/" + srv.Container + "_" + imageID + "/" + imageID} {
		if _, err := s.Open(t.Context(), backends.Location{Store: "swift", URL: url, Size: -1}); !errors.Is(err, backends.ErrBadLocation) {
			t.Errorf("%s: %v", url, err)
		}
	}
	srv.Remove(t, imageID)
}

// A segment of another object, which a manifest speaks of, outlives the object.
func TestSegmentsOfOthersAreNotDeleted(t *testing.T) {
	srv := testbed.Swift(t)
	srv.Put(t, "", "other-00001", []byte("abc"), nil)
	srv.Put(t, "", imageID, nil, map[string]string{"X-Object-Manifest": srv.Container + "/other-"})
	s := mustOpen(t, srv, config(srv))
	defer s.Close()
	loc, err := s.Stat(t.Context(), backends.Location{Store: "swift", URL: "swift+config://ref1/" + srv.Container + "/" + imageID, Size: -1})
	if err != nil || loc.Size != 3 {
		t.Fatalf("%+v, %v", loc, err)
	}
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Fatal(err)
	}
	if left := srv.List(t); !slices.Equal(left, []string{"other-00001"}) {
		t.Errorf("left: %v", left)
	}
	if err := s.Delete(t.Context(), loc); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("delete it again: %v", err)
	}
	srv.Remove(t, "other-00001")
}

func TestQuotasAreTheUsage(t *testing.T) {
	srv := testbed.Swift(t)
	s := mustOpen(t, srv, config(srv))
	defer s.Close()
	if u, err := s.Usage(t.Context()); err != nil || u.Total != -1 || u.Free != -1 {
		t.Errorf("without a quota: %+v, %v", u, err)
	}
	srv.SetQuota(t, 1000)
	srv.Put(t, "", "k", make([]byte, 300), nil)
	if u, err := s.Usage(t.Context()); err != nil || u.Total != 1000 || u.Free != 700 {
		t.Errorf("with a quota: %+v, %v", u, err)
	}
	srv.Remove(t, "k")
	_, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(make([]byte, 2000)), 2000)
	if !errors.Is(err, backends.ErrFull) {
		t.Errorf("more than the quota: %v", err)
	}
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
