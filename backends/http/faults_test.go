package http_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/http"
	"glanced/backends/retry"
	"glanced/backends/setting"
	"glanced/backends/stored"
	"glanced/contrib/testbed"
)

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// wantSecret fails if an error tells any of secrets.
func wantSecret(t testing.TB, err error, secrets ...string) {
	t.Helper()
	for _, s := range secrets {
		if err != nil && strings.Contains(err.Error(), s) {
			t.Errorf("the error tells %q: %v", s, err)
		}
	}
}

func wantRead(t testing.TB, s backends.Store, loc backends.Location, want []byte) {
	t.Helper()
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Errorf("open: %v", err)
		return
	}
	defer b.Close()
	got := make([]byte, b.Size())
	if err := b.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes: %v, or other bytes", len(got), err)
	}
}

// faulty is a server of one object that does as it should until a fault is set.
type faulty struct {
	*testbed.Proxy
	content []byte
	etag    string
}

func newFaulty(t testing.TB) *faulty {
	f := &faulty{content: backendtest.Noise(9, 200_000), etag: `"one"`}
	f.Proxy = testbed.NewProxy(t, nethttp.HandlerFunc(f.right), nil)
	return f
}

// right is the answer without a fault.
func (f *faulty) right(w nethttp.ResponseWriter, r *nethttp.Request) {
	if f.etag != "" {
		w.Header().Set("Etag", f.etag)
	}
	nethttp.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}

// answer has another handler answer all requests.
func (f *faulty) answer(by nethttp.HandlerFunc) { f.Set(answered(by)) }

// answered is the fault of a server that is another one.
func answered(by nethttp.HandlerFunc) testbed.Fault {
	return func(_ *testbed.Proxy, w nethttp.ResponseWriter, r *nethttp.Request) bool {
		by(w, r)
		return true
	}
}

func (f *faulty) location() backends.Location {
	return backends.Location{Store: "web", URL: f.URL + "/disk?signature=s3cret", Size: -1}
}

