package glanceapi

import (
	"context"
	"net/http"
	"net/url"
)

// CacheCounts are what has happened in the cache since the daemon started.
type CacheCounts struct {
	HitChunks      int64 `json:"hit_chunks"`
	MissChunks     int64 `json:"miss_chunks"`
	Fetches        int64 `json:"fetches"`
	FetchedBytes   int64 `json:"fetched_bytes"`
	EvictedChunks  int64 `json:"evicted_chunks"`
	UnstoredChunks int64 `json:"unstored_chunks"`
	DamagedChunks  int64 `json:"damaged_chunks"`
}

// Cache is the daemon's cache of far stores.
type Cache struct {
	Dir          string `json:"dir"`
	SizeBytes    int64  `json:"size_bytes"`
	ChunkBytes   int64  `json:"chunk_bytes"`
	MinFreeBytes int64  `json:"min_free_bytes"`
	UsedBytes    int64  `json:"used_bytes"`
	PinnedBytes  int64  `json:"pinned_bytes"`
	Chunks       int64  `json:"chunks"`
	Problem      string `json:"problem"` // why nothing is written to it
	CacheCounts
	Images []CachedImage `json:"images"`
}

// CachedImage is what the cache has of one image.
type CachedImage struct {
	Image         string `json:"image"` // "" = it is in the catalog no more
	Store         string `json:"store"`
	SizeBytes     int64  `json:"size_bytes"`
	CachedBytes   int64  `json:"cached_bytes"`
	Chunks        int64  `json:"chunks"`
	AllChunks     int64  `json:"all_chunks"`
	Pinned        bool   `json:"pinned"`
	Open          bool   `json:"open"`
	Prefetching   bool   `json:"prefetching"`
	PrefetchError string `json:"prefetch_error"`
	CacheCounts
}

// Cache asks for the state of the cache.
func (c *Client) Cache(ctx context.Context) (out Cache, err error) {
	err = c.call(ctx, request{method: http.MethodGet, path: "/admin/cache"}, nil, &out)
	return out, err
}

// CachedImage asks what is cached of an image.
func (c *Client) CachedImage(ctx context.Context, id string) (CachedImage, error) {
	return c.cached(ctx, http.MethodGet, id, "")
}

// PrefetchImage has all of an image fetched into the cache; it returns at once.
func (c *Client) PrefetchImage(ctx context.Context, id string) (CachedImage, error) {
	return c.cached(ctx, http.MethodPost, id, "/prefetch")
}

// PinImage keeps an image's chunks from eviction, or does so no longer.
func (c *Client) PinImage(ctx context.Context, id string, pinned bool) (CachedImage, error) {
	if pinned {
		return c.cached(ctx, http.MethodPut, id, "/pin")
	}
	return c.cached(ctx, http.MethodDelete, id, "/pin")
}

// EvictImage removes what is cached of an image.
func (c *Client) EvictImage(ctx context.Context, id string) (CachedImage, error) {
	return c.cached(ctx, http.MethodDelete, id, "")
}

func (c *Client) cached(ctx context.Context, method, id, what string) (out CachedImage, err error) {
	err = c.call(ctx, request{method: method, path: "/admin/cache/" + url.PathEscape(id) + what}, nil, &out)
	return out, err
}
