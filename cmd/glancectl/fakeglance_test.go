package main

import (
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
)

// fakeGlance answers as Glance was seen to on the wire, as far as these tests
// need it, and fails where a test tells it to.
type fakeGlance struct {
	t      *testing.T
	socket string // path of its control socket
	url    string // of its TCP listener, which asks for token

	mu       sync.Mutex
	images   []map[string]any // oldest first
	data     map[string][]byte
	requests []string                                          // "METHOD path?query" of all that came
	refuse   func(w http.ResponseWriter, r *http.Request) bool // answers in its stead where it returns true
	quota    map[string]int64
}

const fakeToken = "sesame"

func newFakeGlance(t *testing.T) *fakeGlance {
	t.Helper()
	g := &fakeGlance{t: t, data: map[string][]byte{}, quota: map[string]int64{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v2/images", g.create)
	mux.HandleFunc("GET /v2/images", g.list)
	mux.HandleFunc("/v2/images/{id}", g.image)
	mux.HandleFunc("/v2/images/{id}/file", g.file)
	mux.HandleFunc("/v2/images/{id}/tags/{tag}", g.tag)
	mux.HandleFunc("POST /v2/images/{id}/actions/{action}", g.action)
	mux.HandleFunc("/admin/", g.admin)
	door := func(control bool) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			g.mu.Lock()
			g.requests = append(g.requests, r.Method+" "+r.URL.RequestURI())
			refuse := g.refuse
			g.mu.Unlock()
			switch {
			case refuse != nil && refuse(w, r):
			case !control && r.Header.Get("X-Auth-Token") != fakeToken:
				fail(w, 401, "This server could not verify that you are authorized to access the document you requested.")
			case !control && strings.HasPrefix(r.URL.Path, "/admin/"):
				fail(w, 404, "The resource could not be found.")
			default:
				mux.ServeHTTP(w, r)
			}
		})
	}
	tcp := httptest.NewServer(door(false))
	t.Cleanup(tcp.Close)
	g.url = tcp.URL
	g.socket = filepath.Join(t.TempDir(), "control.sock")
	l, err := net.Listen("unix", g.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: door(true)}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return g
}

// fail answers with a page like Glance's.
func fail(w http.ResponseWriter, status int, text string) {
	title := fmt.Sprintf("%d %s", status, http.StatusText(status))
	w.Header().Set("Content-Type", "text/html; charset=UTF-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html>\n <head>\n  <title>%s</title>\n </head>\n <body>\n  <h1>%s</h1>\n  %s<br /><br />\n\n\n\n </body>\n</html>", title, title, html.EscapeString(text))
}

// refuseWith makes g answer requests of method and path suffix with status.
func (g *fakeGlance) refuseWith(method, suffix string, status int, text string) {
	g.refuse = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != method || !strings.HasSuffix(r.URL.Path, suffix) {
			return false
		}
		fail(w, status, text)
		return true
	}
}

// add puts an image there, active with data unless that is nil.
func (g *fakeGlance) add(name string, data []byte, fields map[string]any) string {
	img := g.blank()
	img["name"] = name
	for k, v := range fields {
		img[k] = v
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.images = append(g.images, img)
	if data != nil {
		g.store(img, data)
	}
	return img["id"].(string)
}

func (g *fakeGlance) blank() map[string]any {
	id := uuid.NewString()
	return map[string]any{
		"id": id, "name": nil, "status": "queued", "visibility": "shared", "protected": false, "os_hidden": false,
		"disk_format": nil, "container_format": nil, "size": nil, "virtual_size": nil, "min_disk": 0, "min_ram": 0,
		"checksum": nil, "os_hash_algo": nil, "os_hash_value": nil, "owner": "demo", "tags": []any{},
		"created_at": "2026-11-21T02:10:37Z", "updated_at": "2026-11-21T02:10:37Z",
		"self": "/v2/images/" + id, "file": "/v2/images/" + id + "/file", "schema": "/v2/schemas/image",
	}
}

func (g *fakeGlance) store(img map[string]any, data []byte) {
	sum, long := md5.Sum(data), sha512.Sum512(data)
	img["status"], img["size"], img["checksum"] = "active", len(data), hex.EncodeToString(sum[:])
	img["os_hash_algo"], img["os_hash_value"] = "sha512", hex.EncodeToString(long[:])
	g.data[img["id"].(string)] = data
}

// find is the image with id; g.mu is held.
func (g *fakeGlance) find(id string) map[string]any {
	for _, img := range g.images {
		if img["id"] == id {
			return img
		}
	}
	return nil
}

// names are the names of the images that there are.
func (g *fakeGlance) names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := []string{}
	for _, img := range g.images {
		names = append(names, fmt.Sprint(img["name"]))
	}
	return names
}

