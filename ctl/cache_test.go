package ctl_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"glanced/catalog"
	"glanced/ctl"
)

// cacheNotes is a ctl.CacheAdmin that notes what it is asked for.
type cacheNotes struct {
	asked []string
	err   error
}

func (c *cacheNotes) note(what ...any) error {
	c.asked = append(c.asked, strings.TrimSpace(fmt.Sprintln(what...)))
	return c.err
}

func (c *cacheNotes) Status(context.Context) (ctl.CacheStatus, error) {
	return ctl.CacheStatus{Dir: "/cache", UsedBytes: 7, Images: []ctl.CachedImage{}}, c.note("status")
}
func (c *cacheNotes) Image(_ context.Context, id string) (ctl.CachedImage, error) {
	return ctl.CachedImage{Image: id, CacheCounts: ctl.CacheCounts{HitChunks: 3}}, nil
}
func (c *cacheNotes) Prefetch(_ context.Context, id string) error { return c.note("prefetch", id) }
func (c *cacheNotes) Pin(_ context.Context, id string, on bool) error {
	return c.note("pin", id, on)
}
func (c *cacheNotes) Evict(_ context.Context, id string) error { return c.note("evict", id) }

func TestTheCacheIsSteeredByAdministrators(t *testing.T) {
	notes := &cacheNotes{}
	w := newWorld(t, options{admin: ctl.Admin{Cache: notes}})
	c := w.control()
	if a := c.do("GET", "/admin/cache", nil); a.StatusCode != 200 || !strings.Contains(string(a.body), `"used_bytes":7`) || !strings.Contains(string(a.body), `"images":[]`) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	for _, r := range [][2]string{{"GET", ""}, {"POST", "/prefetch"}, {"PUT", "/pin"}, {"DELETE", "/pin"}, {"DELETE", ""}} {
		if a := c.do(r[0], "/admin/cache/x"+r[1], nil); a.StatusCode != 200 || !strings.Contains(string(a.body), `"image":"x"`) || !strings.Contains(string(a.body), `"hit_chunks":3`) {
			t.Errorf("%v: %d %s", r, a.StatusCode, a.body)
		}
	}
	if got := strings.Join(notes.asked, ", "); got != "status, prefetch x, pin x true, pin x false, evict x" {
		t.Errorf("asked for %s", got)
	}
	for err, status := range map[error]int{ctl.ErrNotCached: 404, ctl.ErrCacheFull: 507, ctl.ErrCacheBusy: 503, catalog.ErrNotFound: 404} {
		notes.err = err
		c.refused(c.do("POST", "/admin/cache/x/prefetch", nil), status)
	}
	asked := len(notes.asked)
	if a := w.do("GET", "/admin/cache", nil, "X-Auth-Token", "admin-token"); a.StatusCode != 300 || len(notes.asked) != asked {
		t.Errorf("over HTTP: %d", a.StatusCode)
	}
	c.refused(newWorld(t, options{}).control().do("GET", "/admin/cache", nil), 404, "no cache")
}
