package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"glanced/backends"
	"glanced/backends/cache"
	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/ctl"
)

// maxPrefetches is how many images are prefetched at once.
const maxPrefetches = 8

// cacheAdmin is ctl.CacheAdmin: the cache knows identities, the catalog images.
type cacheAdmin struct {
	cache   *cache.Cache
	catalog *catalog.Catalog

	ctx     context.Context // of what is prefetched
	end     context.CancelFunc
	running sync.WaitGroup

	mu        sync.Mutex
	under     int                      // prefetches under way
	prefetchs map[string]*prefetchDone // by image, the last one
}

type prefetchDone struct {
	over bool
	err  error
}

func newCacheAdmin(c *cache.Cache, images *catalog.Catalog) *cacheAdmin {
	a := &cacheAdmin{cache: c, catalog: images, prefetchs: map[string]*prefetchDone{}}
	a.ctx, a.end = context.WithCancel(context.Background())
	return a
}

// Close ends what is prefetched.
func (a *cacheAdmin) Close() {
	a.end()
	a.running.Wait()
}

// identities are what the cache knows of an image, by store.
func (a *cacheAdmin) identities(img catalog.Image) (ids []stored.Identity, stores []string) {
	for _, l := range img.Locations {
		if id, ok := a.cache.Find(backends.Location{Store: l.Store, URL: l.URL, Version: l.Version}); ok {
			ids, stores = append(ids, id), append(stores, l.Store)
		}
	}
	return ids, stores
}

// known is what the cache knows of an image that nothing may be cached of yet: it is
// opened for that. The handle is to be closed.
func (a *cacheAdmin) known(ctx context.Context, id string) ([]stored.Identity, *catalog.Handle, error) {
	h, err := a.catalog.Open(ctx, access.System(), id, catalog.View{Stored: true, Deactivated: true})
	if err != nil {
		return nil, nil, err
	}
	img, err := a.catalog.Get(ctx, id) // the opening may have recorded a version
	if err == nil {
		if ids, _ := a.identities(img); len(ids) > 0 {
			return ids, h, nil
		}
		err = ctl.ErrNotCached
	}
	h.Close()
	return nil, nil, err
}

// each does something with all that is cached of an image.
func (a *cacheAdmin) each(ctx context.Context, id string, do func(stored.Identity) error) error {
	img, err := a.catalog.Get(ctx, id)
	if err != nil {
		return err
	}
	ids, _ := a.identities(img)
	if len(ids) == 0 {
		var h *catalog.Handle
		if ids, h, err = a.known(ctx, id); err != nil {
			return err
		}
		defer h.Close()
	}
	for _, id := range ids {
		if err := do(id); err != nil && !errors.Is(err, cache.ErrUnknown) {
			return err
		}
	}
	return nil
}

// Pin implements ctl.CacheAdmin.
func (a *cacheAdmin) Pin(ctx context.Context, id string, pinned bool) error {
	return a.each(ctx, id, func(id stored.Identity) error { return a.cache.Pin(id, pinned) })
}

// Evict implements ctl.CacheAdmin.
func (a *cacheAdmin) Evict(ctx context.Context, id string) error {
	return a.each(ctx, id, a.cache.Evict)
}

