package ctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/budget"
	"glanced/backends/file"
	"glanced/catalog"
	"glanced/catalog/access/hostuser"
	"glanced/catalog/records"
	"glanced/catalog/records/sqlite"
	"glanced/catalog/rules"
	"glanced/ctl"
	"glanced/formats/all"
	"glanced/formats/engine"
)

// The projects of the captures, so that owners compare as they are.
const (
	demoProject  = "4f38d8d6566941a8a8b497876122c81d"
	altProject   = "5846632f85c647a5a5d57307a12b5786"
	adminProject = "030858e3bdeb4586acb9fa3ca45dcdab"
)

// world is the HTTP door over a real catalog: a database and stores in a folder.
type world struct {
	t        *testing.T
	dir      string
	catalog  *catalog.Catalog
	server   *httptest.Server
	records  *rules.Records
	database records.DB   // below records
	client   *http.Client // of server, or of its control socket
	ctl      *ctl.Server
}

type options struct {
	quota   records.Quota
	sizeCap int64
	admin   ctl.Admin
	stall   time.Duration
	hosts   []hostuser.Entry                    // [[control.users]]
	trust   bool                                // X-Forwarded-…
	store   func(backends.Store) backends.Store // wraps each store
	more    []catalog.StoreEntry                // beside those of every world
	memory  *budget.Budget                      // of the records that answers show
}