// Each fault comes in the middle of an object that is being read. No byte of p may be
// taken for right after it, and when the fault is over the same bytes read on.
func TestFaultsInTheMiddleOfAnObject(t *testing.T) {
	const head = "HTTP/1.1 206 Partial Content\nEtag: \"one\"\n"
	const right = "Content-Range: bytes 1000-1999/200000\n"
	thousand := strings.Repeat("x", 1000)
	for name, c := range map[string]struct {
		fault testbed.Fault
		want  error
	}{
		"the connection is cut":          {testbed.Say(""), backends.ErrUnavailable},
		"cut in the status line":         {testbed.Say("HTTP/1.1 206 Par"), backends.ErrUnavailable},
		"cut in the header":              {testbed.Say(head), backends.ErrUnavailable},
		"cut before the body":            {testbed.Say(head + right + "Content-Length: 1000\n\n"), backends.ErrUnavailable},
		"cut in the body":                {testbed.Say(head + right + "Content-Length: 1000\n\n" + thousand[:999]), backends.ErrUnavailable},
		"cut where no length was given":  {testbed.Say(head + right + "\n" + thousand[:999]), backends.ErrUnavailable},
		"cut in a chunk":                 {testbed.Say(head + right + "Transfer-Encoding: chunked\n\n3e8\n" + thousand[:10]), backends.ErrUnavailable},
		"cut before the last chunk":      {testbed.Say(head + right + "Transfer-Encoding: chunked\n\n3e8\n" + thousand + "\n"), backends.ErrUnavailable},
		"chunks that go on":              {testbed.Say(head + right + "Transfer-Encoding: chunked\n\n3e8\n" + thousand + "\n1\nx\n0\n\n"), backends.ErrUnavailable},
		"a body that goes on":            {testbed.Say(head + right + "\n" + thousand + "x"), backends.ErrUnavailable},
		"a shorter body announced":       {testbed.Say(head + right + "Content-Length: 999\n\n" + thousand[:999]), backends.ErrUnavailable},
		"a longer body announced":        {testbed.Say(head + right + "Content-Length: 1001\n\n" + thousand + "x"), backends.ErrUnavailable},
		"another range":                  {testbed.Say(head + "Content-Range: bytes 0-999/200000\nContent-Length: 1000\n\n" + thousand), backends.ErrUnavailable},
		"a shorter range":                {testbed.Say(head + "Content-Range: bytes 1000-1998/200000\nContent-Length: 999\n\n" + thousand[:999]), backends.ErrUnavailable},
		"no range":                       {testbed.Say(head + "Content-Length: 1000\n\n" + thousand), backends.ErrUnavailable},
		"a range of no known total":      {testbed.Say(head + "Content-Range: bytes 1000-1999/*\nContent-Length: 1000\n\n" + thousand), backends.ErrUnavailable},
		"a range that is no number":      {testbed.Say(head + "Content-Range: bytes 1000-+1999/200000\nContent-Length: 1000\n\n" + thousand), backends.ErrUnavailable},
		"encoded":                        {testbed.Say(head + right + "Content-Encoding: gzip\nContent-Length: 1000\n\n" + thousand), backends.ErrUnavailable},
		"the whole object":               {testbed.Say("HTTP/1.1 200 OK\nEtag: \"one\"\nContent-Length: 1000\n\n" + thousand), backends.ErrUnavailable},
		"endless headers":                {answered(endlessHeaders), backends.ErrUnavailable},
		"no HTTP":                        {testbed.Say("SSH-2.0-OpenSSH_9.2p1\n\n"), backends.ErrUnavailable},
		"400":                            {testbed.Say("HTTP/1.1 400 Bad Request\nContent-Length: 0\n\n"), backends.ErrDenied},
		"403":                            {testbed.Say("HTTP/1.1 403 Forbidden\nContent-Length: 0\n\n"), backends.ErrDenied},
		"404":                            {testbed.Say("HTTP/1.1 404 Not Found\nContent-Length: 0\n\n"), backends.ErrNotFound},
		"410":                            {testbed.Say("HTTP/1.1 410 Gone\nContent-Length: 0\n\n"), backends.ErrNotFound},
		"412":                            {testbed.Say("HTTP/1.1 412 Precondition Failed\nContent-Length: 0\n\n"), backends.ErrChanged},
		"416":                            {testbed.Say("HTTP/1.1 416 Range Not Satisfiable\nContent-Range: bytes */10\nContent-Length: 0\n\n"), backends.ErrChanged},
		"429":                            {testbed.Say("HTTP/1.1 429 Too Many Requests\nContent-Length: 0\n\n"), backends.ErrUnavailable},
		"500":                            {testbed.Say("HTTP/1.1 500 Internal Server Error\nContent-Length: 0\n\n"), backends.ErrUnavailable},
		"another ETag":                   {testbed.Say("HTTP/1.1 206 Partial Content\nEtag: \"two\"\n" + right + "Content-Length: 1000\n\n" + thousand), backends.ErrChanged},
		"another ETag, the whole object": {testbed.Say("HTTP/1.1 200 OK\nEtag: \"two\"\nContent-Length: 1000\n\n" + thousand), backends.ErrChanged},
		"a weak ETag":                    {testbed.Say("HTTP/1.1 206 Partial Content\nEtag: W/\"one\"\n" + right + "Content-Length: 1000\n\n" + thousand), backends.ErrChanged},
		"no ETag":                        {testbed.Say("HTTP/1.1 206 Partial Content\n" + right + "Content-Length: 1000\n\n" + thousand), backends.ErrChanged},
		"another total":                  {testbed.Say(head + "Content-Range: bytes 1000-1999/200001\nContent-Length: 1000\n\n" + thousand), backends.ErrChanged},
		"redirects in a circle":          {redirects(func(int) string { return "/disk" }), backends.ErrUnavailable},
		"a redirect to another scheme":   {redirects(func(int) string { return "file:///etc/passwd" }), backends.ErrUnavailable},
		"a redirect to nowhere":          {redirects(func(int) string { return "" }), backends.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t)
			s := open(t, nil)
			defer s.Close()
			loc, err := s.Stat(t.Context(), f.location())
			if err != nil || loc.Size != 200_000 || loc.Version != `"one"` {
				t.Fatalf("%+v, %v", loc, err)
			}
			b, err := s.Open(t.Context(), loc)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			f.Set(c.fault)
			p := make([]byte, 1000)
			err = b.ReadAt(t.Context(), p, 1000)
			wantErr(t, err, c.want)
			wantSecret(t, err, "s3cret")
			f.Set(nil)
			if err := b.ReadAt(t.Context(), p, 1000); err != nil || !bytes.Equal(p, f.content[1000:2000]) {
				t.Errorf("when it is over: %v, or other bytes", err)
			}
		})
	}
}

func endlessHeaders(w nethttp.ResponseWriter, r *nethttp.Request) {
	c, _, err := w.(nethttp.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer c.Close()
	io.WriteString(c, "HTTP/1.1 206 Partial Content\r\n")
	for i := 0; ; i++ {
		if _, err := fmt.Fprintf(c, "X-%d: %s\r\n", i, strings.Repeat("y", 1000)); err != nil {
			return
		}
	}
}

// redirects sends on to what to says of the n-th request.
func redirects(to func(n int) string) testbed.Fault {
	var n atomic.Int32
	return answered(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Location", to(int(n.Add(1))))
		w.WriteHeader(302)
	})
}

