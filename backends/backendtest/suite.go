// Package backendtest is the contract of package backends as tests, for every
// store to pass, and a store that fails on demand.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"glanced/backends"
	"glanced/backends/stored"
)

// Suite runs the contract against one kind of store.
type Suite struct {
	// New opens an empty store; the suite closes it.
	New func(t testing.TB) backends.Store
	// List names what a store holds, half written objects too. Every test must
	// leave it empty.
	List func(t testing.TB, s backends.Store) []string
	// Big is the size in bytes of the largest object put; 0 = 9 MiB, some
	// buffers of every store here.
	Big int
}

// Run runs every test of the suite.
func (s Suite) Run(t *testing.T) {
	if s.Big == 0 {
		s.Big = 9<<20 + 4711
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, Suite, backends.Store)
	}{
		{"what is put reads back", testRoundTrip},
		{"the size may be unknown", testUnknownSize},
		{"an empty object is an object", testEmpty},
		{"reads fill the buffer or fail", testReadAt},
		{"reads run concurrently", testConcurrentReads},
		{"a body of another length than announced leaves nothing", testWrongSize},
		{"a body that fails leaves nothing", testFailingBody},
		{"a cancelled put leaves nothing", testCancelledPut},
		{"an existing key is kept as it is", testExists},
		{"of two puts of a key one wins", testRace},
		{"bad keys are refused", testBadKeys},
		{"what is not there is not found", testNotFound},
		{"foreign locations are refused", testForeignLocations},
		{"a deleted object never reads as other bytes", testDeleteWhileOpen},
		{"identities differ for different bytes", testIdentity},
		{"a key's location is known before it is put", testLocate},
		{"file ranges hold the object's bytes", testFileRange},
		{"extents cover the range and holes read as zeros", testExtents},
		{"usage makes sense", testUsage},
		{"reading stops when the context has ended", testReadContext},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := s.New(t)
			c.test(t, s, store)
			if left := s.List(t, store); len(left) > 0 {
				t.Errorf("left in the store: %v", left)
			}
			if err := store.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// Noise is n bytes without zero blocks, the same for the same seed.
func Noise(seed byte, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

func put(t testing.TB, s backends.Store, key string, content []byte) backends.Location {
	t.Helper()
	loc, err := s.Put(t.Context(), key, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return loc
}

func open(t testing.TB, s backends.Store, loc backends.Location) stored.Bytes {
	t.Helper()
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return b
}

func remove(t testing.TB, s backends.Store, loc backends.Location) {
	t.Helper()
	if err := s.Delete(context.WithoutCancel(t.Context()), loc); err != nil {
		t.Errorf("delete: %v", err)
	}
}

func wantContent(t testing.TB, b stored.Bytes, want []byte) {
	t.Helper()
	if b.Size() != int64(len(want)) {
		t.Fatalf("size %d, want %d", b.Size(), len(want))
	}
	got := make([]byte, len(want))
	if err := b.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatalf("read: %v", err)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes than were put")
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func testRoundTrip(t *testing.T, suite Suite, s backends.Store) {
	// Noise, a long hole in the middle and at the end, and an odd length.
	content := Noise(1, suite.Big)
	clear(content[suite.Big/3 : suite.Big/2])
	clear(content[suite.Big-200_000:])
	loc := put(t, s, "an-image", content)
	defer remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	wantContent(t, b, content)
}

func testUnknownSize(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(2, suite.Big)
	// Small reads, with the end told together with the last bytes.
	loc, err := s.Put(t.Context(), "k", iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(content))), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	wantContent(t, b, content)
}

func testEmpty(t *testing.T, _ Suite, s backends.Store) {
	for _, size := range []int64{0, -1} {
		loc, err := s.Put(t.Context(), "empty", bytes.NewReader(nil), size)
		if err != nil {
			t.Fatal(err)
		}
		b := open(t, s, loc)
		wantContent(t, b, nil)
		b.Close()
		remove(t, s, loc)
	}
}

func testReadAt(t *testing.T, _ Suite, s backends.Store) {
	content := Noise(3, 100_000)
	loc := put(t, s, "k", content)
	defer remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	for _, r := range []struct{ off, n int64 }{{0, 1}, {99_999, 1}, {4095, 4098}, {100_000, 0}, {0, 100_000}} {
		p := make([]byte, r.n)
		if err := b.ReadAt(t.Context(), p, r.off); err != nil || !bytes.Equal(p, content[r.off:r.off+r.n]) {
			t.Errorf("%d bytes at %d: %v, or other bytes", r.n, r.off, err)
		}
	}
	for _, r := range []struct{ off, n int64 }{{-1, 1}, {100_000, 1}, {99_999, 2}, {1<<63 - 1, 1}} {
		wantErr(t, b.ReadAt(t.Context(), make([]byte, r.n), r.off), backends.ErrRange)
	}
}

func testConcurrentReads(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(4, suite.Big)
	loc := put(t, s, "k", content)
	defer remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 50 {
				off := r.IntN(len(content))
				p := make([]byte, r.IntN(min(1<<17, len(content)-off)))
				if err := b.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, content[off:off+len(p)]) {
					t.Errorf("%d bytes at %d: %v, or other bytes", len(p), off, err)
				}
			}
		})
	}
	wg.Wait()
}

