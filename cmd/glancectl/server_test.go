package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"glanced/backends/file"
	"glanced/catalog"
	"glanced/catalog/access/hostuser"
	"glanced/catalog/records/sqlite"
	"glanced/ctl"
	"glanced/formats/all"
	"glanced/formats/engine"
)

// server is the real API over a real catalog, behind a door that notes what is
// asked and can answer in its stead.
type server struct {
	t      *testing.T
	socket string // path of its control socket
	url    string // of its TCP listener, which asks for testToken
	client *http.Client

	mu       sync.Mutex
	requests []string                                          // "METHOD path?query" of all that glancectl asked
	answer   func(w http.ResponseWriter, r *http.Request) bool // answers a request where it returns true
}

const testToken = "sesame"

func newServer(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	g := &server{t: t, socket: filepath.Join(dir, "control.sock")}
	records, err := sqlite.Open(t.Context(), filepath.Join(dir, "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { records.Close() })
	store, err := file.Open(file.Config{ID: "local", Path: filepath.Join(dir, "images")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	e := engine.New(engine.Options{CacheBytes: 16 << 20, TableBytes: 4 << 20})
	t.Cleanup(func() { e.Close() })
	quiet := slog.New(slog.DiscardHandler)
	// The context of the test ends before its clean-ups run.
	cat, err := catalog.New(context.Background(), catalog.Config{
		Records: records, Drivers: all.Drivers(), Engine: e, Node: "test", Log: quiet,
		Stores: []catalog.StoreEntry{{ID: "local", Type: "file", Store: store, Default: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cat.Close() })
	tokens, err := ctl.NewStaticTokens([]ctl.StaticToken{{Token: testToken, User: "admin", Project: "admin", Roles: []string{"admin"}}})
	if err != nil {
		t.Fatal(err)
	}
	hosts, err := hostuser.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	api := ctl.New(ctl.Config{Catalog: cat, Auth: tokens, Peer: hosts.Of, Admin: reports(), Log: quiet})

	tcp := httptest.NewServer(g.door(api.HTTP()))
	t.Cleanup(tcp.Close)
	g.url = tcp.URL
	l, err := net.Listen("unix", g.socket)
	if err != nil {
		t.Fatal(err)
	}
	control := &http.Server{Handler: g.door(api.Control()), ConnContext: api.ControlConnContext, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go control.Serve(l)
	t.Cleanup(func() { control.Close() })
	g.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", g.socket)
	}}}
	t.Cleanup(g.client.CloseIdleConnections)
	return g
}

// reports is what the daemon around the API would tell.
func reports() ctl.Admin {
	since := time.Date(2026, 11, 21, 2, 10, 37, 0, time.UTC)
	return ctl.Admin{
		Status: func(context.Context) (ctl.Status, error) {
			return ctl.Status{
				Version: "1.2", Node: "n1", StartedAt: since, UptimeSeconds: 61, DataDir: "/var/lib/glance", Mountpoint: "/mnt/glance",
				Listeners: []ctl.ListenerStatus{{Kind: "http", Address: "127.0.0.1:9292"}},
				Images:    map[string]int64{"active": 3, "queued": 1},
				Stores: []ctl.StoreStatus{
					{ID: "local", Type: "file", Default: true, TotalBytes: 2 << 30, FreeBytes: 1 << 30},
					{ID: "far", Type: "s3", TotalBytes: -1, FreeBytes: -1},
				},
				Memory: ctl.MemoryStatus{BudgetBytes: 512 << 20, HeapBytes: 1 << 20},
			}, nil
		},
		Exports: func(context.Context) (ctl.ExportStatus, error) {
			return ctl.ExportStatus{Sessions: []ctl.ExportSession{{Export: "e1", Peer: "127.0.0.1:5", Since: since, BytesRead: 3 << 20}}}, nil
		},
		Mounts: func(context.Context) (ctl.MountStatus, error) {
			return ctl.MountStatus{Mounts: []ctl.Mount{{Mountpoint: "/mnt/glance"}}}, nil
		},
		Cache: &cacheReports{},
	}
}

// door notes glancectl's requests, lets answer step in, and cuts lists into pages
// of at most 2, so that a few images have several.
func (g *server) door(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Test") == "" {
			g.mu.Lock()
			g.requests = append(g.requests, r.Method+" "+r.URL.RequestURI())
			answer := g.answer
			g.mu.Unlock()
			if answer != nil && answer(w, r) {
				return
			}
			if q := r.URL.Query(); r.Method == http.MethodGet && r.URL.Path == "/v2/images" && q.Get("limit") == "500" {
				q.Set("limit", "2")
				r.URL.RawQuery = q.Encode()
			}
		}
		next.ServeHTTP(w, r)
	})
}

// glanceError answers with a page like Glance's.
func glanceError(w http.ResponseWriter, status int, text string) {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html>\n <head>\n  <title>%s</title>\n </head>\n <body>\n  <h1>%s</h1>\n  %s<br /><br />\n\n\n\n </body>\n</html>", title, title, text)
}

// refuseWith makes g answer requests of method and path suffix as Glance would with status.
func (g *server) refuseWith(method, suffix string, status int, text string) {
	g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		glanceError(w, status, text)
		return true
	})
}

