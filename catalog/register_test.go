package catalog_test

import (
	"bytes"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	nethttp "net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/http"
	"glanced/catalog"
)

// website is a server of objects that others keep, by path.
type website struct {
	*httptest.Server
	busy atomic.Bool // large reads, as hashing makes them, are answered 503

	mu      sync.Mutex
	content map[string][]byte
	asked   map[string]int // requests, by path
	hashed  map[string]int // large ones that were answered
}

func newWebsite(t *testing.T) *website {
	w := &website{content: map[string][]byte{}, asked: map[string]int{}, hashed: map[string]int{}}
	w.Server = httptest.NewServer(nethttp.HandlerFunc(func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		var first, last int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
		large := last-first > 128<<10
		w.mu.Lock()
		w.asked[r.URL.Path]++
		w.mu.Unlock()
		if large && w.busy.Load() {
			rw.WriteHeader(503)
			return
		}
		w.mu.Lock()
		content, ok := w.content[r.URL.Path]
		if large {
			w.hashed[r.URL.Path]++
		}
		w.mu.Unlock()
		if !ok {
			rw.WriteHeader(404)
			return
		}
		rw.Header().Set("Etag", fmt.Sprintf(`"%x"`, md5.Sum(content)))
		nethttp.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(w.Close)
	return w
}

func (w *website) put(path string, content []byte) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.content[path] = content
	return w.URL + path
}

func (w *website) requested(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[path]
}

func (w *website) hashReads(path string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hashed[path]
}

// withWeb adds a store of what others keep, as it is after a restart too.
func withWeb(t *testing.T, dir string) func(*catalog.Config) {
	return func(cfg *catalog.Config) {
		c := http.Defaults
		c.ID, c.Spool = "web", filepath.Join(dir, "web")
		s, err := http.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		cfg.Stores = append(cfg.Stores, catalog.StoreEntry{ID: "web", Type: "http", Store: s, Foreign: true})
		cfg.HashPause = 10 * time.Millisecond
	}
}

func webWorld(t *testing.T) *world {
	t.Helper()
	dir := t.TempDir()
	return openWorld(t, dir, withWeb(t, dir))
}

// registered adds an image whose data stays at url.
func (w *world) registered(t *testing.T, disk, container, url string) catalog.Image {
	t.Helper()
	img := w.queued(t, disk, container)
	if err := w.Register(t.Context(), img.ID, catalog.RegisterOptions{URL: url}); err != nil {
		t.Fatal(err)
	}
	return w.get(t, img.ID)
}

// awaitHash waits until an image has its hashes, and compares them.
func (w *world) awaitHash(t *testing.T, id string, content []byte) {
	t.Helper()
	img := w.get(t, id)
	for img.HashValue == nil {
		time.Sleep(5 * time.Millisecond)
		img = w.get(t, id)
	}
	m, s := md5.Sum(content), sha512.Sum512(content)
	if *img.Checksum != hex.EncodeToString(m[:]) || *img.HashAlgo != "sha512" || *img.HashValue != hex.EncodeToString(s[:]) {
		t.Errorf("hashed as %s, %s %s", *img.Checksum, *img.HashAlgo, *img.HashValue)
	}
}

func TestDataOfOthersIsReadWhereItLies(t *testing.T) {
	w, web := webWorld(t), newWebsite(t)
	web.busy.Store(true)
	content := noise(1, 3<<20+4711)
	url := web.put("/disk.raw", content)
	img := w.registered(t, "raw", "bare", url)
	if img.Status != catalog.Active || *img.Size != int64(len(content)) || *img.VirtualSize != *img.Size || img.Reserved != 0 || img.Node != "" {
		t.Errorf("%+v", img)
	}
	if img.Checksum != nil || img.HashAlgo != nil || img.HashValue != nil {
		t.Error("it has hashes that nobody can have made")
	}
	if len(img.Locations) != 1 || img.Locations[0].URL != url || img.Locations[0].Store != "web" || img.Locations[0].Size != *img.Size || img.Locations[0].Version == "" {
		t.Errorf("locations %+v", img.Locations)
	}
	if u, err := w.records.Usage(t.Context(), "p"); err != nil || u.ImageBytes != *img.Size {
		t.Errorf("usage %+v, %v", u, err)
	}
	w.wantNothingStored(t)
	web.busy.Store(false)
	w.awaitHash(t, img.ID, content)
	w.wantStored(t, img.ID, content)

	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if gone, err := w.records.Get(t.Context(), img.ID); err != nil || gone.Locations != nil {
		t.Errorf("after the deletion: %+v, %v", gone.Locations, err)
	}
	w.registered(t, "raw", "bare", url) // the bytes are still there
}

func TestWhatCannotBeRegisteredIsQueuedAgain(t *testing.T) {
	dir := t.TempDir()
	w, web := openWorld(t, dir, func(cfg *catalog.Config) {
		withTiny(cfg)
		withWeb(t, dir)(cfg)
	}), newWebsite(t)
	fine := tinyImage('g', 1<<20)
	good := web.put("/good", fine)
	for name, c := range map[string]struct {
		disk string
		o    catalog.RegisterOptions
		want error
	}{
		"not of its format":    {"vhd", catalog.RegisterOptions{URL: web.put("/noise", noise(1, 1<<20))}, catalog.ErrFormat},
		"too short for it":     {"vhd", catalog.RegisterOptions{URL: web.put("/short", noise(1, 10))}, catalog.ErrFormat},
		"of another format":    {"iso", catalog.RegisterOptions{URL: good}, catalog.ErrFormat},
		"not there":            {"raw", catalog.RegisterOptions{URL: web.URL + "/nothing"}, catalog.ErrLocation},
		"no URL":               {"raw", catalog.RegisterOptions{URL: "good"}, catalog.ErrLocation},
		"a file":               {"raw", catalog.RegisterOptions{URL: "file:///etc/passwd"}, catalog.ErrLocation},
		"a store of ours":      {"raw", catalog.RegisterOptions{URL: good, Store: "local"}, catalog.ErrLocation},
		"a store that is none": {"raw", catalog.RegisterOptions{URL: good, Store: "nowhere"}, catalog.ErrUnknownStore},
		"nobody answers":       {"raw", catalog.RegisterOptions{URL: "http://127.0.0.1:1/disk"}, backends.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			img := w.queued(t, c.disk, "bare")
			wantErr(t, w.Register(t.Context(), img.ID, c.o), c.want)
			w.wantUntouched(t, img.ID)
		})
	}
	img := w.registered(t, "vhd", "bare", good)
	wantErr(t, w.Register(t.Context(), img.ID, catalog.RegisterOptions{URL: good}), catalog.ErrStatus)
	wantErr(t, w.Upload(t.Context(), w.queued(t, "raw", "bare").ID, strings.NewReader("x"), catalog.UploadOptions{Size: 1, Store: "web"}), catalog.ErrStoreReadOnly)

	// An object of ours, under a second image, would be deleted with it.
	ours := w.active(t, "raw", "bare", []byte("ours"))
	wantErr(t, w.Register(t.Context(), w.queued(t, "raw", "bare").ID, catalog.RegisterOptions{URL: ours.Locations[0].URL, Store: "local"}), catalog.ErrLocation)
	wantErr(t, w.Register(t.Context(), w.queued(t, "raw", "bare").ID, catalog.RegisterOptions{URL: ours.Locations[0].URL}), catalog.ErrLocation)

	if err := w.SetQuota(t.Context(), "p", &catalog.Quota{ImageSizeTotal: 1}); err != nil {
		t.Fatal(err)
	}
	over := w.queued(t, "raw", "bare")
	wantErr(t, w.Register(t.Context(), over.ID, catalog.RegisterOptions{URL: good}), catalog.ErrQuota)

	// Without a store that reads what others keep.
	plain := newWorld(t, nil)
	wantErr(t, plain.Register(t.Context(), plain.queued(t, "raw", "bare").ID, catalog.RegisterOptions{URL: good}), catalog.ErrLocation)
}

