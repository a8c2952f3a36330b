package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"glanced/backends"
	"glanced/backends/stored"
)

var (
	// ErrUnknown is an object of which nothing is cached, and that nobody has open.
	ErrUnknown = errors.New("nothing of it is in the cache")
	// ErrNotOpen is an object that cannot be fetched, for nobody has it open.
	ErrNotOpen = errors.New("nobody has it open")
	// ErrNotKept is what does not fit beside what is held and pinned, or a cache that
	// cannot be written to.
	ErrNotKept = errors.New("the cache cannot keep all of it")
)

// Counts are what has happened since Open.
type Counts struct {
	Hits         int64 // chunks found when they were read
	Misses       int64 // chunks that had to be waited for
	Fetches      int64 // requests to stores
	FetchedBytes int64
	Evictions    int64 // chunks
	Unkept       int64 // chunks fetched that there was no room for, or no working disk
	Damaged      int64 // chunks on disk that did not fit their checksum
}

// Stats are the state of a cache.
type Stats struct {
	Dir                      string
	SizeBytes, ChunkBytes    int64
	MinFreeBytes             int64
	UsedBytes                int64 // allocated
	Chunks, Objects          int64
	PinnedBytes              int64
	MemoryBytes, MemoryInUse int64  // of fetches; what all who share the budget hold
	Off                      string // why nothing is written; "" = it is
	Counts
}

// Object is what is cached of one.
type Object struct {
	Identity    stored.Identity
	Place       string // see Place
	SizeBytes   int64
	CachedBytes int64 // allocated
	Chunks      int64 // on disk
	AllChunks   int64
	Readers     int64 // who has it open
	Held        bool  // handed out as a whole file
	Pinned      bool
	Counts
}

// Stats tells how the cache is.
func (c *Cache) Stats() Stats {
	c.files.Lock()
	off := c.writes.off
	low := c.writes.low
	c.files.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{Dir: c.cfg.Dir, SizeBytes: c.cfg.Size, ChunkBytes: c.cfg.ChunkSize, MinFreeBytes: c.cfg.MinFree, UsedBytes: c.used,
		MemoryBytes: c.cfg.Memory.Size(), MemoryInUse: c.cfg.Memory.Size() - c.cfg.Memory.Free(), Counts: c.counts}
	for _, o := range c.objects {
		if len(o.chunks) > 0 || o.pinned {
			s.Objects++
		}
		s.Chunks += int64(len(o.chunks))
		if o.pinned {
			s.PinnedBytes += o.bytes
		}
	}
	switch {
	case off != nil:
		s.Off = off.Error()
	case low:
		s.Off = "the disk has too little free space"
	}
	return s
}

// List tells of every object of which something is cached, or that is open or pinned,
// the largest part first.
func (c *Cache) List() []Object {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Object, 0, len(c.objects))
	for _, o := range c.objects {
		all = append(all, o.tell())
	}
	slices.SortFunc(all, func(a, b Object) int {
		return cmp.Or(cmp.Compare(b.CachedBytes, a.CachedBytes), cmp.Compare(a.Identity, b.Identity))
	})
	return all
}

func (o *object) tell() Object {
	return Object{Identity: o.id, Place: o.place, SizeBytes: o.size, CachedBytes: o.bytes, Chunks: int64(len(o.chunks)), AllChunks: int64(o.n),
		Readers: int64(len(o.open)), Held: o.whole > 0, Pinned: o.pinned, Counts: o.counts}
}

// Stat tells of one object. ErrUnknown.
func (c *Cache) Stat(id stored.Identity) (Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := c.objects[id]
	if o == nil {
		return Object{}, ErrUnknown
	}
	return o.tell(), nil
}

// Find is the identity of what lies at a location, if the cache has met it there.
func (c *Cache) Find(loc backends.Location) (stored.Identity, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := c.places[Place(loc)]; o != nil {
		return o.id, true
	}
	return "", false
}

// Pin has nothing of an object evicted until it is unpinned, also after a restart, and
// counts it against the size all the same. ErrUnknown where it is neither cached nor
// open.
func (c *Cache) Pin(id stored.Identity, pinned bool) error {
	c.files.Lock()
	defer c.files.Unlock()
	c.mu.Lock()
	o := c.objects[id]
	c.mu.Unlock()
	if o == nil {
		return ErrUnknown
	}
	path := filepath.Join(o.dir, pinName)
	var err error
	if pinned {
		if err = o.record(); err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
	} else if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	c.mu.Lock()
	o.pinned = pinned
	c.mu.Unlock()
	return nil
}

// Evict removes what is cached of an object, pinned or not, which stays pinned. What
// somebody holds goes when it is given back. ErrUnknown.
func (c *Cache) Evict(id stored.Identity) error {
	c.mu.Lock()
	o := c.objects[id]
	c.mu.Unlock()
	if o == nil {
		return ErrUnknown
	}
	return c.drop(o)
}

// Fill fetches all of an object that is missing, as read-ahead, and returns when it is
// on disk. Somebody has to have it open, through c. ErrUnknown, ErrNotOpen, ErrNotKept,
// and the errors of the store.
func (c *Cache) Fill(ctx context.Context, id stored.Identity) error {
	c.mu.Lock()
	o := c.objects[id]
	var r *reader
	if o != nil {
		for r = range o.open {
			break
		}
	}
	c.mu.Unlock()
	switch {
	case o == nil:
		return ErrUnknown
	case r == nil:
		return ErrNotOpen
	case o.size > c.cfg.Size:
		return fmt.Errorf("%w: it has %d bytes, the cache %d", ErrNotKept, o.size, c.cfg.Size)
	}
	return r.fill(ctx)
}