// ask makes one request of the test's own, past what the door does.
func (g *server) ask(method, path, contentType string, body []byte) []byte {
	g.t.Helper()
	req, err := http.NewRequest(method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	if body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	}
	req.Header.Set("X-Test", "1")
	req.Header.Set("Content-Type", contentType)
	resp, err := g.client.Do(req)
	if err != nil {
		g.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		g.t.Fatalf("%s %s: %s %v\n%s", method, path, resp.Status, err, b)
	}
	return b
}

// add puts a raw image there, with data unless that is nil, and returns its id.
func (g *server) add(name string, data []byte, fields map[string]any) string {
	g.t.Helper()
	record := map[string]any{"name": name, "disk_format": "raw", "container_format": "bare"}
	for k, v := range fields {
		record[k] = v
	}
	body, err := json.Marshal(record)
	if err != nil {
		g.t.Fatal(err)
	}
	id := decode[map[string]any](g.t, string(g.ask("POST", "/v2/images", "application/json", body)))["id"].(string)
	if data != nil {
		g.ask("PUT", "/v2/images/"+id+"/file", "application/octet-stream", data)
	}
	return id
}

// find is the record of the image with id.
func (g *server) find(id string) map[string]any {
	g.t.Helper()
	return decode[map[string]any](g.t, string(g.ask("GET", "/v2/images/"+id, "", nil)))
}

// stored is the data of the image with id.
func (g *server) stored(id string) []byte {
	g.t.Helper()
	return g.ask("GET", "/v2/images/"+id+"/file", "", nil)
}

// instead makes g answer GET requests of path suffix with body, whatever is stored.
func (g *server) instead(suffix string, body []byte) {
	g.refuse(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		w.Write(body)
		return true
	})
}

// names are the names of all images there are.
func (g *server) names() []string {
	g.t.Helper()
	q := url.Values{"limit": {"1000"}, "visibility": {"all"}, "sort": {"name:asc"}}
	answer := decode[struct{ Images []struct{ Name string } }](g.t, string(g.ask("GET", "/v2/images?"+q.Encode(), "", nil)))
	names := []string{}
	for _, img := range answer.Images {
		names = append(names, img.Name)
	}
	return names
}

// asked are the requests so far that begin with prefix.
func (g *server) asked(prefix string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var found []string
	for _, r := range g.requests {
		if strings.HasPrefix(r, prefix) {
			found = append(found, r)
		}
	}
	return found
}

// forget drops the requests so far.
func (g *server) forget() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = nil
}

// refuse lets answer step in before the API; it answers where it returns true.
func (g *server) refuse(answer func(w http.ResponseWriter, r *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.answer = answer
}
