package formats

import (
	"container/list"
	"context"
	"fmt"
	"sync"
)

// Tables is a cache of metadata tables (qcow2 L2, vmdk grain tables, …) shared
// by every open layout and bounded in bytes. Safe for concurrent use.
type Tables struct {
	budget int64

	mu   sync.Mutex
	used int64
	lru  list.List // of *table, most recent in front
	byID map[tableID]*list.Element
}

// TableReader reads the tables of one source through a Tables.
type TableReader struct {
	t   *Tables
	src Source
}

type tableID struct {
	r   *TableReader
	pos int64
	n   int
}

type table struct {
	id    tableID
	bytes []byte
}

// privateTables is the budget of a layout that was given no shared cache.
const privateTables = 4 << 20

// NewTables makes a cache of at most budget bytes (the most recent table stays,
// even if it alone is larger).
func NewTables(budget int64) *Tables {
	return &Tables{budget: budget, byID: make(map[tableID]*list.Element)}
}

// Reader makes src's tables readable through t; t may be nil, for a small
// private cache. Close it with the layout.
func (t *Tables) Reader(src Source) *TableReader {
	if t == nil {
		t = NewTables(privateTables)
	}
	return &TableReader{t: t, src: src}
}

// Read returns n bytes of the source at pos. The slice is shared: it must not be
// changed. Two callers that miss at once both read; tables are small and the
// second insert is dropped.
func (r *TableReader) Read(ctx context.Context, pos int64, n int) ([]byte, error) {
	id := tableID{r, pos, n}
	r.t.mu.Lock()
	if el, ok := r.t.byID[id]; ok {
		r.t.lru.MoveToFront(el)
		b := el.Value.(*table).bytes
		r.t.mu.Unlock()
		return b, nil
	}
	r.t.mu.Unlock()

	if pos < 0 || n < 0 || pos > r.src.Size()-int64(n) {
		return nil, fmt.Errorf("%w: a table of %d bytes at %d passes the end of the image (%d bytes)", ErrCorrupt, n, pos, r.src.Size())
	}
	b := make([]byte, n)
	if err := r.src.ReadAt(ctx, b, pos); err != nil {
		return nil, fmt.Errorf("read a table of %d bytes at %d: %w", n, pos, err)
	}
	r.t.add(&table{id, b})
	return b, nil
}

// Close drops the source's tables from the cache.
func (r *TableReader) Close() {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	for id, el := range r.t.byID {
		if id.r == r {
			r.t.drop(el)
		}
	}
}

func (t *Tables) add(tb *table) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.byID[tb.id]; ok {
		return
	}
	t.byID[tb.id] = t.lru.PushFront(tb)
	t.used += int64(len(tb.bytes))
	for t.used > t.budget && t.lru.Len() > 1 {
		t.drop(t.lru.Back())
	}
}

func (t *Tables) drop(el *list.Element) {
	tb := t.lru.Remove(el).(*table)
	delete(t.byID, tb.id)
	t.used -= int64(len(tb.bytes))
}
