package main

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/all"
	"glanced/backends/budget"
	"glanced/backends/cache"
)

type cacheConfig struct {
	Dir         string   `toml:"dir"`
	Size        byteSize `toml:"size"` // 0 = no cache
	ChunkSize   byteSize `toml:"chunk_size"`
	MinFree     byteSize `toml:"min_free"`    // bytes that its file system keeps free
	Connections int      `toml:"connections"` // fetches at once, of each store
	Bandwidth   byteSize `toml:"bandwidth"`   // a second, of each store; 0 = no limit
}

// cached reports whether there is to be a cache: where a store is far.
func (c *config) cached() bool {
	return c.Cache.Size > 0 && slices.ContainsFunc(c.Stores, all.Config.Far)
}

func (c cacheConfig) check() error {
	var errs []error
	if c.Size == 0 {
		return nil
	}
	if err := cache.CheckChunkSize(int64(c.ChunkSize)); err != nil {
		errs = append(errs, fmt.Errorf("cache.chunk_size: %w", err))
	} else if c.Size < cache.MinChunks*c.ChunkSize {
		errs = append(errs, fmt.Errorf("cache.size = %d bytes: want %d chunks at least, or 0 for no cache", c.Size, cache.MinChunks))
	}
	if c.Dir == "" {
		errs = append(errs, errors.New("cache.dir is empty: name a folder, or set cache.size = \"0\" for no cache"))
	}
	if c.Connections < 1 {
		errs = append(errs, fmt.Errorf("cache.connections = %d: at least one is needed", c.Connections))
	}
	return errors.Join(errs...)
}

// openCache opens the cache, if a store needs one. What memory cannot index of its
// size is not used.
func (d *daemon) openCache() error {
	c := d.cfg.Cache
	if !d.cfg.cached() {
		return nil
	}
	size := int64(c.Size)
	if most := d.limits.index / cache.BytesPerChunk * int64(c.ChunkSize); size > most {
		size = max(most, cache.MinChunks*int64(c.ChunkSize))
		d.log.Warn("the cache is used up to a part of its size, for memory.budget has no room for its index: raise that, or cache.chunk_size", "size", int64(c.Size), "used", size)
	}
	opened, err := cache.Open(cache.Config{Dir: c.Dir, Size: size, ChunkSize: int64(c.ChunkSize), MinFree: int64(c.MinFree),
		Memory: budget.NewOf(max(d.limits.fetches, 4*int64(c.ChunkSize)), cache.MemoryPart), Log: d.log.With("subsystem", "cache")})
	if err != nil && diskFails(err) {
		d.log.Warn("there is no cache until the next start, for its disk takes nothing: images are read from the stores each time", "error", fmt.Errorf("cache.dir: %w", err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("cache.dir: %w", err)
	}
	d.cache = opened
	d.below = append(d.below, opened)
	return nil
}

// diskFails tells whether an error is a disk's that is full, or broken: any other one is
// of the configuration.
func diskFails(err error) bool {
	for _, kind := range []error{unix.ENOSPC, unix.EDQUOT, unix.EROFS, unix.EIO} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// throughCache is a store, read through the cache if it is far.
func (d *daemon) throughCache(c all.Config, s backends.Store) backends.Store {
	if d.cache == nil || !c.Far() {
		return s
	}
	return d.cache.Store(s, cache.Limits{Connections: d.cfg.Cache.Connections, BytesPerSecond: int64(d.cfg.Cache.Bandwidth)})
}
