package formats

import (
	"context"
	"fmt"
	"sync/atomic"

	"glanced/backends/stored"
)

// Tables reads the metadata tables of one source (qcow2 L2, vmdk grain tables, …).
// The engine's keeps them in a cache that all disks share. Safe for concurrent use.
type Tables interface {
	// Read returns n bytes of the source at pos. They are shared: not to be
	// changed. Its errors are those of ReadTable, and ErrWouldWait where the caller
	// asked for a map without I/O.
	Read(ctx context.Context, pos int64, n int) ([]byte, error)
	// Ahead is told of tables that will be read soon: they follow one another from
	// pos on, each of them that long, n bytes in all and at most 256 KiB. It waits for
	// nothing. It is false where too much is being read ahead: worth asking again.
	Ahead(pos int64, n, each int) bool
	Close()
}

// maxTable bounds one table, bytes. The largest that formats define per entry of
// the level above are a cluster of qcow2, 2 MiB; longer ones are read in parts.
const maxTable = 2 << 20

// ReadTable reads n bytes of src at pos. It fails with ErrCorrupt where src ends
// before that, and with ErrLimit for n over 2 MiB.
func ReadTable(ctx context.Context, src stored.Bytes, pos int64, n int) ([]byte, error) {
	if size := src.Size(); pos < 0 || n < 0 || pos > size-int64(n) {
		return nil, fmt.Errorf("%w: a table of %d bytes at %d passes the end of the image (%d bytes)", ErrCorrupt, n, pos, size)
	}
	if n > maxTable {
		return nil, fmt.Errorf("%w: a table of %d bytes at %d; the most is %d", ErrLimit, n, pos, maxTable)
	}
	b := make([]byte, n)
	if err := src.ReadAt(ctx, b, pos); err != nil {
		return nil, fmt.Errorf("read a table of %d bytes at %d: %w", n, pos, err)
	}
	return b, nil
}

// TablesOf is how src's tables are read: as o says, or uncached.
func (o *Options) TablesOf(src stored.Bytes) Tables {
	if o.Tables == nil {
		return uncached{src}
	}
	return o.Tables(src)
}

type uncached struct{ src stored.Bytes }

func (u uncached) Read(ctx context.Context, pos int64, n int) ([]byte, error) {
	return ReadTable(ctx, u.src, pos, n)
}
func (u uncached) Ahead(int64, int, int) bool { return true }
func (u uncached) Close()                     {}

// MaxAhead is how many bytes of tables one Tables.Ahead asks for.
const MaxAhead = 256 << 10

// LongTable is a table that is read in slices, each of them a table of Tables.
type LongTable struct {
	Tables   Tables
	Pos, End int64 // host range of all of it
	Each     int   // bytes of a slice, a power of two; the last one may be shorter

	short atomic.Pointer[[]byte] // all of it, once read, where it has at most shortTable bytes
}

// shortTable is the longest LongTable that is kept for as long as the disk is open: every
// read begins at it, and it takes no more than the open disk does beside. It is the L1
// table of a qcow2 of 64 GiB.
const shortTable = 1 << 10

// Slice returns slice i. Those that a walk up to host offset until will want next
// are read ahead.
func (t *LongTable) Slice(ctx context.Context, i, until int64) ([]byte, error) {
	if b := t.short.Load(); b != nil && i == 0 {
		return *b, nil
	}
	each := int64(t.Each)
	pos := t.Pos + i*each
	until = min(until, t.End)
	for at, parts := pos+each, 0; at < until && parts < 3; parts++ {
		next := min(at-(at-t.Pos)%MaxAhead+MaxAhead, t.End) // parts are the same for whoever walks
		if !t.Tables.Ahead(at, int(next-at), t.Each) {
			break
		}
		at = next
	}
	b, err := t.Tables.Read(ctx, pos, int(min(each, t.End-pos)))
	if err == nil && t.End-t.Pos <= min(shortTable, each) {
		all := b
		t.short.Store(&all)
	}
	return b, err
}