func TestHashingGoesOnAfterARestartAndEndsWithItsImage(t *testing.T) {
	dir := t.TempDir()
	w, web := openWorld(t, dir, withWeb(t, dir)), newWebsite(t)
	web.busy.Store(true)
	content := noise(1, 3<<20)
	kept := w.registered(t, "raw", "bare", web.put("/kept", content))
	off := w.registered(t, "raw", "bare", web.put("/off", content))
	if err := w.Deactivate(t.Context(), off.ID); err != nil {
		t.Fatal(err)
	}
	gone := w.registered(t, "raw", "bare", web.put("/gone", content))
	if err := w.Delete(t.Context(), gone.ID); err != nil {
		t.Fatal(err)
	}
	w.restart(t, withWeb(t, dir))
	if img := w.get(t, kept.ID); img.HashValue != nil {
		t.Fatal("the test tests nothing")
	}
	web.busy.Store(false)
	w.awaitHash(t, kept.ID, content)
	w.awaitHash(t, off.ID, content)
	if n := web.hashReads("/gone"); n > 0 {
		t.Errorf("a deleted image was hashed, by %d reads", n)
	}
	if img, err := w.records.Get(t.Context(), gone.ID); err != nil || img.HashValue != nil {
		t.Errorf("a deleted image has a hash, or %v", err)
	}
}

