// Package backendtest is the contract of package backends as tests, for every
// store to pass; a wrapper that makes any store fail on demand (Faulty); and a store
// in memory that behaves as one that is far away (Far).
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"glanced/backends"
	"glanced/backends/stored"
)

// Suite runs the contract against one kind of store.
type Suite struct {
	// New opens an empty store; the suite closes it.
	New func(t testing.TB) backends.Store
	// Again opens one more store on the place of s, as another process or the next
	// one would; the suite closes it.
	Again func(t testing.TB, s backends.Store) backends.Store
	// List names what a store holds, half written objects too. Every test must
	// leave it empty.
	List func(t testing.TB, s backends.Store) []string
	// Copy copies all that s holds to another place, as a backup and a restore do:
	// the store there, and where the object at loc lies in it, neither size nor
	// version recorded. The suite closes it. nil: such a store cannot be copied.
	Copy func(t testing.TB, s backends.Store, loc backends.Location) (backends.Store, backends.Location)
	// Replace puts other content in the place of the object at loc, as an operator
	// could. nil: nobody can.
	Replace func(t testing.TB, s backends.Store, loc backends.Location, content []byte)
	// Put and Remove are for a store of objects that others keep, which takes no
	// uploads and deletes nothing: they put content under a key, and take an object
	// away, as those others do. Put says where it is, and nothing else. nil: the
	// store does both.
	Put    func(t testing.TB, s backends.Store, key string, content []byte) backends.Location
	Remove func(t testing.TB, s backends.Store, loc backends.Location)
	// Big is the size in bytes of the largest object put; 0 = 9 MiB, some
	// buffers of every store here.
	Big int
}

