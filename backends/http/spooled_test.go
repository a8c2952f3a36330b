package http_test

import (
	"bytes"
	"fmt"
	nethttp "net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/http"
	"glanced/backends/stored"
	"glanced/contrib/testbed"
)

// whole answers with all of content, without ranges, and with these headers.
func whole(content []byte, headers ...string) nethttp.HandlerFunc {
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(content)))
		w.Write(content)
	}
}

// fetched is how many of the requests since the last call asked for the whole object.
func (f *faulty) fetched() (n int) {
	for _, r := range f.Requests() {
		if r.Header.Get("Range") == "" {
			n++
		}
	}
	return n
}

// left are the names in the spool below dir.
func left(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := filepath.Glob(filepath.Join(dir, "*", ".*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(names, hidden...)
}

func TestAnObjectIsFetchedOnceForAllAndKeptOverARestart(t *testing.T) {
	f := newFaulty(t)
	f.answer(whole(f.content, "Etag", `W/"1"`))
	dir := t.TempDir()
	in := func(c *http.Config) { c.Spool = dir }
	s := open(t, in)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { wantRead(t, s, f.location(), f.content) })
	}
	all.Wait()
	if n := f.fetched(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	loc, err := s.Stat(t.Context(), f.location())
	if err != nil || loc.Size != int64(len(f.content)) || !strings.HasPrefix(loc.Version, "sha256:") {
		t.Errorf("%+v, %v", loc, err)
	}
	s.Close()
	s = open(t, in)
	defer s.Close()
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if _, ok := stored.As[stored.FileRanger](b); !ok || b.Identity() == "" {
		t.Error("the copy has not the abilities of a file, or no identity")
	}
	if n := f.fetched(); n != 0 {
		t.Errorf("fetched %d times after a restart", n)
	}
}

func TestACopyIsNotBelievedAgainstTheRecord(t *testing.T) {
	f := newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	old, now := backendtest.Noise(1, 5000), backendtest.Noise(2, 5000)
	f.answer(whole(old, "Etag", `W/"the same"`))
	was, err := s.Stat(t.Context(), f.location())
	if err != nil {
		t.Fatal(err)
	}
	// A server that does not tell two states apart.
	f.answer(whole(now, "Etag", `W/"the same"`))
	wantRead(t, s, was, old) // the recorded bytes are still here
	other := open(t, nil)
	defer other.Close()
	is, err := other.Stat(t.Context(), f.location())
	if err != nil || is.Version == was.Version {
		t.Fatalf("%+v, %v", is, err)
	}
	_, err = other.Open(t.Context(), was)
	wantErr(t, err, backends.ErrChanged)
	wantRead(t, s, is, now) // the copy here is of the old state
}

func TestWithoutValidatorsEachOpeningIsOfNow(t *testing.T) {
	f := newFaulty(t)
	dir := t.TempDir()
	s := open(t, func(c *http.Config) { c.Spool = dir })
	defer s.Close()
	old, now := backendtest.Noise(1, 5000), backendtest.Noise(2, 5000)
	f.answer(whole(old))
	b, err := s.Open(t.Context(), f.location())
	if err != nil {
		t.Fatal(err)
	}
	f.answer(whole(now))
	wantRead(t, s, f.location(), now)
	p := make([]byte, 5000)
	if err := b.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, old) {
		t.Errorf("who had it open: %v, or other bytes", err)
	}
	b.Close()
	if names := left(t, dir); len(names) > 0 {
		t.Errorf("left in the spool: %v", names)
	}
}

