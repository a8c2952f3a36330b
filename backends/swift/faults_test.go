package swift

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/stored"
	"glanced/contrib/testbed"
)

// faulty is a store that is reached by way of a proxy. Objects of more than 100,000 bytes
// are in segments of as many.
func faulty(t *testing.T, set func(*Config)) (*testbed.Proxy, testStore) {
	t.Helper()
	p, srv := testbed.Swift(t).Behind(t)
	cfg := config(srv)
	cfg.LargeObjectSize, cfg.ChunkSize = 100_000, 100_000
	if set != nil {
		set(&cfg)
	}
	s := mustOpen(t, srv, cfg)
	t.Cleanup(func() {
		p.Set(nil)
		if left := srv.List(t); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		s.Close()
	})
	return p, s
}

func mustPut(t *testing.T, s backends.Store, content []byte) backends.Location {
	t.Helper()
	loc, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Delete(context.WithoutCancel(t.Context()), loc); err != nil {
			t.Error(err)
		}
	})
	return loc
}

// wantKind checks an error's kind, and that it holds no credentials.
func wantKind(t *testing.T, s testStore, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
	if at, _ := s.own.session(context.WithoutCancel(t.Context()), ""); err != nil && (strings.Contains(err.Error(), "testing") || at.token != "" && strings.Contains(err.Error(), at.token)) {
		t.Errorf("%s: the error holds the key or the token: %v", what, err)
	}
}

func TestReadsOfAServerThatIsBusyOrLies(t *testing.T) {
	p, s := faulty(t, func(c *Config) { c.stall = 2 * time.Second })
	content := backendtest.Noise(1, 250_000)
	loc := mustPut(t, s, content)
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := make([]byte, 180_000)
	for name, c := range map[string]struct {
		fault testbed.Fault
		want  error
	}{
		"busy":            {testbed.Answer(503, "", "Retry-After", "3"), backends.ErrUnavailable},
		"too many":        {testbed.Answer(429, ""), backends.ErrUnavailable},
		"Swift's limit":   {testbed.Answer(498, ""), backends.ErrUnavailable},
		"broken":          {testbed.Answer(500, ""), backends.ErrUnavailable},
		"gone":            {testbed.Answer(404, ""), backends.ErrNotFound},
		"forbidden":       {testbed.Answer(403, ""), backends.ErrDenied},
		"hangs up":        {testbed.Cut, backends.ErrUnavailable},
		"half an answer":  {testbed.Truncate, backends.ErrUnavailable},
		"never answers":   {testbed.Hold, backends.ErrUnavailable},
		"sends elsewhere": {testbed.Answer(302, "", "Location", "http://evil.example/"), nil},
		"all of it":       {testbed.Change(func(h http.Header, b []byte) []byte { h.Del("Content-Range"); return b }), backends.ErrUnavailable},
		"another range": {testbed.Change(func(h http.Header, b []byte) []byte {
			_, size, _ := strings.Cut(h.Get("Content-Range"), "/") // of the segment
			h.Set("Content-Range", "bytes 1-2/"+size)
			return b
		}), backends.ErrUnavailable},
		"another version":  {testbed.Change(func(h http.Header, b []byte) []byte { h.Set("Etag", "0"); return b }), backends.ErrChanged},
		"another size":     {testbed.Change(func(h http.Header, b []byte) []byte { h.Set("Content-Range", "bytes 50000-99999/100001"); return b }), nil},
		"a shorter answer": {testbed.Change(func(h http.Header, b []byte) []byte { return b[:10] }), backends.ErrUnavailable},
	} {
		p.Set(testbed.On("GET segment", 100, c.fault)) // net/http itself tries again on a connection that was used before
		err := b.ReadAt(t.Context(), got, 50_000)
		p.Set(nil)
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if c.want != nil {
			wantKind(t, s, name, err, c.want)
		}
		if err := b.ReadAt(t.Context(), got, 50_000); err != nil || !bytes.Equal(got, content[50_000:230_000]) {
			t.Errorf("%s, and then: %v, or other bytes", name, err)
		}
	}
}

// A segment that is overwritten behind our back is never mixed with the others, also where
// a proxy takes the condition from the request.
func TestASwappedSegmentIsAChange(t *testing.T) {
	p, s := faulty(t, nil)
	content := backendtest.Noise(2, 250_000)
	loc := mustPut(t, s, content)
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	_, prefix, _ := strings.Cut(s.srv.Manifest(t, "k"), "/")
	s.srv.Put(t, "", prefix+"00002", backendtest.Noise(3, 100_000), nil)
	got := make([]byte, len(content))
	for name, f := range map[string]testbed.Fault{"as it is": nil, "without conditions": testbed.Unconditional} {
		p.Set(f)
		wantKind(t, s, name, b.ReadAt(t.Context(), got, 0), backends.ErrChanged)
		if err := b.ReadAt(t.Context(), got[:100_000], 0); err != nil || !bytes.Equal(got[:100_000], content[:100_000]) {
			t.Errorf("%s: the segment that is left: %v, or other bytes", name, err)
		}
	}
	_, err = s.Open(t.Context(), loc)
	wantKind(t, s, "open", err, backends.ErrChanged)
	s.srv.Put(t, "", prefix+"00002", content[100_000:200_000], nil)
}

