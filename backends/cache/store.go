package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"

	"glanced/backends"
	"glanced/backends/stored"
)

// Place names where an object lies, and which state of it: a hash of the store, the
// URL and the version, for a URL may hold credentials. "" where the version is not
// known.
func Place(loc backends.Location) string {
	if loc.Version == "" {
		return ""
	}
	h := sha256.New()
	for _, part := range []string{loc.Store, loc.URL, loc.Version} {
		sum := sha256.Sum256([]byte(part))
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Store is s, whose objects are read through the cache. What s deletes, or says has
// changed, is dropped from it.
func (c *Cache) Store(s backends.Store, l Limits) backends.Store {
	return &store{s, c, c.Upstream(l)}
}

type store struct {
	backends.Store
	c  *Cache
	up *Upstream
}

// Unwrap is for backends.As.
func (s *store) Unwrap() backends.Store { return s.Store }

// Stat implements backends.Store.
func (s *store) Stat(ctx context.Context, loc backends.Location) (backends.Location, error) {
	full, err := s.Store.Stat(ctx, loc)
	s.c.heed(loc, err)
	return full, err
}

// Open implements backends.Store. Where something of the recorded version is cached,
// the store is asked when something else is wanted.
func (s *store) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	if b := s.cachedAt(loc); b != nil {
		return s.c.bytes(b, s.up, Place(loc)), nil
	}
	b, err := s.Store.Open(ctx, loc)
	if err != nil {
		s.c.heed(loc, err)
		return nil, err
	}
	return s.c.bytes(b, s.up, Place(loc)), nil
}

// Delete implements backends.Store.
func (s *store) Delete(ctx context.Context, loc backends.Location) error {
	err := s.Store.Delete(ctx, loc)
	if err == nil || errors.Is(err, backends.ErrNotFound) {
		s.c.dropPlace(loc)
	}
	s.c.heed(loc, err)
	return err
}

// heed drops what a store says has changed.
func (c *Cache) heed(loc backends.Location, err error) {
	if errors.Is(err, backends.ErrChanged) {
		c.dropPlace(loc)
	}
}

func (c *Cache) dropPlace(loc backends.Location) {
	c.mu.Lock()
	o := c.places[Place(loc)]
	c.mu.Unlock()
	if o != nil {
		if err := c.drop(o); err != nil {
			c.log.Warn("cannot remove cached data that is not needed any more", "error", err)
		}
	}
}
