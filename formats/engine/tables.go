package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"glanced/backends/flight"
	"glanced/backends/stored"
	"glanced/formats"
)

// tables is a cache of metadata tables (qcow2 L2, vmdk grain tables, …) shared by
// every open layout and bounded in bytes. Safe for concurrent use.
type tables struct {
	shards  []tableShard
	readers atomic.Uint64 // numbers them
	flights flight.Group[cacheKey, []byte]
	slots   chan struct{} // who reads a table ahead holds one
}

type tableShard struct {
	mu    sync.Mutex
	cache s3fifo[[]byte]
	_     [64]byte // keeps neighbours' locks off one cache line
}

// tablesAhead is how many tables are read ahead at once, of all disks: what hides
// the distance of a store that is 30 ms away.
const tablesAhead = 32

// newTables makes a cache of at most budget bytes (the most recent table of each
// of its parts stays, even if it alone is larger).
func newTables(budget int64) *tables {
	t := &tables{shards: make([]tableShard, shardCount(budget, 64<<10)), slots: make(chan struct{}, tablesAhead)}
	for i := range t.shards {
		t.shards[i].cache = newS3FIFO[[]byte](budget/int64(len(t.shards)), nil)
	}
	return t
}

func (t *tables) shard(k cacheKey) *tableShard { return &t.shards[shardOf(k, len(t.shards))] }

// tableReader reads the tables of one source through the cache; see formats.Tables.
type tableReader struct {
	t     *tables
	id    uint64
	src   stored.Bytes
	files stored.FileRanger // src's; nil: none

	life       context.Context // of what it reads ahead
	end        context.CancelFunc
	mu         sync.Mutex
	closed     bool
	fetches    []*tableFetch
	background sync.WaitGroup
}

// reader makes src's tables readable through t. It is closed with the layout.
func (t *tables) reader(src stored.Bytes) formats.Tables {
	r := &tableReader{t: t, id: t.readers.Add(1), src: src}
	r.files, _ = stored.As[stored.FileRanger](src)
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

func (r *tableReader) key(pos int64, n int) cacheKey {
	return cacheKey{r.id, place{pos: pos, n: int64(n)}}
}

// Read implements formats.Tables.
func (r *tableReader) Read(ctx context.Context, pos int64, n int) ([]byte, error) {
	k := r.key(pos, n)
	if b, ok := r.cached(k, true); ok {
		return b, nil
	}
	if isWithoutIO(ctx) {
		return r.readCached(k)
	}
	if done := r.fetchAt(pos); done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if b, ok := r.cached(k, true); ok {
			return b, nil
		}
	}
	return r.t.flights.Do(ctx, k, func(ctx context.Context) ([]byte, error) { return r.fetch(ctx, k) })
}

func (r *tableReader) cached(k cacheKey, use bool) ([]byte, bool) {
	sh := r.t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.cache.get(k, use)
}

func (r *tableReader) fetch(ctx context.Context, k cacheKey) ([]byte, error) {
	b, err := formats.ReadTable(ctx, r.src, k.place.pos, int(k.place.n))
	if err != nil {
		return nil, err
	}
	return b, r.keep(k, b)
}

// readCached reads a table of a local file if the kernel has it.
func (r *tableReader) readCached(k cacheKey) ([]byte, error) {
	if r.files == nil {
		return nil, formats.ErrWouldWait
	}
	f, ok := r.files.FileRange(k.place.pos, k.place.n)
	if !ok {
		return nil, formats.ErrWouldWait // also where the range makes no sense: the next read says so
	}
	defer f.Release()
	if f.Len < k.place.n {
		return nil, formats.ErrWouldWait
	}
	b := make([]byte, k.place.n)
	if !f.ReadCached(b) {
		return nil, formats.ErrWouldWait
	}
	return b, r.keep(k, b)
}

func (r *tableReader) keep(k cacheKey, b []byte) error {
	sh := r.t.shard(k)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r.life.Err() != nil {
		return formats.ErrClosed // its tables were dropped, and stay so
	}
	sh.cache.put(k, b, int64(len(b)))
	return nil
}

// Ahead implements formats.Tables. Tables of a local file are not read ahead: the
// kernel does that.
func (r *tableReader) Ahead(pos int64, n, each int) bool {
	if r.files != nil {
		if f, ok := r.files.FileRange(pos, 1); ok {
			f.Release()
			return true
		}
	}
	last := pos + int64((n-1)/each*each)
	_, first := r.cached(r.key(pos, min(n, each)), false)
	if _, all := r.cached(r.key(last, int(pos+int64(n)-last)), false); first && all {
		return true
	}
	select {
	case r.t.slots <- struct{}{}:
	default:
		return false
	}
	a := &tableFetch{pos: pos, end: pos + int64(n), done: make(chan struct{})}
	if !r.begin(a) {
		<-r.t.slots
		return true
	}
	go func() {
		defer r.background.Done()
		defer func() { <-r.t.slots }()
		defer r.ended(a)
		// A failure shows again when the table is read.
		if b, err := formats.ReadTable(r.life, r.src, pos, n); err == nil {
			for i := 0; i < n; i += each {
				one := slices.Clone(b[i:min(i+each, n)]) // kept and dropped alone
				r.keep(r.key(pos+int64(i), len(one)), one)
			}
		}
	}()
	return true
}

// tableFetch is a host range that is being read ahead.
type tableFetch struct {
	pos, end int64
	done     chan struct{}
}

// begin notes what is read ahead, unless it is already, or the reader is closed.
func (r *tableReader) begin(a *tableFetch) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || slices.ContainsFunc(r.fetches, func(o *tableFetch) bool { return o.pos <= a.pos && a.end <= o.end }) {
		return false
	}
	r.fetches = append(r.fetches, a)
	r.background.Add(1)
	return true
}

func (r *tableReader) ended(a *tableFetch) {
	close(a.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetches = slices.DeleteFunc(r.fetches, func(o *tableFetch) bool { return o == a })
}

// fetchAt is closed when the table at pos was read ahead; nil: it is not being.
func (r *tableReader) fetchAt(pos int64) <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.fetches {
		if a.pos <= pos && pos < a.end {
			return a.done
		}
	}
	return nil
}

// Close stops what is read ahead, and drops the source's tables from the cache.
func (r *tableReader) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.end()
	r.background.Wait()
	for i := range r.t.shards {
		sh := &r.t.shards[i]
		sh.mu.Lock()
		sh.cache.drop(r.id)
		sh.mu.Unlock()
	}
}

// withoutIO is the context of a map that is to be read from memory alone: what is
// not at hand is formats.ErrWouldWait.
var withoutIO context.Context = noIO{context.Background()}

type noIO struct{ context.Context }

func isWithoutIO(ctx context.Context) bool {
	_, is := ctx.(noIO)
	return is
}