// Prefetch implements ctl.CacheAdmin. The image is kept open meanwhile.
func (a *cacheAdmin) Prefetch(ctx context.Context, id string) error {
	ids, h, err := a.known(ctx, id)
	if err != nil {
		return err
	}
	if room := a.cache.Stats().SizeBytes; h.Size() > room {
		h.Close()
		return fmt.Errorf("%w: it has %d bytes, the cache %d", ctl.ErrCacheFull, h.Size(), room)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if last := a.prefetchs[id]; last != nil && !last.over {
		h.Close()
		return nil
	}
	if a.under >= maxPrefetches || a.ctx.Err() != nil {
		h.Close()
		return ctl.ErrCacheBusy
	}
	if len(a.prefetchs) > 1000 { // of what is long over, nobody asks
		for id, p := range a.prefetchs {
			if p.over {
				delete(a.prefetchs, id)
			}
		}
	}
	this := &prefetchDone{}
	a.prefetchs[id] = this
	a.under++
	a.running.Go(func() {
		defer h.Close()
		// Of several locations, the one is open that is read from.
		err := error(cache.ErrNotOpen)
		for _, id := range ids {
			if e := a.cache.Fill(a.ctx, id); !errors.Is(e, cache.ErrNotOpen) {
				err = e
			}
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		this.over, this.err = true, err
		a.under--
	})
	return nil
}

// Image implements ctl.CacheAdmin.
func (a *cacheAdmin) Image(ctx context.Context, id string) (ctl.CachedImage, error) {
	img, err := a.catalog.Get(ctx, id)
	if err != nil {
		return ctl.CachedImage{}, err
	}
	out := ctl.CachedImage{Image: id}
	ids, stores := a.identities(img)
	for i, id := range ids {
		o, err := a.cache.Stat(id)
		if err != nil { // gone meanwhile
			continue
		}
		// The one that is read from, or that the most is of.
		if out.Store == "" || o.Readers > 0 || !out.Open && o.CachedBytes > out.CachedBytes {
			line := a.line(o, img.ID)
			line.Store = stores[i]
			out = line
		}
	}
	if out.Store == "" {
		out = a.line(cache.Object{}, id)
		if img.Size != nil {
			out.SizeBytes = *img.Size
		}
	}
	return out, nil
}

func (a *cacheAdmin) line(o cache.Object, image string) ctl.CachedImage {
	out := ctl.CachedImage{Image: image, SizeBytes: o.SizeBytes, CachedBytes: o.CachedBytes, Chunks: o.Chunks, AllChunks: o.AllChunks,
		Pinned: o.Pinned, Open: o.Readers > 0, CacheCounts: cacheCounts(o.Counts)}
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.prefetchs[image]; p != nil {
		out.Prefetching = !p.over
		if p.err != nil {
			out.PrefetchError = p.err.Error()
		}
	}
	return out
}

// Status implements ctl.CacheAdmin.
func (a *cacheAdmin) Status(ctx context.Context) (ctl.CacheStatus, error) {
	s, objects := a.cache.Stats(), a.cache.List()
	out := ctl.CacheStatus{Dir: s.Dir, SizeBytes: s.SizeBytes, ChunkBytes: s.ChunkBytes, MinFreeBytes: s.MinFreeBytes, UsedBytes: s.UsedBytes,
		PinnedBytes: s.PinnedBytes, Chunks: s.Chunks, Problem: s.Off, CacheCounts: cacheCounts(s.Counts), Images: []ctl.CachedImage{}}
	type where struct{ image, store string }
	places := map[string]where{}
	for _, o := range objects {
		places[o.Place] = where{}
	}
	delete(places, "")
	all := catalog.Query{Scope: catalog.Everything, Holding: true}
	for img, err := range a.catalog.Walk(ctx, all) {
		if err != nil {
			return out, err
		}
		if len(places) == 0 {
			break
		}
		for _, l := range img.Locations {
			place := cache.Place(backends.Location{Store: l.Store, URL: l.URL, Version: l.Version})
			if _, ok := places[place]; ok {
				places[place] = where{img.ID, l.Store}
			}
		}
	}
	for _, o := range objects {
		line := a.line(o, places[o.Place].image)
		line.Store = places[o.Place].store
		out.Images = append(out.Images, line)
	}
	return out, nil
}

func cacheCounts(c cache.Counts) ctl.CacheCounts {
	return ctl.CacheCounts{HitChunks: c.Hits, MissChunks: c.Misses, Fetches: c.Fetches, FetchedBytes: c.FetchedBytes,
		EvictedChunks: c.Evictions, UnstoredChunks: c.Unkept, DamagedChunks: c.Damaged}
}
