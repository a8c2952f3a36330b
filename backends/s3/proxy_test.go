package s3

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
	t *testing.T

	there string // the server's URL

	mu    sync.Mutex
	fault fault
	seen  map[string]int // requests, by call
	held  chan struct{}  // closed: what is held goes on
}

// fault does something about a request: true = it has answered itself.
type fault func(p *proxy, call string, w http.ResponseWriter, r *http.Request) bool

// calls names a request as S3's API does.
func calls(r *http.Request) string {
	q := r.URL.Query()
	switch {
	case strings.Count(strings.Trim(r.URL.Path, "/"), "/") == 0:
		return r.Method + " bucket"
	case r.Method == "POST" && q.Has("uploads"):
		return "CreateMultipartUpload"
	case r.Method == "POST":
		return "CompleteMultipartUpload"
	case r.Method == "PUT" && q.Has("partNumber"):
		return "UploadPart"
	case r.Method == "PUT":
		return "PutObject"
	case r.Method == "DELETE" && q.Has("uploadId"):
		return "AbortMultipartUpload"
	case r.Method == "DELETE":
		return "DeleteObject"
	case r.Method == "GET" && q.Has("uploadId"):
		return "ListParts"
	case r.Method == "GET":
		return "GetObject"
	}
	return "HeadObject"
}

func before(t *testing.T, srv testbed.S3Server) (*proxy, testbed.S3Server) {
	t.Helper()
	there, err := url.Parse(srv.Endpoint)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, there: srv.Endpoint, seen: map[string]int{}, held: make(chan struct{})}
	// The host stays the client's, which it has signed.
	forward := &httputil.ReverseProxy{Director: func(r *http.Request) { r.URL.Scheme, r.URL.Host = there.Scheme, there.Host },
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) { cut(w) }}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		call := calls(r)
		p.mu.Lock()
		p.seen[call]++
		f := p.fault
		p.mu.Unlock()
		if f == nil || !f(p, call, w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		p.let()
		p.Server.CloseClientConnections()
		p.Server.Close()
	})
	srv.Endpoint = p.URL
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

// let has go on what is held.
func (p *proxy) let() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.held:
	default:
		close(p.held)
	}
}

// onCall has a fault befall the calls that are named, the first n of them.
func onCall(name string, n int, f fault) fault {
	var mu sync.Mutex
	return func(p *proxy, call string, w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		hit := call == name && n > 0
		if hit {
			n--
		}
		mu.Unlock()
		return hit && f(p, call, w, r)
	}
}

func cut(w http.ResponseWriter) {
	if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
		c.Close()
	}
}

// Faults.

// answer answers by itself: status, code, and headers in pairs.
func answer(status int, code string, headers ...string) fault {
	return func(_ *proxy, _ string, w http.ResponseWriter, r *http.Request) bool {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		text := `<?xml version="1.0"?><Error><Code>` + code + `</Code><Message>says the server</Message></Error>`
		w.Header().Set("Content-Type", "application/xml")
		w.Header().Set("Content-Length", strconv.Itoa(len(text)))
		w.WriteHeader(status)
		if r.Method != "HEAD" {
			io.WriteString(w, text)
		}
		return true
	}
}

// refuse cuts the connection before the request gets anywhere.
func refuse(_ *proxy, _ string, w http.ResponseWriter, _ *http.Request) bool {
	cut(w)
	return true
}

// hold answers nothing until the proxy is told to let go, and then passes it on.
func hold(p *proxy, _ string, _ http.ResponseWriter, _ *http.Request) bool {
	<-p.held
	return false
}

// recorded is the answer of the server, which change may change on its way.
func recorded(change func(h http.Header, body []byte) []byte, announced func(n int) int) fault {
	return func(p *proxy, _ string, w http.ResponseWriter, r *http.Request) bool {
		there, _ := http.NewRequest(r.Method, p.there+r.URL.RequestURI(), r.Body)
		there.Host, there.Header, there.ContentLength = r.Host, r.Header, r.ContentLength
		resp, err := http.DefaultTransport.RoundTrip(there)
		if err != nil {
			p.t.Errorf("the server does not answer: %v", err)
			cut(w)
			return true
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		if change == nil { // the answer is lost
			cut(w)
			return true
		}
		h := resp.Header.Clone()
		body = change(h, body)
		for k, v := range h {
			w.Header()[k] = v
		}
		n := len(body)
		if announced != nil {
			n = announced(n)
		}
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.WriteHeader(resp.StatusCode)
		w.Write(body)
		return true
	}
}
