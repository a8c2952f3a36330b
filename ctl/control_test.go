package ctl_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"glanced/catalog"
	"glanced/catalog/access/hostuser"
	"glanced/ctl"
)

// control serves the control door on a unix socket and returns a world that asks there.
func (w *world) control() *world {
	w.t.Helper()
	l, err := net.Listen("unix", filepath.Join(w.t.TempDir(), "control.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	srv := &http.Server{Handler: w.ctl.Control(), ConnContext: w.ctl.ControlConnContext}
	go srv.Serve(l)
	w.t.Cleanup(func() { srv.Close() })
	c := *w
	c.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.Addr().String())
	}}}
	return &c
}

func TestTheControlSocketKnowsItsCaller(t *testing.T) {
	w := newWorld(t, options{}).control()
	// The test runs as the daemon's own user: an admin, without any token.
	id := w.create(map[string]any{"visibility": "public"}, "X-Auth-Token", "")
	if img := w.show(id); img["owner"] != hostuser.AdminProject || img["visibility"] != "public" {
		t.Errorf("%v", img)
	}
	w.upload(id, []byte("data"), "X-Auth-Token", "")
	if a := w.do("GET", "/v2/images/"+id+"/file", nil); string(a.body) != "data" {
		t.Errorf("%d %q", a.StatusCode, a.body)
	}
}

func TestAdminRoutesAnswerWhatTheDaemonTells(t *testing.T) {
	started := time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC)
	w := newWorld(t, options{admin: ctl.Admin{
		Status: func(context.Context) (ctl.Status, error) {
			return ctl.Status{Version: "1", Node: "n", StartedAt: started, Listeners: []ctl.ListenerStatus{{Kind: "nbd", Address: "unix:/x"}},
				Images: map[string]int64{"active": 3}, Stores: []ctl.StoreStatus{{ID: "local", FreeBytes: 7}}}, nil
		},
		Exports: func(context.Context) (ctl.ExportStatus, error) {
			return ctl.ExportStatus{Sessions: []ctl.ExportSession{{Export: "e", BytesRead: 5}}}, nil
		},
		Mounts: func(context.Context) (ctl.MountStatus, error) { return ctl.MountStatus{}, errors.New("no /secret") },
	}})
	c := w.control()
	if a := c.do("GET", "/admin/status", nil); a.StatusCode != 200 || !strings.Contains(string(a.body), `"started_at":"2026-11-21T02:00:00Z"`) || !strings.Contains(string(a.body), `"free_bytes":7`) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := c.do("GET", "/admin/exports", nil); a.StatusCode != 200 || !strings.Contains(string(a.body), `{"export":"e"`) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := c.do("GET", "/admin/mounts", nil); a.StatusCode != 500 || strings.Contains(string(a.body), "secret") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	c.refused(c.do("GET", "/admin/else", nil), 404)
	// Not over HTTP, whoever asks.
	if a := w.do("GET", "/admin/status", nil, "X-Auth-Token", "admin-token"); a.StatusCode != 300 {
		t.Errorf("over HTTP: %d %s", a.StatusCode, a.body)
	}
}