func TestEachReadAsksForTheVersionThatWasOpened(t *testing.T) {
	f := newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	b, err := s.Open(t.Context(), f.location())
	if err != nil {
		t.Fatal(err)
	}
	f.Requests()
	if err := b.ReadAt(t.Context(), make([]byte, 10), 5); err != nil {
		t.Fatal(err)
	}
	all := f.Requests()
	if len(all) != 1 || all[0].Method != "GET" || all[0].Header.Get("If-Match") != `"one"` || all[0].Header.Get("Range") != "bytes=5-14" || all[0].Header.Get("Accept-Encoding") != "identity" {
		t.Errorf("%d requests: %v", len(all), all[0].Header)
	}
}

func TestAnEmptyObjectHasNoFirstByte(t *testing.T) {
	f := newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	f.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Etag", `"empty"`)
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Range", "bytes */0")
			w.WriteHeader(416)
		}
	})
	loc, err := s.Stat(t.Context(), f.location())
	if err != nil || loc.Size != 0 || loc.Version != `"empty"` {
		t.Fatalf("%+v, %v", loc, err)
	}
	wantRead(t, s, loc, nil)
}

// What follows an answer on its connection must not become part of the next one.
func TestABodyLongerThanAnnouncedIsNotTheNextAnswer(t *testing.T) {
	f := newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	b, err := s.Open(t.Context(), f.location())
	if err != nil {
		t.Fatal(err)
	}
	f.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		c, _, err := w.(nethttp.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 206 Partial Content\r\nEtag: \"one\"\r\nContent-Range: bytes 0-9/200000\r\nContent-Length: 10\r\n\r\n%sx", f.content[:10])
		io.Copy(io.Discard, c) // until the client closes it
	})
	for range 20 {
		p := make([]byte, 10)
		if err := b.ReadAt(t.Context(), p, 0); err == nil && !bytes.Equal(p, f.content[:10]) {
			t.Fatal("other bytes")
		} else if err != nil {
			wantErr(t, err, backends.ErrUnavailable)
		}
	}
}

func TestASilentServerIsGivenUp(t *testing.T) {
	for name, begin := range map[string]string{
		"before the answer": "",
		"in the header":     "HTTP/1.1 206 Partial Content\r\nEtag:",
		"in the body":       "HTTP/1.1 206 Partial Content\r\nEtag: \"one\"\r\nContent-Range: bytes 0-9/200000\r\nContent-Length: 10\r\n\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t)
			s := open(t, func(c *http.Config) { c.Timeout = setting.Duration(200 * time.Millisecond) })
			defer s.Close()
			var b stored.Bytes
			err := backends.ErrUnavailable // a busy machine may be that slow
			for errors.Is(err, backends.ErrUnavailable) {
				b, err = s.Open(t.Context(), f.location())
			}
			if err != nil {
				t.Fatal(err)
			}
			f.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
				c, _, err := w.(nethttp.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				defer c.Close()
				io.WriteString(c, begin)
				io.Copy(io.Discard, c)
			})
			wantErr(t, b.ReadAt(t.Context(), make([]byte, 10), 0), backends.ErrUnavailable)
		})
	}
	// Nobody there at all.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s := open(t, nil)
	defer s.Close()
	_, err = s.Stat(t.Context(), backends.Location{Store: "web", URL: "http://user:pa55@" + l.Addr().String() + "/disk?sig=s3cret", Size: -1})
	wantErr(t, err, backends.ErrUnavailable)
	wantSecret(t, err, "pa55", "s3cret")
}

// A caller's end is told as such: it is not the server's fault.
func TestACallerWhoLeavesEndsTheRequest(t *testing.T) {
	f := newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	b, err := s.Open(t.Context(), f.location())
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("the client hung up")
	ctx, leave := context.WithCancelCause(t.Context())
	f.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		leave(why)
		<-r.Context().Done()
	})
	wantErr(t, b.ReadAt(ctx, make([]byte, 10), 0), why)
}

func TestRetryAfterIsHonoured(t *testing.T) {
	f := newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	var refused atomic.Int32
	f.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if refused.Add(1) == 1 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
			return
		}
		f.right(w, r)
	})
	policy := retry.Policy{Total: time.Minute, Pause: time.Microsecond, LongPause: time.Microsecond}
	began := time.Now()
	if _, err := retry.Store(s, policy, policy).Stat(t.Context(), f.location()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("asked again after %v", took)
	}
	if refused.Load() != 2 {
		t.Errorf("asked %d times", refused.Load())
	}
}

