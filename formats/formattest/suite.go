// Package formattest is the contract of package formats as a test suite, and the
// harness that compares a driver with qemu-img. A driver's test fills in a Suite
// (contract), lists Variants (golden), and hands seeds to FuzzOpen.
//
// It is for tests only.
package formattest

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
)

// Suite says what to test a driver with.
type Suite struct {
	Driver formats.Driver
	// Image makes a small valid image with data and holes in it, without
	// references. It is called once for each test.
	Image func(t *testing.T) []byte

	// How the driver treats names of other files found inside an image: exactly
	// one of the two must be filled in, so that no driver forgets to say.
	References   []Reference
	NoReferences string // why this format has none
}

// Reference is an image that names another file.
type Reference struct {
	Name  string
	Image func(t *testing.T) []byte
	Ref   formats.Ref // what Inspect must report, and a Resolver be asked for
	// Unresolvable: the driver refuses such images whatever a Resolver says.
	Unresolvable bool
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	t.Run("OpensWhatItInspects", s.opensWhatItInspects)
	t.Run("MapIsContiguousAndClipped", s.mapIsContiguousAndClipped)
	t.Run("MapOfAPartAgreesWithTheWhole", s.mapOfAPartAgreesWithTheWhole)
	t.Run("MapStopsWhenToldTo", s.mapStopsWhenToldTo)
	t.Run("MapRefusesRangesOutsideTheDisk", s.mapRefusesRangesOutsideTheDisk)
	t.Run("MapIsSafeForConcurrentUse", s.mapIsSafeForConcurrentUse)
	t.Run("MapReadsThroughTables", s.mapReadsThroughTables)
	t.Run("CloseLeavesTheSourcesOpen", s.closeLeavesTheSourcesOpen)
	t.Run("PassesOnReadErrors", s.passesOnReadErrors)
	t.Run("RefusesOtherContent", s.refusesOtherContent)
	t.Run("RefusesUnknownSnapshot", s.refusesUnknownSnapshot)
	t.Run("SurvivesTruncation", s.survivesTruncation)
	t.Run("References", s.references)
}

