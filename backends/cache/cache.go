// Package cache keeps chunks of far objects on a local disk, between the stores
// and all who read. It wraps what a store opened in bytes of the same shape: what is
// here is read from a local file, and may be handed out as one (stored.FileRanger,
// stored.WholeFiler); what is not is fetched, once for all who want it, and kept.
//
// Vocabulary. Object: the bytes of one stored.Identity. Chunk: one of the pieces of
// equal size that an object is cut into; the last may be shorter. Flight: chunks that
// are being fetched. Upstream: what the fetches from one store share. Held: being
// read, or handed out, and so neither evicted nor punched.
//
// What is right for ever is the base of it: an identity names the same bytes today
// and after a restart, so no chunk is ever stale, only there or not. What is on disk
// is believed when its checksum agrees (sums.go), and is looked at once in the life
// of a process. The folder, the eviction, and why: contrib/decisions/0009.
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"glanced/backends/budget"
	"glanced/backends/stored"
)

const (
	DefaultChunkSize = 256 << 10
	MinChunkSize     = 64 << 10
	MaxChunkSize     = 1 << 20
	// MinChunks is how many chunks the smallest cache has room for.
	MinChunks = 16
	// BytesPerChunk is about what the index of a chunk takes in memory.
	BytesPerChunk = 128
	// MemoryPart is what a budget for Config.Memory is divided by (budget.NewOf): there
	// are few stores, and one alone needs much to be fast at a distance.
	MemoryPart = 1
	// DefaultDeadline is the most that a fetch may take.
	DefaultDeadline = time.Minute

	defaultMemory = 64 << 20
)

// ErrInUse is a folder that another process has.
var ErrInUse = errors.New("another process uses the cache folder")

// Config of a cache.
type Config struct {
	Dir       string // its folder; made where it is missing
	Size      int64  // the most that its files take, allocated, bytes
	ChunkSize int64  // bytes, a power of two, MinChunkSize to MaxChunkSize; 0 = DefaultChunkSize
	MinFree   int64  // bytes that the file system keeps free for others; below it nothing is written, and chunks are evicted
	// Memory is what bytes on their way are charged to, a share for each upstream, of
	// MemoryPart; nil = 64 MiB.
	Memory   *budget.Budget
	Deadline time.Duration // of a fetch, waiting included; 0 = DefaultDeadline
	Log      *slog.Logger  // nil: slog.Default()

	free func(dir string) (int64, error) // for tests; nil: statfs(2)
}

// Cache is a folder of chunks. Safe for concurrent use.
type Cache struct {
	cfg   Config
	log   *slog.Logger
	lock  *os.File
	dir   string // of the objects
	began time.Time

	life    context.Context // of flights and of what is done in the background
	end     context.CancelCauseFunc
	running sync.WaitGroup
	kick    chan struct{} // something is to be purged

	// files is held by whoever changes files, also while it does; a read that finds
	// its chunks takes it never. It is taken before mu.
	files  sync.Mutex
	writes writing // its

	buffers buffers

	// mu guards all of the index, and is never held during I/O.
	mu      sync.Mutex
	closed  bool
	objects map[stored.Identity]*object
	places  map[string]*object // by Place, where that is known
	queues  queues
	used    int64    // bytes on disk, allocated, with those reserved; changed with files held
	purge   []*chunk // dropped, and now given back by who held them
	counts  Counts
}

// Open opens the cache in cfg.Dir, with the chunks that an earlier life left there,
// down to cfg.Size. ErrInUse.
func Open(cfg Config) (*Cache, error) {
	if cfg.ChunkSize == 0 {
		cfg.ChunkSize = DefaultChunkSize
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = DefaultDeadline
	}
	if cfg.Memory == nil {
		cfg.Memory = budget.NewOf(defaultMemory, MemoryPart)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.free == nil {
		cfg.free = freeBytes
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	lock, err := lockFolder(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cache{cfg: cfg, log: cfg.Log, lock: lock, dir: filepath.Join(cfg.Dir, "v1"), began: time.Now(),
		kick: make(chan struct{}, 1), objects: map[stored.Identity]*object{}, places: map[string]*object{},
		buffers: buffers{chunk: cfg.ChunkSize}}
	c.queues.init(cfg.Size, cfg.ChunkSize)
	c.life, c.end = context.WithCancelCause(context.Background())
	if err := c.load(); err != nil {
		c.end(nil)
		lock.Close()
		return nil, err
	}
	c.running.Go(c.keepHouse)
	return c, nil
}

// CheckChunkSize is nil for a chunk size that a cache can have.
func CheckChunkSize(n int64) error {
	if n < MinChunkSize || n > MaxChunkSize || bits.OnesCount64(uint64(n)) != 1 {
		return fmt.Errorf("a chunk of %d bytes: want a power of two from %d to %d", n, MinChunkSize, MaxChunkSize)
	}
	return nil
}

func (cfg Config) check() error {
	if err := CheckChunkSize(cfg.ChunkSize); err != nil {
		return err
	}
	if cfg.Size < MinChunks*cfg.ChunkSize {
		return fmt.Errorf("a cache of %d bytes: it needs room for %d chunks of %d bytes", cfg.Size, MinChunks, cfg.ChunkSize)
	}
	if cfg.Memory.Size() < 2*cfg.ChunkSize {
		return fmt.Errorf("%d bytes of memory for fetches: it takes two chunks of %d", cfg.Memory.Size(), cfg.ChunkSize)
	}
	if cfg.MinFree < 0 {
		return errors.New("the bytes that stay free cannot be negative")
	}
	return nil
}

// lockFolder makes the folder, and takes it for this process.
func lockFolder(dir string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Join(dir, "v1"), 0o700); err != nil {
		return nil, fmt.Errorf("make the cache folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the cache folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w %s: give each daemon a cache folder of its own", ErrInUse, dir)
		}
		return nil, fmt.Errorf("lock the cache folder: %w", err)
	}
	if err := canPunch(dir); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// canPunch fails where the file system cannot free a part of a file: chunks could
// not be evicted. One that is full or read-only may be so for a while only.
func canPunch(dir string) error {
	f, err := os.CreateTemp(dir, ".punch-")
	if err != nil {
		return nil
	}
	defer f.Close()
	defer os.Remove(f.Name())
	if _, err := f.Write(make([]byte, 2*block)); err != nil {
		return nil
	}
	if err := punch(f, 0, block); errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("the file system of %s cannot punch holes into files: put the cache on another (ext4, xfs, btrfs, tmpfs)", dir)
	}
	return nil
}

var errClosed = errors.New("the cached bytes are closed")

// Close ends all fetches, and leaves what is cached for the next Open. Bytes that
// are still open cannot be read any more.
func (c *Cache) Close() error {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	c.mu.Unlock()
	if was {
		return nil
	}
	c.end(errClosed)
	c.running.Wait()
	c.files.Lock()
	defer c.files.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, o := range c.objects {
		if o.data != nil && o.users == len(o.open) { // what is handed out stays open
			errs = append(errs, o.data.Close())
			o.data = nil
		}
	}
	return errors.Join(append(errs, c.lock.Close())...)
}

// second is the time, in seconds of the cache's life.
func (c *Cache) second() uint32 { return uint32(time.Since(c.began) / time.Second) }
