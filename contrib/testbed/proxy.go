package testbed

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"sync"
	"testing"
)

// Proxy stands before an HTTP server, and has a Fault befall the requests that pass.
// What it passes on has the client's own Host header, which may be signed. Safe for
// concurrent use.
type Proxy struct {
	URL string // http://127.0.0.1:port

	there http.Handler
	name  func(*http.Request) string

	mu    sync.Mutex
	fault Fault
	seen  map[string]int // requests since the last Set, by name
	asked []*http.Request
	held  chan struct{} // closed by Release
}

// NewProxy puts a proxy before there. name is what Count and On call a request; nil =
// by its method. The proxy ends with the test.
func NewProxy(t testing.TB, there http.Handler, name func(*http.Request) string) *Proxy {
	if name == nil {
		name = func(r *http.Request) string { return r.Method }
	}
	p := &Proxy{there: there, name: name, seen: map[string]int{}, held: make(chan struct{})}
	server := httptest.NewServer(p)
	p.URL = server.URL
	t.Cleanup(func() {
		p.Release()
		server.CloseClientConnections()
		server.Close()
	})
	return p
}

// Passing passes requests on to the server at address, a URL of which scheme and host
// are heeded. A server that does not answer is a connection that is cut.
func Passing(t testing.TB, address string) http.Handler {
	t.Helper()
	there, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = there.Scheme, there.Host, r.In.Host
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
}

// ServeHTTP implements http.Handler, for who has a server of another kind.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.seen[p.name(r)]++
	p.asked = append(p.asked, r)
	f := p.fault
	p.mu.Unlock()
	if f == nil || !f(p, w, r) {
		p.there.ServeHTTP(w, r)
	}
}

// Set has f befall the requests from now on, nil = none, and begins to count anew.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.seen = f, map[string]int{}
}

// Count is how many requests of that name have come since the last Set.
func (p *Proxy) Count(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen[name]
}

// Requests are those since the last call of it.
func (p *Proxy) Requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.asked)
	p.asked = nil
	return all
}

// Release lets go on what is held; nothing is held after it.
func (p *Proxy) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.held:
	default:
		close(p.held)
	}
}