func TestWhatCannotBeSpooledLeavesNothing(t *testing.T) {
	const limit = 1 << 20
	for name, c := range map[string]struct {
		fault testbed.Fault
		want  error
	}{
		"announced longer than the limit": {answered(whole(make([]byte, limit+1), "Etag", `W/"1"`)), backends.ErrFull},
		"zeros without end": {answered(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			for {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}), backends.ErrFull},
		"cut off":           {testbed.Say("HTTP/1.1 200 OK\nContent-Length: 1000\n\nabc"), backends.ErrUnavailable},
		"of no known end":   {testbed.Say("HTTP/1.1 200 OK\n\nabc"), backends.ErrUnavailable},
		"cut in its chunks": {testbed.Say("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n3\nabc\n"), backends.ErrUnavailable},
		"encoded":           {answered(whole([]byte("abc"), "Content-Encoding", "gzip")), backends.ErrUnavailable},
		"changed meanwhile": {answered(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			whole([]byte("abc"), "Etag", fmt.Sprintf(`W/"%t"`, r.Header.Get("Range") == ""))(w, r)
		}), backends.ErrUnavailable},
		"gone meanwhile": {answered(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.Header.Get("Range") == "" {
				w.WriteHeader(404)
				return
			}
			whole([]byte("abc"))(w, r)
		}), backends.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t)
			f.Set(c.fault)
			dir := t.TempDir()
			s := open(t, func(cfg *http.Config) { cfg.Spool, cfg.SpoolLimit = dir, limit })
			defer s.Close()
			_, err := s.Stat(t.Context(), f.location())
			wantErr(t, err, c.want)
			wantSecret(t, err, "s3cret")
			if n := f.fetched(); n > 0 && name == "announced longer than the limit" {
				t.Errorf("fetched %d times in vain", n)
			}
			if names := left(t, dir); len(names) > 0 {
				t.Errorf("left in the spool: %v", names)
			}
		})
	}
}

func TestAServerThatBeginsOrEndsToServeRanges(t *testing.T) {
	f := newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	inPlace, err := s.Stat(t.Context(), f.location())
	if err != nil {
		t.Fatal(err)
	}
	f.answer(whole(f.content, "Etag", `"one"`))
	_, err = s.Open(t.Context(), inPlace)
	wantErr(t, err, backends.ErrUnavailable) // it has not changed
	f.answer(whole(f.content, "Etag", `"two"`))
	_, err = s.Open(t.Context(), inPlace)
	wantErr(t, err, backends.ErrChanged)
	f.answer(whole(f.content))
	spooled, err := s.Stat(t.Context(), f.location())
	if err != nil || spooled.Version == inPlace.Version {
		t.Fatalf("%+v, %v", spooled, err)
	}
	f.Set(nil)
	wantRead(t, s, spooled, f.content)
}

// What a process left that ended with an object open, and nobody will find, goes.
func TestTheSpoolIsTidiedAtTheStart(t *testing.T) {
	f := newFaulty(t)
	f.answer(whole(f.content))
	dir := t.TempDir()
	in := func(c *http.Config) { c.Spool = dir }
	s := open(t, in)
	if _, err := s.Open(t.Context(), f.location()); err != nil { // never closed
		t.Fatal(err)
	}
	if len(left(t, dir)) != 1 {
		t.Fatalf("the test tests nothing: %v", left(t, dir))
	}
	open(t, in).Close()
	if names := left(t, dir); len(names) > 0 {
		t.Errorf("left in the spool: %v", names)
	}
}

func TestConfigurationsThatCannotBeAreRefused(t *testing.T) {
	for key, change := range map[string]func(*http.Config){
		"connections": func(c *http.Config) { c.Connections = 0 },
		"timeout":     func(c *http.Config) { c.Timeout = 0 },
		"spool_limit": func(c *http.Config) { c.SpoolLimit = 0 },
		"spool":       func(c *http.Config) { c.Spool = "" },
	} {
		cfg := http.Defaults
		cfg.Spool = t.TempDir()
		change(&cfg)
		if _, err := http.Open(cfg); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
	// Any id makes one folder of its own.
	dir := t.TempDir()
	for _, id := range []string{"..", "a/b", "kho ảnh", strings.Repeat("x", 50)} {
		open(t, func(c *http.Config) { c.ID, c.Spool = id, dir }).Close()
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 4 {
		t.Errorf("%v, %v", entries, err)
	}
}
