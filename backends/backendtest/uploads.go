package backendtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"glanced/backends"
)

func testRoundTrip(t *testing.T, suite Suite, s backends.Store) {
	// Noise, a long hole in the middle and at the end, and an odd length.
	content := Noise(1, suite.Big)
	clear(content[suite.Big/3 : suite.Big/2])
	clear(content[suite.Big-200_000:])
	loc := put(t, s, "an-image", content)
	defer remove(t, s, loc)
	if loc.Size != int64(len(content)) || loc.Store == "" || loc.URL == "" || loc.Version == "" {
		t.Errorf("location %+v", loc)
	}
	wantStored(t, s, loc, content)
}

func testUnknownSize(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(2, suite.Big)
	// Small reads, with the end told together with the last bytes.
	loc, err := Put(t.Context(), s, "k", iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(content))), -1)
	if err != nil {
		t.Fatal(err)
	}
	defer remove(t, s, loc)
	wantStored(t, s, loc, content)
}

func testEmpty(t *testing.T, _ Suite, s backends.Store) {
	for _, size := range []int64{0, -1} {
		loc, err := Put(t.Context(), s, "empty", bytes.NewReader(nil), size)
		if err != nil {
			t.Fatal(err)
		}
		wantStored(t, s, loc, nil)
		remove(t, s, loc)
	}
}

func testPieces(t *testing.T, _ Suite, s backends.Store) {
	content := Noise(3, 3<<20+17)
	clear(content[100_000:700_000])
	for _, piece := range []int{1 << 10, 4096, 65_537, 1<<20 + 1} {
		w := begin(t, s, "k", int64(len(content)))
		rest := content
		for len(rest) > 0 {
			n := min(piece, len(rest))
			p := bytes.Clone(rest[:n])
			write(t, w, p)
			clear(p) // it is the caller's again
			rest = rest[n:]
		}
		write(t, w, nil)
		loc := commit(t, w)
		wantStored(t, s, loc, content)
		remove(t, s, loc)
	}
}

func testWrongSize(t *testing.T, suite Suite, s backends.Store) {
	for _, n := range []int{0, 10, 70_000, 3 << 20} {
		content := Noise(5, n)
		_, err := Put(t.Context(), s, "k", bytes.NewReader(content), int64(n)+1)
		wantErr(t, err, backends.ErrShort)
		if n > 0 {
			_, err = Put(t.Context(), s, "k", bytes.NewReader(content), int64(n)-1)
			wantErr(t, err, backends.ErrLong)
		}
		suite.wantEmpty(t, s, "after a body of the wrong size")
	}
	// The Writer checks by itself.
	w := begin(t, s, "k", 10)
	write(t, w, make([]byte, 9))
	_, err := w.Commit(t.Context())
	wantErr(t, err, backends.ErrShort)
	_, err = w.Write(make([]byte, 2))
	wantErr(t, err, backends.ErrLong)
	if _, err := w.Commit(t.Context()); err == nil {
		t.Error("committed after a write that failed")
	}
	abort(t, w)
}

func testFailingBody(t *testing.T, suite Suite, s backends.Store) {
	// io.ErrUnexpectedEOF is what net/http says when a client hangs up: no good end.
	for _, cause := range []error{errors.New("the client is gone"), io.ErrUnexpectedEOF} {
		for _, n := range []int{0, 100_000, suite.Big} {
			for _, size := range []int64{-1, int64(n), int64(n) + 1} {
				_, err := Put(t.Context(), s, "k", io.MultiReader(bytes.NewReader(Noise(6, n)), iotest.ErrReader(cause)), size)
				wantErr(t, err, cause)
				suite.wantEmpty(t, s, "after a body that failed")
			}
		}
	}
}

func testCancelled(t *testing.T, suite Suite, s backends.Store) {
	why := errors.New("the client hung up")
	content := Noise(7, suite.Big)
	ctx, cancel := context.WithCancelCause(t.Context())
	w, err := s.Begin(ctx, "k", int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, content[:len(content)/2])
	cancel(why)
	_, err = backends.Copy(w, bytes.NewReader(content[len(content)/2:]), -1)
	wantErr(t, err, why)
	if _, err := w.Commit(t.Context()); err == nil {
		t.Error("committed after a write that failed")
	}
	abort(t, w)

	w = begin(t, s, "k", 3)
	write(t, w, []byte("abc"))
	_, err = w.Commit(ctx)
	wantErr(t, err, why)
	loc := commit(t, w) // another context may do it
	wantStored(t, s, loc, []byte("abc"))
	remove(t, s, loc)
	_, err = s.Begin(ctx, "k", 3)
	wantErr(t, err, why)
}

func testExists(t *testing.T, _ Suite, s backends.Store) {
	content := Noise(8, 5000)
	loc := put(t, s, "k", content)
	defer remove(t, s, loc)
	_, err := s.Begin(t.Context(), "k", 5000)
	wantErr(t, err, backends.ErrExists)
	wantStored(t, s, loc, content)
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
			loc, err := Put(t.Context(), s, "k", bytes.NewReader(content), -1)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				wantErr(t, err, backends.ErrExists)
			} else if won != nil {
				t.Error("two uploads of one key succeeded")
			} else {
				won, where = content, loc
			}
		})
	}
	wg.Wait()
	if won == nil {
		t.Fatal("no upload succeeded")
	}
	defer remove(t, s, where)
	wantStored(t, s, where, won)
}

func testBadKeys(t *testing.T, _ Suite, s backends.Store) {
	for _, key := range []string{"", ".", "..", ".hidden", "a/b", "../a", "/a", "a\x00b", string(make([]byte, 5000))} {
		_, err := s.Begin(t.Context(), key, 1)
		wantErr(t, err, backends.ErrBadLocation)
	}
}

func testCommitAgain(t *testing.T, _ Suite, s backends.Store) {
	content := Noise(13, 100_000)
	w := begin(t, s, "k with space%41", -1)
	write(t, w, content)
	loc := commit(t, w)
	defer remove(t, s, loc)
	if again := commit(t, w); again != loc {
		t.Errorf("committed to %+v, then to %+v", loc, again)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("a committed object was written to")
	}
	wantStored(t, s, loc, content)
}
