package formattest

import (
	"context"
	"errors"
	"runtime/metrics"
	"slices"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/engine"
)

// What a driver may spend on an image, however hostile, beside a few times the
// image's own size.
const (
	hostileMemory  = 32 << 20 // bytes allocated by Inspect, Open and the walk together
	hostileReads   = 4 << 20  // bytes read by them
	hostileExtents = 1 << 14  // how far the walk goes
	hostileTouched = 64 << 10 // bytes asked for by one guest read
)

// sentinels are what a driver's errors on bad content must wrap.
var sentinels = []error{
	formats.ErrFormat, formats.ErrCorrupt, formats.ErrUnsupported, formats.ErrReference,
	formats.ErrEncrypted, formats.ErrLimit, formats.ErrRange,
}

// FuzzOpen fuzzes a driver: it inspects and opens arbitrary bytes, walks the map,
// reads a few ranges, and asserts no panic, errors that wrap a sentinel, extents
// within the source and the range, and bounded memory and reads.
func FuzzOpen(f *testing.F, d formats.Driver, seeds ...[]byte) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, image []byte) { Walk(t, d, image) })
}

// Refuse checks that a hostile image is refused with want, at the first step
// that can see it: Inspect and Open, or, where the fault is in a table, the walk
// of the map or a read. It is what Walk checks as well.
func Refuse(t *testing.T, d formats.Driver, image []byte, want error) {
	t.Helper()
	err := Walk(t, d, image)
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// Walk does all that can be done with an image without references, within
// bounds, and is the first error. It is FuzzOpen for images that a fuzz target
// makes of its input: with checksums set right, so that what is behind them is
// reached.
func Walk(t *testing.T, d formats.Driver, image []byte) error {
	t.Helper()
	src := Memory(image)
	before := allocated()
	first := inspectAndWalk(t, d, src)
	if spent, most := allocated()-before, hostileMemory+8*uint64(len(image)); spent > most {
		t.Fatalf("an image of %d bytes made the driver allocate %d, more than %d", len(image), spent, most)
	}
	if spent, most := src.BytesRead(), hostileReads+4*int64(len(image)); spent > most {
		t.Fatalf("an image of %d bytes made the driver read %d, more than %d", len(image), spent, most)
	}
	if first != nil {
		mustBeSentinel(t, first)
	}
	if err := readSome(t, d, image); first == nil {
		first = err
	}
	return first
}

// inspectAndWalk inspects, opens and maps, and is the first error.
func inspectAndWalk(t *testing.T, d formats.Driver, src *Mem) (first error) {
	t.Helper()
	ctx := t.Context()
	info, inspected := d.Inspect(ctx, src)
	refused := inspected
	if refused == nil {
		refused = info.Refused
	}
	srcs := []stored.Bytes{src}
	l, opened := d.Open(ctx, src, formats.Options{Tables: keepTables})
	if opened == nil && onParent(l) && errors.Is(refused, formats.ErrReference) {
		refused = nil // a disk below is the engine's to ask for
		defer func() {
			if first == nil {
				first = info.Refused
			}
		}()
	}
	if (refused == nil) != (opened == nil) {
		t.Fatalf("Inspect says %v, Open says %v", refused, opened)
	}
	if opened != nil {
		for _, s := range sentinels {
			if errors.Is(refused, s) != errors.Is(opened, s) {
				t.Fatalf("Inspect says %v, Open says %v", refused, opened)
			}
		}
		return opened
	}
	defer l.Close()
	if l.Size() < 0 || l.Size() != info.VirtualSize {
		t.Fatalf("Size is %d, Inspect says %d", l.Size(), info.VirtualSize)
	}
	if more, ok := l.(formats.Sourcer); ok {
		srcs = append(srcs, more.Sources()...)
	}
	if c, ok := l.(formats.Checker); ok {
		if err := c.Check(ctx); err != nil {
			return err
		}
	}
	at, seen := int64(0), 0
	err := l.Map(ctx, 0, l.Size(), func(x formats.Extent) bool {
		if err := checkExtent(x, at, l.Size(), srcs); err != nil {
			t.Fatal(err)
		}
		at = x.End()
		seen++
		return seen < hostileExtents
	})
	if err == nil && at != l.Size() && seen < hostileExtents {
		t.Fatalf("the map ends at %d of %d without an error", at, l.Size())
	}
	return err
}

// keepTables keeps the tables that were read last, as the engine does.
func keepTables(src stored.Bytes) formats.Tables {
	return &kept{Tables: (&formats.Options{}).TablesOf(src), tables: map[[2]int64][]byte{}}
}

type kept struct {
	formats.Tables
	tables map[[2]int64][]byte // by place and length
}

func (k *kept) Read(ctx context.Context, pos int64, n int) ([]byte, error) {
	at := [2]int64{pos, int64(n)}
	if b, ok := k.tables[at]; ok {
		return b, nil
	}
	b, err := k.Tables.Read(ctx, pos, n)
	if err == nil {
		if len(k.tables) == 64 {
			clear(k.tables)
		}
		k.tables[at] = b
	}
	return b, err
}

// onParent reports whether a layout stands on another disk.
func onParent(l formats.Layout) bool {
	return slices.ContainsFunc(l.Info().Refs, formats.Ref.IsDisk)
}

// readSome reads a few ranges through an engine, and is the first error.
func readSome(t *testing.T, d formats.Driver, image []byte) error {
	t.Helper()
	ctx := t.Context()
	e := engine.New(engine.Options{CacheBytes: 1 << 20, TableBytes: 1 << 20, Workers: 1})
	defer e.Close()
	disk, err := e.Open(ctx, d, Memory(image), engine.OpenOptions{})
	if err != nil {
		return err
	}
	defer disk.Close()
	offsets := []int64{0, disk.Size() / 2, disk.Size() - hostileTouched}
	_ = disk.Extents(ctx, 0, disk.Size(), func(x formats.Extent) bool {
		if x.Kind.Stored() {
			offsets = append(offsets, x.Off)
		}
		return len(offsets) < 12
	})
	var first error
	p := make([]byte, hostileTouched)
	for _, off := range offsets {
		off = max(off, 0)
		if err := disk.ReadAt(ctx, p[:min(hostileTouched, disk.Size()-off)], off); err != nil {
			mustBeSentinel(t, err)
			if first == nil {
				first = err
			}
		}
	}
	return first
}

func mustBeSentinel(t *testing.T, err error) {
	t.Helper()
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return
		}
	}
	if errors.Is(err, context.Canceled) { // the test itself is ending
		return
	}
	t.Fatalf("%v: wraps none of the contract's errors", err)
}

// allocated is how many bytes the program has allocated so far.
func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}