func testWrongSize(t *testing.T, _ Suite, s backends.Store) {
	for _, n := range []int{0, 10, 70_000, 3 << 20} {
		content := Noise(5, n)
		_, err := s.Put(t.Context(), "k", bytes.NewReader(content), int64(n)+1)
		wantErr(t, err, backends.ErrShort)
		if n > 0 {
			_, err = s.Put(t.Context(), "k", bytes.NewReader(content), int64(n)-1)
			wantErr(t, err, backends.ErrLong)
		}
	}
}

func testFailingBody(t *testing.T, suite Suite, s backends.Store) {
	// io.ErrUnexpectedEOF is what net/http says when a client hangs up: no good end.
	for _, cause := range []error{errors.New("the client is gone"), io.ErrUnexpectedEOF} {
		for _, n := range []int{0, 100_000, suite.Big} {
			for _, size := range []int64{-1, int64(n), int64(n) + 1} {
				_, err := s.Put(t.Context(), "k", io.MultiReader(bytes.NewReader(Noise(6, n)), iotest.ErrReader(cause)), size)
				wantErr(t, err, cause)
			}
		}
	}
}

func testCancelledPut(t *testing.T, suite Suite, s backends.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	content := Noise(7, suite.Big)
	cut := len(content) / 2
	_, err := s.Put(ctx, "k", io.MultiReader(bytes.NewReader(content[:cut]), readFunc(func(p []byte) (int, error) {
		cancel()
		return 0, io.EOF
	}), bytes.NewReader(content[cut:])), int64(len(content)))
	wantErr(t, err, context.Canceled)
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func testExists(t *testing.T, _ Suite, s backends.Store) {
	content := Noise(8, 5000)
	loc := put(t, s, "k", content)
	defer remove(t, s, loc)
	_, err := s.Put(t.Context(), "k", bytes.NewReader(Noise(9, 5000)), 5000)
	wantErr(t, err, backends.ErrExists)
	b := open(t, s, loc)
	defer b.Close()
	wantContent(t, b, content)
}

func testRace(t *testing.T, _ Suite, s backends.Store) {
	const n = 4
	var wg sync.WaitGroup
	var mu sync.Mutex
	var won []byte
	var where backends.Location
	for i := range n {
		wg.Go(func() {
			content := Noise(byte(10+i), 2<<20)
			loc, err := s.Put(t.Context(), "k", bytes.NewReader(content), -1)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				wantErr(t, err, backends.ErrExists)
			} else if won != nil {
				t.Error("two puts of one key succeeded")
			} else {
				won, where = content, loc
			}
		})
	}
	wg.Wait()
	if won == nil {
		t.Fatal("no put succeeded")
	}
	defer remove(t, s, where)
	b := open(t, s, where)
	defer b.Close()
	wantContent(t, b, won)
}

func testBadKeys(t *testing.T, _ Suite, s backends.Store) {
	for _, key := range []string{"", ".", "..", ".hidden", "a/b", "../a", "/a", "a\x00b", string(make([]byte, 5000))} {
		if _, err := s.Put(t.Context(), key, bytes.NewReader([]byte("x")), 1); err == nil {
			t.Errorf("key %q was taken", key)
		}
	}
}

func testNotFound(t *testing.T, _ Suite, s backends.Store) {
	loc := put(t, s, "k", []byte("x"))
	remove(t, s, loc)
	_, err := s.Open(t.Context(), loc)
	wantErr(t, err, backends.ErrNotFound)
	wantErr(t, s.Delete(t.Context(), loc), backends.ErrNotFound)
}

func testForeignLocations(t *testing.T, _ Suite, s backends.Store) {
	loc := put(t, s, "k", []byte("x"))
	defer remove(t, s, loc)
	for _, bad := range []backends.Location{
		{},
		{Store: loc.Store + "-other", URL: loc.URL},
		{Store: loc.Store, URL: "k"},
		{Store: loc.Store, URL: "unknown://" + "somewhere/k"},
		{Store: loc.Store, URL: loc.URL + "/../k"},
		{Store: loc.Store, URL: loc.URL + "/k"},
		{Store: loc.Store, URL: "\x00"},
	} {
		_, err := s.Open(t.Context(), bad)
		wantErr(t, err, backends.ErrBadLocation)
		wantErr(t, s.Delete(t.Context(), bad), backends.ErrBadLocation)
	}
}