// A close does not wait for a hash that takes its time.
func TestHashingEndsWithTheCatalog(t *testing.T) {
	reading := make(chan struct{}, 8)
	hang := nethttp.HandlerFunc(func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		rw.Header().Set("Etag", `"x"`)
		if r.Header.Get("Range") == "bytes=0-0" {
			nethttp.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(make([]byte, 1<<20)))
			return
		}
		reading <- struct{}{}
		<-r.Context().Done()
	})
	server := httptest.NewServer(hang)
	t.Cleanup(server.Close)
	w := webWorld(t)
	w.registered(t, "raw", "bare", server.URL+"/disk")
	<-reading
	if err := w.Close(); err != nil { // it would hang here
		t.Error(err)
	}
}

func TestOtherBytesAreNotHashed(t *testing.T) {
	w, web := webWorld(t), newWebsite(t)
	web.busy.Store(true)
	content := noise(1, 3<<20)
	img := w.registered(t, "raw", "bare", web.put("/disk", content))
	web.put("/disk", noise(2, 3<<20))
	web.busy.Store(false)
	for seen := web.requested("/disk"); web.requested("/disk") < seen+3; { // it tries on
		time.Sleep(time.Millisecond)
	}
	if w.get(t, img.ID).HashValue != nil {
		t.Error("the hash of other bytes is on record")
	}
	web.put("/disk", content)
	w.awaitHash(t, img.ID, content)
}

// What a container decompresses to is found again when the hash has come.
func TestADecompressedDiskOfOthersIsKept(t *testing.T) {
	dir := t.TempDir()
	web := newWebsite(t)
	w := openWorld(t, dir, func(cfg *catalog.Config) {
		withWeb(t, dir)(cfg)
		withContainers(t, cfg, dir)
	})
	disk := noise(3, 1<<20)
	packed := zipped(t, disk)
	img := w.registered(t, "raw", "compressed", web.put("/disk.gz", packed))
	before := w.cfg.Spool.Keys()
	w.awaitHash(t, img.ID, packed)
	w.wantGuest(t, img.ID, disk)
	if after := w.cfg.Spool.Keys(); len(before) != 1 || len(after) != 1 || before[0] != after[0] {
		t.Errorf("in the spool: %v, then %v", before, after)
	}
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if left := w.cfg.Spool.Keys(); len(left) > 0 {
		t.Errorf("left in the spool: %v", left)
	}
}

// A child's edge names its parent's bytes by their hash.
func TestAnImageWithoutAHashIsNoParentYet(t *testing.T) {
	o := newOverlays(t)
	w, web := webWorld(t), newWebsite(t)
	o.base("base", noise(4, 1<<20))
	o.over("child", "base", "qcow2", "base", 0, 'c')
	web.busy.Store(true)
	base := w.registered(t, "qcow2", "bare", web.put("/base", o.read("base")))
	_, err := w.child(t, o.read("child"), backedBy(base.ID))
	if err == nil || !strings.Contains(err.Error(), "no hash yet") {
		t.Errorf("error %v", err)
	}
	web.busy.Store(false)
	w.awaitHash(t, base.ID, o.read("base"))
	if _, err := w.child(t, o.read("child"), backedBy(base.ID)); err != nil {
		t.Error(err)
	}
}
