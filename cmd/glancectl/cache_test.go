package main

import (
	"context"
	"strings"
	"testing"

	"glanced/ctl"
)

// cacheReports is a cache with one image, of which a prefetch gets one chunk further
// each time that somebody looks.
type cacheReports struct{ img ctl.CachedImage }

func (c *cacheReports) Status(context.Context) (ctl.CacheStatus, error) {
	return ctl.CacheStatus{Dir: "/var/cache", SizeBytes: 10 << 30, ChunkBytes: 256 << 10, UsedBytes: 3 << 20, Problem: "no space left",
		Images: []ctl.CachedImage{{Image: "i1", Store: "far", SizeBytes: 5 << 20, CachedBytes: 3 << 20, Pinned: true}}}, nil
}

func (c *cacheReports) Image(_ context.Context, id string) (ctl.CachedImage, error) {
	if c.img.Prefetching {
		c.img.Chunks++
		c.img.CachedBytes += 256 << 10
		c.img.Prefetching = c.img.Chunks < c.img.AllChunks
	}
	c.img.Image, c.img.Store = id, "far"
	return c.img, nil
}

func (c *cacheReports) Prefetch(context.Context, string) error {
	if c.img.Pinned {
		c.img.PrefetchError = "the store cannot be reached"
		return nil
	}
	c.img.AllChunks, c.img.SizeBytes, c.img.Prefetching = 3, 3<<18, true
	return nil
}

func (c *cacheReports) Pin(_ context.Context, _ string, on bool) error {
	c.img.Pinned = on
	return nil
}

func (c *cacheReports) Evict(context.Context, string) error {
	c.img = ctl.CachedImage{}
	return nil
}

func TestTheCacheIsLookedIntoAndSteered(t *testing.T) {
	g := newServer(t)
	g.do("image", "create", "--name", "debian").ok()
	if out := g.do("cache", "list").ok(); !strings.Contains(out, "i1") || !strings.Contains(out, "3.0 MiB") {
		t.Errorf("list:\n%s", out)
	}
	if out := g.do("cache", "stat", "-f", "value", "-c", "used_bytes", "-c", "problem").ok(); out != "3145728\nno space left\n" {
		t.Errorf("stat: %q", out)
	}
	if out := g.do("cache", "prefetch", "debian", "-f", "value", "-c", "chunks", "-c", "prefetching").ok(); out != "3\nfalse\n" {
		t.Errorf("prefetch: %q", out)
	}
	if out := g.do("cache", "prefetch", "--no-wait", "debian", "-f", "json").ok(); !strings.Contains(out, `"store": "far"`) {
		t.Errorf("prefetch: %s", out)
	}
	if out := g.do("cache", "pin", "debian").ok(); !strings.Contains(out, "true") {
		t.Errorf("pin:\n%s", out)
	}
	g.do("cache", "prefetch", "debian").fails(exitFailed, "not all of it", "cannot be reached")
	if out := g.do("cache", "pin", "--remove", "debian", "-f", "value", "-c", "pinned").ok(); out != "false\n" {
		t.Errorf("unpinned: %q", out)
	}
	if out := g.do("cache", "evict", "debian", "-f", "value", "-c", "chunks").ok(); out != "0\n" {
		t.Errorf("evicted: %q", out)
	}
	if out := g.do("cache", "stat", "debian").ok(); !strings.Contains(out, "0 of 0") {
		t.Errorf("stat of an image:\n%s", out)
	}
	g.do("cache", "evict", "nothing").fails(exitFailed, "no image with the id or name")
	g.do("cache", "pin").fails(exitUsage, "ID|NAME is missing")
	glancectl(t, "", "--url", g.url, "--token", testToken, "cache", "stat").fails(exitFailed, "--socket")
}
