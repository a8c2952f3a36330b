package swift

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"

	"glanced/contrib/testbed"
)

// proxy stands before a server and spoils what fault says.
type proxy struct {
	*httptest.Server
	forward http.Handler

	mu    sync.Mutex
	fault fault
	seen  map[string]int // requests, by call
	held  chan struct{}  // closed: what is held goes on
}

// fault does something about a request: true = it has answered itself.
type fault func(p *proxy, w http.ResponseWriter, r *http.Request) bool

// calls names a request: by its method, and by what it is about.
func calls(r *http.Request) string {
	elements := strings.SplitN(strings.Trim(r.URL.Path, "/"), "/", 4)
	switch {
	case elements[0] == "auth":
		return "auth"
	case len(elements) < 4:
		return r.Method + " container"
	case strings.Contains(elements[3], "/"):
		return r.Method + " segment"
	}
	return r.Method + " object"
}

// before puts a proxy before a server. Tokens are asked for by way of it, and tempauth
// says that the object store is where it was asked.
func before(t *testing.T, srv testbed.SwiftServer) (*proxy, testbed.SwiftServer) {
	t.Helper()
	there, err := url.Parse(srv.AuthURL)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{seen: map[string]int{}, held: make(chan struct{})}
	p.forward = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", there.Host, r.In.Host
	}, ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { cut(w) }}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.seen[calls(r)]++
		f := p.fault
		p.mu.Unlock()
		if f == nil || !f(p, w, r) {
			p.forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		close(p.held)
		p.Server.CloseClientConnections()
		p.Server.Close()
	})
	srv.AuthURL = p.URL + there.Path
	return p, srv
}

// set has the next requests spoiled, nil = none.
func (p *proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.seen = f, map[string]int{}
}

func (p *proxy) count(call string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[call]
}

// onCall has a fault befall the calls that are named, the first n of them.
func onCall(name string, n int, f fault) fault {
	var mu sync.Mutex
	return func(p *proxy, w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		hit := calls(r) == name && n > 0
		if hit {
			n--
		}
		mu.Unlock()
		return hit && f(p, w, r)
	}
}

func cut(w http.ResponseWriter) {
	if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
		c.Close()
	}
}

// Faults.

// answer answers by itself: status, and headers in pairs.
func answerWith(status int, headers ...string) fault {
	return func(_ *proxy, w http.ResponseWriter, r *http.Request) bool {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.WriteHeader(status)
		return true
	}
}

// hangUp closes the connection instead of an answer.
func hangUp(_ *proxy, w http.ResponseWriter, _ *http.Request) bool { cut(w); return true }

// hold answers nothing until the test ends.
func hold(p *proxy, w http.ResponseWriter, r *http.Request) bool {
	select {
	case <-p.held:
	case <-r.Context().Done():
	}
	cut(w)
	return true
}

// lose has the server do its work, and closes the connection instead of its answer.
func lose(p *proxy, w http.ResponseWriter, r *http.Request) bool {
	p.forward.ServeHTTP(httptest.NewRecorder(), r)
	cut(w)
	return true
}

// changed changes the server's answer: its headers, and its body.
func changed(change func(h http.Header, body []byte) []byte) fault {
	return func(p *proxy, w http.ResponseWriter, r *http.Request) bool {
		got := httptest.NewRecorder()
		p.forward.ServeHTTP(got, r)
		body := change(got.Header(), got.Body.Bytes())
		for key, values := range got.Header() {
			w.Header()[key] = values
		}
		w.WriteHeader(got.Code)
		if r.Method != http.MethodHead {
			w.Write(body)
		}
		return true
	}
}

// unconditional takes the conditions from a request, as some proxies do.
func unconditional(p *proxy, w http.ResponseWriter, r *http.Request) bool {
	r.Header.Del("If-Match")
	return false
}

// half sends half of the body that it announces.
func half(p *proxy, w http.ResponseWriter, r *http.Request) bool {
	got := httptest.NewRecorder()
	p.forward.ServeHTTP(got, r)
	for key, values := range got.Header() {
		w.Header()[key] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(got.Body.Len()))
	w.WriteHeader(got.Code)
	io.CopyN(w, got.Body, int64(got.Body.Len()/2))
	w.(http.Flusher).Flush()
	cut(w)
	return true
}
