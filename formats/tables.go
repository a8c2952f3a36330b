package formats

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

// Tables is a cache of metadata tables (qcow2 L2, vmdk grain tables, …) shared
// by every open layout and bounded in bytes. Safe for concurrent use.
type Tables struct {
	shards  []tableShard
	readers atomic.Uint64 // numbers them
}

type tableShard struct {
	mu    sync.Mutex
	cache segment[[]byte]
	_     [64]byte // keeps neighbours' locks off one cache line
}

// TableReader reads the tables of one source through a Tables. Safe for
// concurrent use.
type TableReader struct {
	t      *Tables
	id     uint64
	src    Source
	size   int64
	closed atomic.Bool
}

const (
	// privateTables is the budget of a layout that was given no shared cache.
	privateTables = 4 << 20
	// maxTable bounds one table, bytes. The largest that formats define per
	// entry of the level above are a cluster of qcow2, 2 MiB; flat tables of
	// large disks (vhdx, vdi, parallels) are read in parts.
	maxTable = 64 << 20
)

// NewTables makes a cache of at most budget bytes (the most recent table of each
// of its parts stays, even if it alone is larger).
func NewTables(budget int64) *Tables {
	t := &Tables{shards: make([]tableShard, shardCount(budget, 64<<10))}
	for i := range t.shards {
		t.shards[i].cache = newSegment[[]byte](budget/int64(len(t.shards)), nil)
	}
	return t
}

// Reader makes src's tables readable through t; t may be nil, for a small
// private cache. Close it with the layout.
func (t *Tables) Reader(src Source) *TableReader {
	if t == nil {
		t = NewTables(privateTables)
	}
	return &TableReader{t: t, id: t.readers.Add(1), src: src, size: src.Size()}
}

// Read returns n bytes of the source at pos. The slice is shared: it must not be
// changed. It fails with ErrCorrupt where the source ends before that, and with
// ErrLimit for n over 64 MiB. Two callers that miss at once both read; tables
// are small and the second insert is dropped.
func (r *TableReader) Read(ctx context.Context, pos int64, n int) ([]byte, error) {
	k := cacheKey{r.id, place{pos: pos, n: int64(n)}}
	sh := &r.t.shards[shardOf(k, len(r.t.shards))]
	sh.mu.Lock()
	b, ok := sh.cache.get(k, true)
	sh.mu.Unlock()
	if ok {
		return b, nil
	}

	if pos < 0 || n < 0 || pos > r.size-int64(n) {
		return nil, fmt.Errorf("%w: a table of %d bytes at %d passes the end of the image (%d bytes)", ErrCorrupt, n, pos, r.size)
	}
	if n > maxTable {
		return nil, fmt.Errorf("%w: a table of %d bytes at %d; the most is %d", ErrLimit, n, pos, maxTable)
	}
	b = make([]byte, n)
	if err := r.src.ReadAt(ctx, b, pos); err != nil {
		return nil, fmt.Errorf("read a table of %d bytes at %d: %w", n, pos, err)
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r.closed.Load() {
		return nil, ErrClosed // its tables were dropped, and stay so
	}
	sh.cache.put(k, b, int64(n))
	return b, nil
}

// Close drops the source's tables from the cache.
func (r *TableReader) Close() {
	r.closed.Store(true)
	for i := range r.t.shards {
		sh := &r.t.shards[i]
		sh.mu.Lock()
		sh.cache.drop(r.id)
		sh.mu.Unlock()
	}
}