// asked reports whether a request came that begins with prefix.
func (g *fakeGlance) asked(prefix string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, r := range g.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

func (g *fakeGlance) create(w http.ResponseWriter, r *http.Request) {
	var in map[string]any
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		fail(w, 400, "Malformed JSON in request body.")
		return
	}
	img := g.blank()
	for k, v := range in {
		img[k] = v
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if id := img["id"].(string); g.find(id) != nil {
		fail(w, 409, "Image ID "+id+" already exists!")
		return
	}
	g.images = append(g.images, img)
	reply(w, 201, img)
}

// list filters by exact match, newest first, in pages of at most 2.
func (g *fakeGlance) list(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := r.URL.Query()
	limit, _ := strconv.Atoi(q.Get("limit"))
	limit = min(limit, 2)
	page := []map[string]any{}
	skipping := q.Has("marker")
	more := false
	for _, img := range slices.Backward(g.images) {
		if skipping {
			skipping = img["id"] != q.Get("marker")
			continue
		}
		if !matches(img, q) {
			continue
		}
		if len(page) == limit {
			more = true
			break
		}
		page = append(page, img)
	}
	answer := map[string]any{"images": page, "first": "/v2/images", "schema": "/v2/schemas/images"}
	if more {
		q.Set("marker", page[len(page)-1]["id"].(string))
		answer["next"] = "/v2/images?" + q.Encode()
	}
	reply(w, 200, answer)
}

func matches(img map[string]any, q url.Values) bool {
	if fmt.Sprint(img["os_hidden"]) != fmt.Sprint(q.Get("os_hidden") == "true") {
		return false
	}
	if img["visibility"] == "community" && !slices.Contains([]string{"all", "community"}, q.Get("visibility")) {
		return false
	}
	for k, v := range q {
		switch k {
		case "limit", "marker", "sort", "os_hidden":
		case "tag":
			for _, tag := range v {
				if !slices.Contains(img["tags"].([]any), any(tag)) {
					return false
				}
			}
		case "visibility":
			if v[0] != "all" && v[0] != img["visibility"] {
				return false
			}
		default:
			want := v[0]
			if list, ok := strings.CutPrefix(want, "in:"); ok {
				want = strings.Trim(list, `"`)
			}
			if fmt.Sprint(img[k]) != want {
				return false
			}
		}
	}
	return true
}

func (g *fakeGlance) image(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := r.PathValue("id")
	img := g.find(id)
	switch {
	case img == nil:
		fail(w, 404, "No image found with ID "+id)
	case r.Method == "GET":
		reply(w, 200, img)
	case r.Method == "DELETE" && img["protected"] == true:
		fail(w, 403, "Image "+id+" is protected and cannot be deleted.")
	case r.Method == "DELETE":
		g.images = slices.DeleteFunc(g.images, func(x map[string]any) bool { return x["id"] == id })
		w.WriteHeader(204)
	case r.Header.Get("Content-Type") != "application/openstack-images-v2.1-json-patch":
		fail(w, 415, "The request media type is not supported by this server.")
	default:
		g.patch(w, r, img)
	}
}

func (g *fakeGlance) patch(w http.ResponseWriter, r *http.Request, img map[string]any) {
	var ops []struct {
		Op, Path string
		Value    any
	}
	if json.NewDecoder(r.Body).Decode(&ops) != nil {
		fail(w, 400, "Malformed JSON in request body.")
		return
	}
	for _, op := range ops {
		key := strings.NewReplacer("~1", "/", "~0", "~").Replace(op.Path[1:])
		if _, there := img[key]; !there && op.Op != "add" {
			fail(w, 409, "There was a conflict when trying to complete your request.<br /><br />Property "+key+" does not exist.")
			return
		}
		if op.Op == "remove" {
			delete(img, key)
		} else {
			img[key] = op.Value
		}
	}
	reply(w, 200, img)
}

func (g *fakeGlance) file(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	g.mu.Lock()
	img, data := g.find(id), g.data[id]
	g.mu.Unlock()
	switch {
	case img == nil:
		fail(w, 404, "No image found with ID "+id)
	case r.Method == "GET" && data == nil:
		w.WriteHeader(204)
	case r.Method == "GET":
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(data)
	case img["status"] != "queued":
		fail(w, 409, "Image status transition from active to saving is not allowed")
	default:
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.store(img, body)
		w.WriteHeader(204)
	}
}

func (g *fakeGlance) tag(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	img, tag := g.find(r.PathValue("id")), any(r.PathValue("tag"))
	tags := slices.DeleteFunc(slices.Clone(img["tags"].([]any)), func(x any) bool { return x == tag })
	if r.Method == "PUT" {
		tags = append(tags, tag)
	} else if len(tags) == len(img["tags"].([]any)) {
		fail(w, 404, "Could not find tag")
		return
	}
	img["tags"] = tags
	w.WriteHeader(204)
}

func (g *fakeGlance) action(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.find(r.PathValue("id"))["status"] = map[string]string{"deactivate": "deactivated", "reactivate": "active"}[r.PathValue("action")]
	w.WriteHeader(204)
}

func (g *fakeGlance) admin(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	project, isQuota := strings.CutPrefix(r.URL.Path, "/admin/quotas/")
	switch {
	case r.URL.Path == "/admin/status":
		io.WriteString(w, `{"version":"1.2","node":"n1","started_at":"2026-11-21T02:10:37Z","uptime_seconds":61,"data_dir":"/var/lib/glance","mountpoint":"/mnt/glance",
			"listeners":[{"kind":"http","address":"127.0.0.1:9292"}],"images":{"active":3,"queued":1},
			"stores":[{"id":"local","type":"file","default":true,"total_bytes":2147483648,"free_bytes":1073741824}],"memory":{"budget_bytes":536870912,"heap_bytes":1048576}}`)
	case r.URL.Path == "/admin/exports":
		io.WriteString(w, `{"sessions":[{"export":"e1","peer":"127.0.0.1:5","since":"2026-11-21T02:10:37Z","bytes_read":3145728}]}`)
	case r.URL.Path == "/admin/mounts":
		io.WriteString(w, `{"mounts":[{"mountpoint":"/mnt/glance"}]}`)
	case isQuota && r.Method == "PUT":
		if json.NewDecoder(r.Body).Decode(&g.quota) != nil {
			fail(w, 400, "bad JSON")
		}
	case isQuota && r.Method == "DELETE":
		clear(g.quota)
		w.WriteHeader(204)
	case isQuota:
		reply(w, 200, map[string]any{"project": project, "own": len(g.quota) > 0,
			"image_count_total": map[string]any{"limit": g.quota["image_count_total"], "usage": 3},
			"image_size_total":  map[string]any{"limit": g.quota["image_size_total"], "usage": 12}})
	default:
		fail(w, 404, "The resource could not be found.")
	}
}