// open opens a fresh Image through the driver, closed with the test.
func (s Suite) open(t *testing.T) (formats.Layout, *Mem) {
	t.Helper()
	src := Memory(s.Image(t))
	l, err := s.Driver.Open(t.Context(), src, formats.Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return l, src
}

func (s Suite) opensWhatItInspects(t *testing.T) {
	image := s.Image(t)
	if s.Driver.Probe != nil && !s.Driver.Probe(image[:min(len(image), formats.ProbeLen)]) {
		t.Error("Probe does not recognise the image")
	}
	info, err := s.Driver.Inspect(t.Context(), Memory(image))
	if err != nil {
		t.Fatalf("Inspect: %v", err)
	}
	if info.Refused != nil {
		t.Errorf("Inspect refuses a valid image: %v", info.Refused)
	}
	if info.Format != s.Driver.Name {
		t.Errorf("Inspect says format %q, the driver is called %q", info.Format, s.Driver.Name)
	}
	l, _ := s.open(t)
	if !reflect.DeepEqual(info, l.Info()) {
		t.Errorf("Inspect says\n%+v, the open layout\n%+v", info, l.Info())
	}
	if l.Size() != info.VirtualSize {
		t.Errorf("Size is %d, Inspect says %d", l.Size(), info.VirtualSize)
	}
	if len(info.Refs) > 0 {
		t.Errorf("an image without references has %+v", info.Refs)
	}
}

func (s Suite) mapIsContiguousAndClipped(t *testing.T) {
	l, src := s.open(t)
	whole := wholeMap(t, l, src)
	if !slices.ContainsFunc(whole, func(x formats.Extent) bool { return x.Kind.Stored() }) {
		t.Error("the suite's image has no data: it proves nothing")
	}
}

func (s Suite) mapOfAPartAgreesWithTheWhole(t *testing.T) {
	l, src := s.open(t)
	whole := wholeMap(t, l, src)
	check := func(off, n int64) {
		t.Helper()
		part, err := mapRange(t.Context(), l, []stored.Bytes{src}, off, n)
		if err != nil {
			t.Fatalf("Map(%d, %d): %v", off, n, err)
		}
		if got, want := merge(part), merge(clip(whole, off, n)); !slices.Equal(got, want) {
			t.Fatalf("Map(%d, %d) says\n%+v, the whole map says\n%+v", off, n, got, want)
		}
	}
	for _, x := range whole { // around every border
		for _, off := range []int64{x.Off - 1, x.Off, x.Off + 1, x.End() - 1} {
			if off >= 0 {
				check(off, min(3, l.Size()-off))
			}
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		off := rnd.Int64N(l.Size())
		check(off, rnd.Int64N(l.Size()-off+1))
	}
}

func (s Suite) mapStopsWhenToldTo(t *testing.T) {
	l, src := s.open(t)
	for stop := range len(wholeMap(t, l, src)) {
		calls := 0
		err := l.Map(t.Context(), 0, l.Size(), func(formats.Extent) bool {
			calls++
			return calls <= stop
		})
		if err != nil {
			t.Fatalf("Map stopped after %d extents: %v", stop, err)
		}
		if calls != stop+1 {
			t.Fatalf("yield said stop at call %d, and was called %d times", stop+1, calls)
		}
	}
}

func (s Suite) mapRefusesRangesOutsideTheDisk(t *testing.T) {
	l, _ := s.open(t)
	size := l.Size()
	for _, r := range [][2]int64{
		{-1, 1}, {0, -1}, {size, 1}, {size + 1, 0}, {0, size + 1}, {size - 1, 2},
		{math.MaxInt64, 1}, {1, math.MaxInt64}, {math.MaxInt64, math.MaxInt64}, {math.MinInt64, 0},
	} {
		err := l.Map(t.Context(), r[0], r[1], func(x formats.Extent) bool {
			t.Errorf("Map(%d, %d) yields %+v", r[0], r[1], x)
			return false
		})
		if !errors.Is(err, formats.ErrRange) {
			t.Errorf("Map(%d, %d) of a disk of %d: %v, want ErrRange", r[0], r[1], size, err)
		}
	}
	for _, off := range []int64{0, size} {
		if err := l.Map(t.Context(), off, 0, func(x formats.Extent) bool {
			t.Errorf("Map(%d, 0) yields %+v", off, x)
			return true
		}); err != nil {
			t.Errorf("Map(%d, 0): %v", off, err)
		}
	}
}

func (s Suite) mapIsSafeForConcurrentUse(t *testing.T) {
	l, src := s.open(t)
	want := wholeMap(t, l, src)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				got, err := mapRange(t.Context(), l, []stored.Bytes{src}, 0, l.Size())
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("a concurrent Map differs (%v)", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// mapReadsThroughTables: the engine could not map without I/O if Map read elsewhere.
func (s Suite) mapReadsThroughTables(t *testing.T) {
	src := Memory(s.Image(t))
	tables := &countedTables{src: src}
	l, err := s.Driver.Open(t.Context(), src, formats.Options{Tables: func(b stored.Bytes) formats.Tables {
		tables.Tables = (&formats.Options{}).TablesOf(b)
		return tables
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := src.Reads()
	tables.reads = 0
	if err := l.Map(t.Context(), 0, l.Size(), func(formats.Extent) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if n := src.Reads() - before; n != tables.reads {
		t.Errorf("Map made %d reads, %d of them through its tables", n, tables.reads)
	}
}

// countedTables counts the reads of src that are made through it.
type countedTables struct {
	formats.Tables
	src   *Mem
	reads int64
}

func (c *countedTables) Read(ctx context.Context, pos int64, n int) ([]byte, error) {
	before := c.src.Reads()
	b, err := c.Tables.Read(ctx, pos, n)
	c.reads += c.src.Reads() - before
	return b, err
}

func (s Suite) closeLeavesTheSourcesOpen(t *testing.T) {
	src := Memory(s.Image(t))
	l, err := s.Driver.Open(t.Context(), src, formats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if n := src.closed.Load(); n != 0 {
		t.Errorf("the layout closed its source %d times; it does not own it", n)
	}
}

func (s Suite) passesOnReadErrors(t *testing.T) {
	image := s.Image(t)
	for n := int64(1); n < 200; n++ {
		src := Memory(image)
		src.FailFrom(n)
		_, err := s.Driver.Inspect(t.Context(), src)
		failed := src.Reads() >= n
		if failed != errors.Is(err, ErrInjected) {
			t.Fatalf("Inspect with read %d failing: %v", n, err)
		}
		src = Memory(image)
		src.FailFrom(n)
		l, err := s.Driver.Open(t.Context(), src, formats.Options{})
		if err == nil {
			err = l.Map(t.Context(), 0, l.Size(), func(formats.Extent) bool { return true })
			l.Close()
		}
		if !failed && src.Reads() < n {
			return // neither reads that often: all read errors were tried
		}
		if (src.Reads() >= n) != errors.Is(err, ErrInjected) {
			t.Fatalf("Open and Map with read %d failing: %v", n, err)
		}
	}
}

func (s Suite) refusesOtherContent(t *testing.T) {
	if s.Driver.Probe == nil {
		return // any content is of such a format
	}
	noise := make([]byte, 256<<10)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	for name, b := range map[string][]byte{"empty": nil, "one byte": {'Q'}, "zeros": make([]byte, 256<<10), "noise": noise} {
		if s.Driver.Probe(b[:min(len(b), formats.ProbeLen)]) {
			t.Errorf("Probe recognises %s", name)
		}
		if _, err := s.Driver.Inspect(t.Context(), Memory(b)); !errors.Is(err, formats.ErrFormat) {
			t.Errorf("Inspect of %s: %v, want ErrFormat", name, err)
		}
		if _, err := s.Driver.Open(t.Context(), Memory(b), formats.Options{}); !errors.Is(err, formats.ErrFormat) {
			t.Errorf("Open of %s: %v, want ErrFormat", name, err)
		}
	}
}

func (s Suite) refusesUnknownSnapshot(t *testing.T) {
	src := Memory(s.Image(t))
	l, err := s.Driver.Open(t.Context(), src, formats.Options{Snapshot: "no such snapshot"})
	if err == nil {
		l.Close()
	}
	if !errors.Is(err, formats.ErrSnapshot) {
		t.Errorf("Open of a snapshot that does not exist: %v, want ErrSnapshot", err)
	}
}

// survivesTruncation opens every length of an image: it may fail, with a
// sentinel; it may not panic, and may not map past the end.
func (s Suite) survivesTruncation(t *testing.T) {
	image := s.Image(t)
	for n := 0; n < len(image); n += 1 + n/64 {
		Walk(t, s.Driver, image[:n])
	}
}

func (s Suite) references(t *testing.T) {
	if (len(s.References) == 0) == (s.NoReferences == "") {
		t.Fatal("the suite must say how the driver treats names of other files: fill in References, or NoReferences with the reason")
	}
	for _, ref := range s.References {
		t.Run(ref.Name, func(t *testing.T) { s.reference(t, ref) })
	}
}
