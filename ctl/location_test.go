package ctl_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"glanced/backends"
	web "glanced/backends/http"
	"glanced/catalog"
)

// others is a server of what others keep, and a store that reads it.
func others(t *testing.T, content string) (*httptest.Server, catalog.StoreEntry) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/disk" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Etag", `"1"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	}))
	t.Cleanup(server.Close)
	cfg := web.Defaults
	cfg.ID, cfg.Spool = "mirror", t.TempDir()
	s, err := web.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	var store backends.Store = s
	return server, catalog.StoreEntry{ID: "mirror", Type: "http", Store: store, Foreign: true}
}

func asJSON(t *testing.T, v any) io.Reader {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(text)
}

func TestALocationIsRegisteredByAdministratorsOnly(t *testing.T) {
	const content = "what others keep"
	server, entry := others(t, content)
	w := newWorld(t, options{more: []catalog.StoreEntry{entry}})
	c := w.control()
	id := c.create(nil, "X-Auth-Token", "")
	path := "/admin/images/" + id + "/location"
	at := func(url string) io.Reader { return asJSON(t, map[string]any{"url": url}) }

	// Not over HTTP, whoever asks.
	if a := w.do("PUT", path, at(server.URL+"/disk"), "X-Auth-Token", "admin-token"); a.StatusCode != 300 {
		t.Errorf("over HTTP: %d %s", a.StatusCode, a.body)
	}
	for _, bad := range []any{[]string{}, map[string]any{}, map[string]any{"url": ""}, map[string]any{"url": 5}, map[string]any{"url": server.URL + "/disk", "else": "x"}} {
		c.refused(c.do("PUT", path, asJSON(t, bad)), 400)
	}
	// What the URL hides is not told to who reads the answer over a shoulder.
	secret := strings.Replace(server.URL, "http://", "http://user:pa55@", 1)
	for url, words := range map[string]string{secret + "/nothing?sig=s3cret": "404", "file:///disk": "want http", "http://h/#x": "fragment"} {
		a := c.do("PUT", path, at(url))
		c.refused(a, 400, words)
		if strings.Contains(string(a.body), "pa55") || strings.Contains(string(a.body), "s3cret") {
			t.Errorf("the answer tells a secret: %s", a.body)
		}
	}
	c.refused(c.do("PUT", path, asJSON(t, map[string]any{"url": server.URL + "/disk", "store": "fast"})), 400, "keeps its objects itself")
	c.refused(c.do("PUT", path, asJSON(t, map[string]any{"url": server.URL + "/disk", "store": "nowhere"})), 400)
	c.refused(c.do("PUT", "/admin/images/nobody/location", at(server.URL+"/disk")), 404)

	if a := c.do("PUT", path, asJSON(t, map[string]any{"url": secret + "/disk", "store": "mirror"})); a.StatusCode != 204 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	img := c.show(id)
	if img["status"] != "active" || img["stores"] != "mirror" {
		t.Errorf("%v", img)
	}
	if a := c.do("GET", "/v2/images/"+id+"/file", nil); string(a.body) != content {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
	c.refused(c.do("PUT", path, at(server.URL+"/disk")), 409)
	c.refused(c.do("GET", path, nil), 405)
	if a := w.do("GET", "/v2/info/stores", nil); !strings.Contains(string(a.body), `{"id":"mirror","read-only":"true"}`) {
		t.Errorf("%s", a.body)
	}
}

// An image without a hash promises nothing of its bytes, and gets the promises with it.
func TestWhatIsNotHashedYetIsSentWithoutPromises(t *testing.T) {
	content := strings.Repeat("what others keep ", 1<<16)
	held := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "bytes=0-1048575" { // the hasher's first
			select {
			case <-held:
			case <-r.Context().Done():
			}
		}
		w.Header().Set("Etag", `"1"`)
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(content))
	}))
	t.Cleanup(server.Close)
	_, entry := others(t, "")
	w := newWorld(t, options{more: []catalog.StoreEntry{entry}})
	c := w.control()
	id := c.create(nil, "X-Auth-Token", "")
	if a := c.do("PUT", "/admin/images/"+id+"/location", asJSON(t, map[string]any{"url": server.URL + "/disk"})); a.StatusCode != 204 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	img := c.show(id)
	for _, field := range []string{"checksum", "os_hash_algo", "os_hash_value"} {
		if v, ok := img[field]; !ok || v != nil {
			t.Errorf("%s is %v", field, v)
		}
	}
	file := "/v2/images/" + id + "/file"
	a := c.do("GET", file, nil, "Range", "bytes=5-9")
	if a.StatusCode != 206 || string(a.body) != content[5:10] || a.Header.Get("Content-MD5") != "" || a.Header.Get("ETag") != "" {
		t.Errorf("%d %q %v", a.StatusCode, a.body, a.Header)
	}
	close(held)
	for c.show(id)["os_hash_value"] == nil {
		time.Sleep(5 * time.Millisecond)
	}
	a = c.do("GET", file, nil)
	if a.Header.Get("Content-MD5") != c.show(id)["checksum"] || a.Header.Get("ETag") == "" {
		t.Errorf("with a hash: %v", a.Header)
	}
}