func testDeleteWhileOpen(t *testing.T, _ Suite, s backends.Store) {
	content := Noise(14, 1<<20)
	loc := put(t, s, "k", content)
	b := open(t, s, loc)
	defer b.Close()
	remove(t, s, loc)
	second := put(t, s, "k", Noise(15, 1<<20))
	defer remove(t, s, second)
	p := make([]byte, len(content))
	switch err := b.ReadAt(t.Context(), p, 0); {
	case err == nil:
		if !bytes.Equal(p, content) {
			t.Error("the deleted object reads as its successor")
		}
	case !errors.Is(err, backends.ErrChanged) && !errors.Is(err, backends.ErrNotFound):
		t.Errorf("error %v, want ErrChanged or ErrNotFound", err)
	}
}

func testIdentity(t *testing.T, _ Suite, s backends.Store) {
	seen := map[stored.Identity]bool{}
	for i := range 3 {
		loc := put(t, s, fmt.Sprintf("k%d", i), Noise(byte(16+i), 5000))
		defer remove(t, s, loc)
		b := open(t, s, loc)
		if b.Identity() == "" || seen[b.Identity()] {
			t.Errorf("identity %q is empty or not new", b.Identity())
		}
		seen[b.Identity()] = true
		again := open(t, s, loc)
		if again.Identity() != b.Identity() {
			t.Errorf("identity %q, then %q of the same bytes", b.Identity(), again.Identity())
		}
		b.Close()
		again.Close()
	}
}

func testLocate(t *testing.T, _ Suite, s backends.Store) {
	l, ok := backends.As[backends.Locator](s)
	if !ok {
		t.Skip("not a Locator")
	}
	before := l.Locate("k with space%41")
	loc := put(t, s, "k with space%41", []byte("x"))
	remove(t, s, before)
	if before != loc {
		t.Errorf("located at %v, put at %v", before, loc)
	}
}

func testFileRange(t *testing.T, _ Suite, s backends.Store) {
	content := Noise(20, 300_000)
	loc := put(t, s, "k", content)
	defer remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	fr, ok := stored.As[stored.FileRanger](b)
	if !ok {
		t.Skip("not a FileRanger")
	}
	if r, ok := fr.FileRange(1000, 250_000); ok {
		p := make([]byte, r.Len)
		if _, err := r.File.ReadAt(p, r.Pos); err != nil || len(p) == 0 || !bytes.Equal(p, content[1000:][:len(p)]) {
			t.Errorf("the file's range: %v, or other bytes", err)
		}
		r.Release()
	}
	if _, ok := fr.FileRange(299_999, 2); ok {
		t.Error("a range past the end was given")
	}
}

func testExtents(t *testing.T, _ Suite, s backends.Store) {
	content := make([]byte, 4<<20+100)
	copy(content[1<<20:], Noise(21, 1<<20))
	copy(content[3<<20+5000:], Noise(22, 10))
	loc := put(t, s, "k", content)
	defer remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	ex, ok := stored.As[stored.Extenter](b)
	if !ok {
		t.Skip("not an Extenter")
	}
	r := rand.New(rand.NewPCG(2, 3))
	for range 100 {
		off := r.Int64N(b.Size())
		end := off + r.Int64N(b.Size()-off)
		at := off
		err := ex.Extents(t.Context(), off, end-off, func(o, n int64, hole bool) bool {
			if o != at || n <= 0 || o+n > end {
				t.Fatalf("run of %d at %d of range [%d, %d), expected at %d", n, o, off, end, at)
			}
			if hole && !bytes.Equal(content[o:o+n], make([]byte, n)) {
				t.Fatalf("data at [%d, %d) is told to be a hole", o, o+n)
			}
			at = o + n
			return true
		})
		if err != nil || at != end {
			t.Fatalf("extents of [%d, %d) end at %d: %v", off, end, at, err)
		}
	}
	calls := 0
	if err := ex.Extents(t.Context(), 0, b.Size(), func(_, _ int64, _ bool) bool { calls++; return false }); err != nil || calls != 1 {
		t.Errorf("%d calls after yield said stop, error %v", calls, err)
	}
	wantErr(t, ex.Extents(t.Context(), 1, b.Size(), nil), backends.ErrRange)
}

func testUsage(t *testing.T, _ Suite, s backends.Store) {
	u, err := s.Usage(t.Context())
	if err != nil || u.Total < -1 || u.Free < -1 || u.Total >= 0 && u.Free > u.Total {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func testReadContext(t *testing.T, _ Suite, s backends.Store) {
	loc := put(t, s, "k", Noise(23, 100))
	defer remove(t, s, loc)
	b := open(t, s, loc)
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantErr(t, b.ReadAt(ctx, make([]byte, 10), 0), context.Canceled)
}