func TestRedirectsAreFollowedWithinBounds(t *testing.T) {
	f := newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	const last = 5
	hop := func(r *nethttp.Request) int {
		n := 0
		fmt.Sscanf(r.URL.Path, "/hop%d", &n)
		return n
	}
	f.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if n := hop(r); n < last {
			nethttp.Redirect(w, r, fmt.Sprintf("/hop%d", n+1), 301+n%2)
			return
		}
		f.right(w, r)
	})
	wantRead(t, s, backends.Location{Store: "web", URL: f.URL + "/hop0", Size: -1}, f.content)
	f.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if n := hop(r); n < last+1 {
			nethttp.Redirect(w, r, fmt.Sprintf("/hop%d", n+1), nethttp.StatusTemporaryRedirect)
			return
		}
		f.right(w, r)
	})
	_, err := s.Stat(t.Context(), backends.Location{Store: "web", URL: f.URL + "/hop0", Size: -1})
	wantErr(t, err, backends.ErrUnavailable)
}

func TestCredentialsStayWithTheirServer(t *testing.T) {
	first, other := newFaulty(t), newFaulty(t)
	s := open(t, nil)
	defer s.Close()
	loc := first.location()
	loc.URL = strings.Replace(loc.URL, "http://", "http://user:pa55@", 1)
	for name, c := range map[string]struct {
		to    string
		there *faulty
		told  bool
	}{
		"the same server":                     {first.URL + "/elsewhere", first, true},
		"another one":                         {other.URL + "/disk", other, false},
		"another one, by what the first says": {strings.Replace(other.URL, "http://", "http://user:pa55@", 1) + "/disk", other, false},
	} {
		first.Requests()
		other.Requests()
		first.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			if r.URL.Path == "/disk" {
				nethttp.Redirect(w, r, c.to, nethttp.StatusFound)
				return
			}
			first.right(w, r)
		})
		wantRead(t, s, loc, first.content)
		reached := false
		for _, r := range c.there.Requests() {
			if c.there == first && r.URL.Path == "/disk" {
				continue
			}
			reached = true
			_, _, auth := r.BasicAuth()
			if auth != c.told {
				t.Errorf("%s: credentials sent: %v", name, auth)
			}
			if text := fmt.Sprint(r.Header, r.URL); !c.told && (strings.Contains(text, "pa55") || strings.Contains(text, "s3cret")) {
				t.Errorf("%s was told %s", name, text)
			}
		}
		if !reached {
			t.Errorf("%s was not asked", name)
		}
	}
}

func TestTLSIsCheckedAndNeverLeft(t *testing.T) {
	plain := newFaulty(t)
	f := newFaulty(t)
	server := httptest.NewTLSServer(f)
	t.Cleanup(server.Close)
	f.URL = server.URL
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	trusting := open(t, func(c *http.Config) { c.CAFile = ca })
	defer trusting.Close()
	wantRead(t, trusting, f.location(), f.content)
	doubting := open(t, nil)
	defer doubting.Close()
	_, err := doubting.Stat(t.Context(), f.location())
	wantErr(t, err, backends.ErrUnavailable)
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("it does not say why: %v", err)
	}
	plain.Requests()
	f.Set(redirects(func(int) string { return plain.URL + "/disk" }))
	_, err = trusting.Stat(t.Context(), f.location())
	wantErr(t, err, backends.ErrUnavailable)
	if n := len(plain.Requests()); n > 0 {
		t.Errorf("followed from https to http, %d times", n)
	}
	for _, file := range []string{"/nonexistent/ca.pem", os.Args[0]} {
		cfg := http.Defaults
		cfg.CAFile, cfg.Spool = file, t.TempDir()
		if s, err := http.Open(cfg); err == nil || !strings.Contains(err.Error(), "ca_file") {
			s.Close()
			t.Errorf("ca_file %s: %v", file, err)
		}
	}
}

// No more connections are open to a server than are configured.
func TestConnectionsAreBounded(t *testing.T) {
	f := newFaulty(t)
	var now, most atomic.Int32
	s := open(t, func(c *http.Config) { c.Connections = 3 })
	defer s.Close()
	b, err := s.Open(t.Context(), f.location())
	if err != nil {
		t.Fatal(err)
	}
	f.answer(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		n := now.Add(1)
		for {
			if m := most.Load(); n <= m || most.CompareAndSwap(m, n) {
				break
			}
		}
		time.Sleep(5 * time.Millisecond)
		f.right(w, r)
		now.Add(-1)
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := b.ReadAt(t.Context(), make([]byte, 100), 0); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most.Load() > 3 {
		t.Errorf("%d requests at a time", most.Load())
	}
}