func newWorld(t *testing.T, o options) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	rec, err := sqlite.Open(t.Context(), filepath.Join(w.dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rec.Close() })
	w.database, w.records = rec, rules.New(rec, rules.Options{})
	e := engine.New(engine.Options{CacheBytes: 16 << 20, TableBytes: 4 << 20})
	t.Cleanup(func() { e.Close() })
	cfg := catalog.Config{Records: rec, DefaultQuota: o.quota, Drivers: all.Drivers(), Engine: e, Node: "test", SizeCap: o.sizeCap}
	for _, s := range []catalog.StoreEntry{
		{ID: "fast", Type: "file", Description: "fast file store", Default: true},
		{ID: "slow", Type: "file", Description: "slow file store"},
		{ID: "web", Type: "file", Description: "http (read only)", ReadOnly: true},
	} {
		store, err := file.Open(file.Config{ID: s.ID, Path: filepath.Join(w.dir, s.ID)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { store.Close() })
		s.Store = store
		if o.store != nil {
			s.Store = o.store(store)
		}
		cfg.Stores = append(cfg.Stores, s)
	}
	cfg.Stores = append(cfg.Stores, o.more...)
	// The context of the test ends before its clean-ups run.
	if w.catalog, err = catalog.New(context.Background(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.catalog.Close() })
	tokens, err := ctl.NewStaticTokens([]ctl.StaticToken{
		{Token: "demo-token", User: "demo", Project: demoProject, Roles: []string{"member"}},
		{Token: "reader-token", User: "auditor", Project: demoProject, Roles: []string{"reader"}},
		{Token: "alt-token", User: "alt", Project: altProject, Roles: []string{"member"}},
		{Token: "admin-token", User: "admin", Project: adminProject, Roles: []string{"Admin"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := hostuser.New(o.hosts)
	if err != nil {
		t.Fatal(err)
	}
	w.ctl = ctl.New(ctl.Config{Catalog: w.catalog, Auth: tokens, Peer: hosts.Of, Admin: o.admin, Stall: o.stall, TrustForwarded: o.trust, Records: o.memory, Log: slog.New(slog.NewTextHandler(testLog{t}, nil))})
	w.server = httptest.NewServer(w.ctl.HTTP())
	t.Cleanup(w.server.Close)
	w.client = w.server.Client()
	return w
}

// testLog shows what the server logs beside the test that failed.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// answer is one response, read.
type answer struct {
	*http.Response
	body []byte
}

// do sends one request as user demo; h is key, value, key, value …
func (w *world) do(method, path string, body io.Reader, h ...string) answer {
	w.t.Helper()
	req, err := http.NewRequest(method, w.server.URL+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", "demo-token")
	for i := 0; i < len(h); i += 2 {
		if req.Header.Set(h[i], h[i+1]); h[i+1] == "" {
			req.Header.Del(h[i])
		}
	}
	return w.send(req)
}

func (w *world) send(req *http.Request) answer {
	w.t.Helper()
	// A client that follows nothing: 300 and 301 are answers to look at.
	c := http.Client{Transport: w.client.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := c.Do(req)
	if err != nil {
		w.t.Fatalf("%s %s: %v", req.Method, req.URL.Path, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatalf("%s %s: read the answer: %v", req.Method, req.URL.Path, err)
	}
	return answer{res, b}
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(a.body, &v); err != nil {
		t.Fatalf("%d is not JSON: %v\n%s", a.StatusCode, err, a.body)
	}
	return v
}

// message is what an error answer tells the client.
func (a answer) message(t *testing.T) string {
	t.Helper()
	e, _ := a.json(t)["error"].(map[string]any)
	text, _ := e["message"].(string)
	if text == "" {
		t.Fatalf("the answer %d has no error message: %s", a.StatusCode, a.body)
	}
	return text
}

// refused wants a status, and words in the message.
func (w *world) refused(a answer, status int, words ...string) {
	w.t.Helper()
	if a.StatusCode != status {
		w.t.Fatalf("answer %d, want %d: %s", a.StatusCode, status, a.body)
	}
	text := a.message(w.t)
	for _, word := range words {
		if !strings.Contains(text, word) {
			w.t.Errorf("the message %q does not say %q", text, word)
		}
	}
	if strings.Contains(text, w.dir) {
		w.t.Errorf("the message %q names a path of the server", text)
	}
}

// create makes an image of raw and bare, changed by attributes, and returns its id.
func (w *world) create(attributes map[string]any, h ...string) string {
	w.t.Helper()
	all := map[string]any{"disk_format": "raw", "container_format": "bare"}
	for k, v := range attributes {
		all[k] = v
	}
	text, err := json.Marshal(all)
	if err != nil {
		w.t.Fatal(err)
	}
	a := w.do("POST", "/v2/images", bytes.NewReader(text), append([]string{"Content-Type", "application/json"}, h...)...)
	if a.StatusCode != http.StatusCreated {
		w.t.Fatalf("create: %d %s", a.StatusCode, a.body)
	}
	return a.json(w.t)["id"].(string)
}

// upload puts data and wants 204.
func (w *world) upload(id string, data []byte, h ...string) {
	w.t.Helper()
	if a := w.put(id, bytes.NewReader(data), h...); a.StatusCode != http.StatusNoContent {
		w.t.Fatalf("upload: %d %s", a.StatusCode, a.body)
	}
}

func (w *world) put(id string, body io.Reader, h ...string) answer {
	w.t.Helper()
	return w.do("PUT", "/v2/images/"+id+"/file", body, append([]string{"Content-Type", "application/octet-stream"}, h...)...)
}

func (w *world) show(id string) map[string]any {
	w.t.Helper()
	a := w.do("GET", "/v2/images/"+id, nil, "X-Auth-Token", "admin-token")
	if a.StatusCode != http.StatusOK {
		w.t.Fatalf("show: %d %s", a.StatusCode, a.body)
	}
	return a.json(w.t)
}

// nothingLeft wants image id queued without data, and no bytes in any store.
func (w *world) nothingLeft(id string) {
	w.t.Helper()
	if id != "" {
		if img := w.show(id); img["status"] != "queued" || img["size"] != nil || img["checksum"] != nil {
			w.t.Errorf("the image is %v, size %v, checksum %v; want queued without data", img["status"], img["size"], img["checksum"])
		}
	}
	for _, store := range []string{"fast", "slow", "web"} {
		filepath.WalkDir(filepath.Join(w.dir, store), func(path string, e os.DirEntry, err error) error {
			if err != nil {
				w.t.Error(err)
			} else if e.Type().IsRegular() {
				w.t.Errorf("%s was left behind", path)
			}
			return nil
		})
	}
}