// Run runs every test of the suite.
func (s Suite) Run(t *testing.T) {
	if s.Big == 0 {
		s.Big = 9<<20 + 4711
	}
	type test struct {
		name string
		test func(*testing.T, Suite, backends.Store)
	}
	uploads := []test{
		{"what is put reads back", testRoundTrip},
		{"the size may be unknown", testUnknownSize},
		{"an empty object is an object", testEmpty},
		{"bytes come in any pieces", testPieces},
		{"a body of another length than announced leaves nothing", testWrongSize},
		{"a body that fails leaves nothing", testFailingBody},
		{"a cancelled upload leaves nothing", testCancelled},
		{"an existing key is kept as it is", testExists},
		{"of uploads of a key one wins", testRace},
		{"bad keys are refused", testBadKeys},
		{"a commit may be repeated", testCommitAgain},

		{"an abandoned upload leaves nothing", testAbandon},
		{"an abandon leaves a successor alone", testAbandonSuccessor},
		{"an abort leaves a rival alone", testAbortRival},
		{"an abandon among others leaves a successor alone", testAbandonRace},
		{"no two claims are the same", testClaimsDiffer},
		{"foreign claims are refused", testForeignClaims},
	}
	if s.foreign() {
		uploads = []test{{"nothing is written or deleted", testForeign}}
	}
	for _, c := range append(uploads, []test{
		{"what is not there is not found", testNotFound},
		{"foreign locations are refused", testForeignLocations},
		{"stat completes a location", testStat},
		{"another size or version is a change", testChecked},
		{"a location is not its successor's", testSuccessorsLocation},
		{"what was replaced is noticed", testReplaced},
		{"a copy has the same version", testCopy},
		{"identities differ for different bytes", testIdentity},

		{"reads fill the buffer or fail", testReadAt},
		{"reads run concurrently", testConcurrentReads},
		{"reading stops when the context has ended", testReadContext},
		{"a deleted object never reads as other bytes", testDeleteWhileOpen},
		{"file ranges hold the object's bytes", testFileRange},
		{"extents cover the range and holes read as zeros", testExtents},
		{"usage makes sense", testUsage},
	}...) {
		t.Run(c.name, func(t *testing.T) {
			store := s.New(t)
			c.test(t, s, store)
			s.wantEmpty(t, store, "at the end")
			if err := store.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

func (s Suite) wantEmpty(t testing.TB, store backends.Store, when string) {
	t.Helper()
	if left := s.List(t, store); len(left) > 0 {
		t.Errorf("left in the store %s: %v", when, left)
	}
}

// Noise is n bytes without zero blocks, the same for the same seed.
func Noise(seed byte, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// Put stores all of r under key, or nothing.
func Put(ctx context.Context, s backends.Store, key string, r io.Reader, size int64) (backends.Location, error) {
	w, err := s.Begin(ctx, key, size)
	if err != nil {
		return backends.Location{}, err
	}
	var loc backends.Location
	if _, err = backends.Copy(w, r, size); err == nil {
		loc, err = w.Commit(ctx)
	}
	if err != nil {
		return backends.Location{}, errors.Join(err, w.Abort(context.WithoutCancel(ctx)))
	}
	return loc, nil
}

// foreign tells that the store's objects are kept by others.
func (s Suite) foreign() bool { return s.Put != nil }

// deletion is what a Delete says that would be err in a store that deletes.
func (s Suite) deletion(err error) error {
	if s.foreign() {
		return backends.ErrForeign
	}
	return err
}

// put is the package's put, by whoever keeps the store's objects.
func (s Suite) put(t testing.TB, store backends.Store, key string, content []byte) backends.Location {
	t.Helper()
	if !s.foreign() {
		return put(t, store, key, content)
	}
	loc, err := store.Stat(t.Context(), s.Put(t, store, key, content))
	if err != nil {
		t.Fatalf("look at %s, put by others: %v", key, err)
	}
	return loc
}

// remove is the package's remove, by whoever keeps the store's objects.
func (s Suite) remove(t testing.TB, store backends.Store, loc backends.Location) {
	t.Helper()
	if !s.foreign() {
		remove(t, store, loc)
		return
	}
	s.Remove(t, store, loc)
}

// testForeign is what a store says to who wants to change what is not its own.
func testForeign(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(1, 5000)
	loc := suite.put(t, s, "k", content)
	defer suite.remove(t, s, loc)
	for _, key := range []string{"k", "another"} {
		w, err := s.Begin(t.Context(), key, -1)
		wantErr(t, err, backends.ErrReadOnly)
		if w != nil {
			t.Error("an upload has begun")
		}
	}
	for _, c := range []backends.Claim{"", "k", "1:key=k", backends.Claim(loc.URL)} {
		wantErr(t, s.Abandon(t.Context(), c), backends.ErrBadLocation)
	}
	for _, l := range []backends.Location{loc, bare(loc)} {
		wantErr(t, s.Delete(t.Context(), l), backends.ErrForeign)
	}
	wantStored(t, s, loc, content)
}

func put(t testing.TB, s backends.Store, key string, content []byte) backends.Location {
	t.Helper()
	loc, err := Put(t.Context(), s, key, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return loc
}

func begin(t testing.TB, s backends.Store, key string, size int64) backends.Writer {
	t.Helper()
	w, err := s.Begin(t.Context(), key, size)
	if err != nil {
		t.Fatalf("begin %s: %v", key, err)
	}
	return w
}

func write(t testing.TB, w backends.Writer, p []byte) {
	t.Helper()
	if n, err := w.Write(p); n != len(p) || err != nil {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(p), err)
	}
}

func commit(t testing.TB, w backends.Writer) backends.Location {
	t.Helper()
	loc, err := w.Commit(t.Context())
	if err != nil {
		t.Fatalf("commit: %v", err)
	}
	return loc
}

func abort(t testing.TB, w backends.Writer) {
	t.Helper()
	if err := w.Abort(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("abort: %v", err)
	}
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

// wantStored opens loc and compares its content.
func wantStored(t testing.TB, s backends.Store, loc backends.Location, want []byte) {
	t.Helper()
	b := open(t, s, loc)
	defer b.Close()
	wantContent(t, b, want)
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

func testUsage(t *testing.T, _ Suite, s backends.Store) {
	u, err := s.Usage(t.Context())
	if err != nil || u.Total < -1 || u.Free < -1 || u.Total >= 0 && u.Free > u.Total {
		t.Errorf("usage %+v, %v", u, err)
	}
}