func TestQuotasAreSetShownAndKept(t *testing.T) {
	w := newWorld(t, options{})
	c := w.control()
	if a := c.do("GET", "/admin/quotas/"+demoProject, nil); a.StatusCode != 200 || string(a.body) != `{"project":"`+demoProject+`","own":false,"image_count_total":{"limit":0,"usage":0},"image_size_total":{"limit":0,"usage":0}}` {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	set := func(body string) answer {
		return c.do("PUT", "/admin/quotas/"+demoProject, strings.NewReader(body))
	}
	if a := set(`{"image_count_total": 2, "image_size_total": 1}`); a.StatusCode != 200 || a.json(t)["own"] != true {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	for _, bad := range []string{`{"image_count_total": -1}`, `{"image_count_total": "2"}`, `{"images": 2}`, `[]`, `{"image_size_total": 1.5}`} {
		c.refused(set(bad), 400)
	}
	first, second := w.create(nil), w.create(nil)
	w.refused(w.do("POST", "/v2/images", strings.NewReader("{}")), 413, demoProject, "image_count_total", "limit of 2", "usage 2", "delta 1")
	w.upload(first, make([]byte, 1<<19))
	w.refused(w.put(second, strings.NewReader(strings.Repeat("x", 1<<20))), 413, "image_size_total", "limit of 1")
	if img := w.show(second); img["status"] != "queued" {
		t.Errorf("%v", img)
	}
	if a := w.do("GET", "/v2/info/usage", nil); string(a.body) != `{"usage":{"image_count_total":{"limit":2,"usage":2},"image_size_total":{"limit":1,"usage":1}}}` {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := set(`{"image_count_total": 3}`); a.StatusCode != 200 || !strings.Contains(string(a.body), `"image_size_total":{"limit":1,`) {
		t.Errorf("what is left out stays: %d %s", a.StatusCode, a.body)
	}
	if a := c.do("DELETE", "/admin/quotas/"+demoProject, nil); a.StatusCode != 200 || a.json(t)["own"] != false {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	w.create(nil)
}

func TestTheControlHandlerRefusesOtherListeners(t *testing.T) {
	w := newWorld(t, options{})
	srv := &http.Server{Handler: w.ctl.Control(), ConnContext: w.ctl.ControlConnContext}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go srv.Serve(l)
	defer srv.Close()
	res, err := http.Get("http://" + l.Addr().String() + "/v2/images")
	if err != nil || res.StatusCode != 500 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
}

func TestAPanicEndsOneRequestOnly(t *testing.T) {
	w := newWorld(t, options{admin: ctl.Admin{Mounts: func(context.Context) (ctl.MountStatus, error) { panic("a bug at /secret") }}}).control()
	a := w.do("GET", "/admin/mounts", nil)
	if a.StatusCode != 500 || strings.Contains(a.message(t), "secret") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := w.do("GET", "/v2/images", nil); a.StatusCode != 200 {
		t.Errorf("afterwards: %d", a.StatusCode)
	}
}

func TestAStoreIsTriedForAnAdmin(t *testing.T) {
	w := newWorld(t, options{})
	c := w.control()
	if a := c.do("POST", "/admin/stores/slow/check", nil); a.StatusCode != 200 ||
		string(a.body) != `{"id":"slow","ok":true,"steps":[{"name":"write","error":""},{"name":"read","error":""},{"name":"delete","error":""}]}` {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := c.do("POST", "/admin/stores/tape/check", nil); a.StatusCode != 400 || !strings.Contains(string(a.body), "No store has this id") {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if a := w.do("POST", "/admin/stores/slow/check", nil); a.StatusCode == 200 {
		t.Errorf("over HTTP: %d %s", a.StatusCode, a.body)
	}
}

// What a project has standing on another's image does not keep that from being deleted;
// administrators see what is held by whom.
func TestHeldImagesAreShownToAdministrators(t *testing.T) {
	w := newWorld(t, options{})
	c := w.control()
	if a := c.do("GET", "/admin/held", nil); a.StatusCode != 200 || string(a.body) != `{"images":[]}` {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	parent := w.create(map[string]any{"visibility": "public", "name": "base"}, "X-Auth-Token", "admin-token")
	w.upload(parent, make([]byte, 1<<20), "X-Auth-Token", "admin-token")
	img, err := w.catalog.Get(t.Context(), parent)
	if err != nil {
		t.Fatal(err)
	}
	child := w.create(nil)
	w.upload(child, []byte("child"))
	if _, err := w.records.Update(t.Context(), child, func(i *catalog.Image) error {
		i.Parent = &catalog.Parent{ID: parent, HashValue: *img.HashValue}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if a := w.do("DELETE", "/v2/images/"+parent, nil, "X-Auth-Token", "admin-token"); a.StatusCode != 204 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	for _, path := range []string{"/v2/images/" + parent, "/v2/images/" + parent + "/file"} {
		w.refused(w.do("GET", path, nil, "X-Auth-Token", "admin-token"), 404)
	}
	if a := w.do("GET", "/v2/images?status=pending_delete", nil, "X-Auth-Token", "admin-token"); strings.Contains(string(a.body), parent) {
		t.Errorf("it is listed: %s", a.body)
	}
	a := c.do("GET", "/admin/held", nil)
	for _, want := range []string{`"id":"` + parent + `"`, `"owner":"` + adminProject + `"`, `"size":1048576`,
		`"children":[{"id":"` + child + `","name":null,"owner":"` + demoProject + `","status":"active"}]`} {
		if !strings.Contains(string(a.body), want) {
			t.Errorf("%d %s has no %s", a.StatusCode, a.body, want)
		}
	}
	if a := w.do("DELETE", "/v2/images/"+child, nil); a.StatusCode != 204 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	if a := c.do("GET", "/admin/held", nil); string(a.body) != `{"images":[]}` {
		t.Errorf("after the last child: %s", a.body)
	}
	w.nothingLeft("")
}