func TestOneTokenIsAskedForByAll(t *testing.T) {
	p, s := faulty(t, nil)
	content := backendtest.Noise(4, 50_000)
	loc := mustPut(t, s, content)
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	old, err := s.own.session(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	ended := func(_ *testbed.Proxy, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Auth-Token") != old.token {
			return false
		}
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	// The token of tempauth is the same until it ends.
	next := testbed.On("auth", 100, testbed.Change(func(h http.Header, b []byte) []byte { h.Set("X-Auth-Token", old.token+"-next"); return b }))
	p.Set(func(p *testbed.Proxy, w http.ResponseWriter, r *http.Request) bool {
		if next(p, w, r) || ended(p, w, r) {
			return true
		}
		r.Header.Set("X-Auth-Token", strings.TrimSuffix(r.Header.Get("X-Auth-Token"), "-next"))
		return false
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got := make([]byte, len(content))
			if err := b.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, content) {
				t.Errorf("read: %v, or other bytes", err)
			}
		})
	}
	wg.Wait()
	if n := p.Count("auth"); n != 1 {
		t.Errorf("%d tokens were asked for", n)
	}
	p.Set(testbed.Always("GET object", testbed.Answer(401, "")))
	wantKind(t, s, "a token that is never taken", b.ReadAt(t.Context(), make([]byte, 1), 0), backends.ErrDenied)
	p.Set(testbed.On("auth", 9, testbed.Answer(401, "")))
	s.own.last = session{}
	wantKind(t, s, "a wrong key", b.ReadAt(t.Context(), make([]byte, 1), 0), backends.ErrDenied)
	p.Set(nil)
	s.own.last = session{}
}

// Whatever answer of an upload is lost, it can be committed, once; and whatever fails for
// good, it leaves nothing.
func TestUploadsToAServerThatLosesAnswersOrFails(t *testing.T) {
	for _, object := range []struct {
		name string
		n    int
		set  func(*Config)
		put  []string // the requests that make it
	}{
		{"small", 50_000, nil, []string{"PUT object"}},
		{"plain", 3 << 20, func(c *Config) { c.LargeObjectSize = 4 << 20 }, []string{"PUT object"}},
		{"segments", 250_000, nil, []string{"PUT segment", "PUT object"}},
	} {
		for _, call := range object.put {
			for _, fails := range []struct {
				name  string
				fault testbed.Fault
				lost  bool // the bytes, for good
			}{
				{"the answer is lost", testbed.Lose, false},
				{"busy", testbed.Answer(503, ""), object.name == "plain" || call == "PUT segment"},
				{"wrong answer", testbed.Change(func(h http.Header, b []byte) []byte { h.Set("Etag", "0"); return b }), false},
			} {
				t.Run(object.name+", "+call+", "+fails.name, func(t *testing.T) {
					p, s := faulty(t, object.set)
					content := backendtest.Noise(5, object.n)
					w, err := s.Begin(t.Context(), "k", int64(object.n))
					if err != nil {
						t.Fatal(err)
					}
					p.Set(testbed.On(call, 1, fails.fault))
					_, err = w.Write(content)
					for range 3 {
						if err == nil {
							_, err = w.Commit(t.Context())
						} else if !fails.lost && errors.Is(err, backends.ErrUnavailable) {
							_, err = w.Commit(t.Context())
						}
					}
					if fails.lost {
						wantKind(t, s, "in the end", err, backends.ErrUnavailable)
						if err := w.Abort(t.Context()); err != nil {
							t.Error(err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					loc, err := w.Commit(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					b, err := s.Open(t.Context(), loc)
					if err != nil {
						t.Fatal(err)
					}
					wantBytes(t, b, content)
					if err := w.Abort(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
		}
	}
}

func wantBytes(t *testing.T, b stored.Bytes, want []byte) {
	t.Helper()
	defer b.Close()
	got := make([]byte, len(want))
	if err := b.ReadAt(t.Context(), got, 0); err != nil || b.Size() != int64(len(want)) || !bytes.Equal(got, want) {
		t.Errorf("read: %v, or other bytes", err)
	}
}

// A listing that is late is waited for, and nothing is visible before it is complete.
func TestACommitWaitsForTheListing(t *testing.T) {
	p, s := faulty(t, func(c *Config) { c.listWait = time.Second })
	late := testbed.Change(func(h http.Header, b []byte) []byte { return []byte("[]") })
	content := backendtest.Noise(6, 250_000)
	w, err := s.Begin(t.Context(), "k", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	p.Set(testbed.On("GET container", 1<<30, late))
	_, err = w.Commit(t.Context())
	wantKind(t, s, "never complete", err, backends.ErrUnavailable)
	if p.Count("PUT object") != 0 {
		t.Error("it was published")
	}
	p.Set(testbed.On("GET container", 3, late))
	loc, err := w.Commit(t.Context())
	if err != nil || p.Count("GET container") < 4 {
		t.Errorf("%v after %d listings", err, p.Count("GET container"))
	}
	p.Set(nil)
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, b, content)
	// Nor does the cleaning up rely on it.
	p.Set(testbed.On("GET container", 1<<30, late))
	if err := s.Abandon(t.Context(), w.Claim()); err != nil {
		t.Error(err)
	}
}
