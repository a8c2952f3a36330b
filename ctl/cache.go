package ctl

import (
	"context"
	"errors"
	"net/http"

	"glanced/catalog/access"
)

// Sentinels of CacheAdmin.
var (
	ErrNotCached = errors.New("nothing of the image is cached, and it lies in no store that is read through the cache")
	ErrCacheFull = errors.New("the cache has no room for all of the image")
	ErrCacheBusy = errors.New("enough images are being prefetched")
)

// CacheAdmin is the cache of far stores, by image. Its errors are the sentinels here
// and those of the catalog.
type CacheAdmin interface {
	Status(ctx context.Context) (CacheStatus, error)
	Image(ctx context.Context, id string) (CachedImage, error)
	// Prefetch has all of an image fetched, and returns at once: CachedImage tells how
	// far it is. ErrCacheFull, ErrCacheBusy.
	Prefetch(ctx context.Context, id string) error
	// Pin has nothing of an image evicted, until it is unpinned.
	Pin(ctx context.Context, id string, pinned bool) error
	// Evict removes what is cached of an image.
	Evict(ctx context.Context, id string) error
}

// CacheCounts are what has happened since the daemon started.
type CacheCounts struct {
	HitChunks      int64 `json:"hit_chunks"`  // found when they were read
	MissChunks     int64 `json:"miss_chunks"` // that had to be waited for
	Fetches        int64 `json:"fetches"`     // requests to the stores
	FetchedBytes   int64 `json:"fetched_bytes"`
	EvictedChunks  int64 `json:"evicted_chunks"`
	UnstoredChunks int64 `json:"unstored_chunks"` // fetched, and there was no room for them, or no working disk
	DamagedChunks  int64 `json:"damaged_chunks"`  // that did not fit their checksum, and were fetched again
}

// CacheStatus is GET /admin/cache.
type CacheStatus struct {
	Dir          string `json:"dir"`
	SizeBytes    int64  `json:"size_bytes"`
	ChunkBytes   int64  `json:"chunk_bytes"`
	MinFreeBytes int64  `json:"min_free_bytes"`
	UsedBytes    int64  `json:"used_bytes"` // allocated
	PinnedBytes  int64  `json:"pinned_bytes"`
	Chunks       int64  `json:"chunks"`
	Problem      string `json:"problem"` // why nothing is written to it; "" = it is
	CacheCounts
	Images []CachedImage `json:"images"` // of which something is cached, or that are open or pinned; the largest part first
}

// CachedImage is GET /admin/cache/{id}, and an item of CacheStatus.
type CachedImage struct {
	Image         string `json:"image"` // "" = of none that is in the catalog any more
	Store         string `json:"store"`
	SizeBytes     int64  `json:"size_bytes"`
	CachedBytes   int64  `json:"cached_bytes"` // allocated
	Chunks        int64  `json:"chunks"`
	AllChunks     int64  `json:"all_chunks"`
	Pinned        bool   `json:"pinned"`
	Open          bool   `json:"open"`
	Prefetching   bool   `json:"prefetching"`
	PrefetchError string `json:"prefetch_error"` // of the last one; "" = none
	CacheCounts
}

// cache is who answers for the cache, to an administrator.
func (s *Server) cache(who Identity) (CacheAdmin, error) {
	if err := allowAny(who, access.Administer); err != nil {
		return nil, err
	}
	if s.admin.Cache == nil {
		return nil, fail(http.StatusNotFound, "There is no cache: no store is configured that needs one, or cache.size is 0.")
	}
	return s.admin.Cache, nil
}

func (s *Server) showCache(w http.ResponseWriter, r *http.Request, who Identity) error {
	c, err := s.cache(who)
	if err != nil {
		return err
	}
	status, err := c.Status(r.Context())
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, status)
}

func (s *Server) showCachedImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	return s.withCached(w, r, who, func(CacheAdmin, context.Context, string) error { return nil })
}

func (s *Server) prefetchImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	return s.withCached(w, r, who, CacheAdmin.Prefetch)
}

func (s *Server) pinImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	return s.withCached(w, r, who, func(c CacheAdmin, ctx context.Context, id string) error { return c.Pin(ctx, id, true) })
}

func (s *Server) unpinImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	return s.withCached(w, r, who, func(c CacheAdmin, ctx context.Context, id string) error { return c.Pin(ctx, id, false) })
}

func (s *Server) evictImage(w http.ResponseWriter, r *http.Request, who Identity) error {
	return s.withCached(w, r, who, CacheAdmin.Evict)
}

// withCached does something with the image that the path names, and answers what is
// cached of it then.
func (s *Server) withCached(w http.ResponseWriter, r *http.Request, who Identity, do func(CacheAdmin, context.Context, string) error) error {
	c, err := s.cache(who)
	if err != nil {
		return err
	}
	id := r.PathValue("id")
	if err := do(c, r.Context(), id); err != nil {
		return err
	}
	img, err := c.Image(r.Context(), id)
	if err != nil {
		return err
	}
	return answerJSON(w, http.StatusOK, img)
}
