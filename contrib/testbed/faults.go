package testbed

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault does something about a request that came to a Proxy: true = it has answered it
// itself. It is called concurrently.
type Fault func(p *Proxy, w http.ResponseWriter, r *http.Request) bool

// On has a fault befall the requests of one name, the first n of them.
func On(name string, n int, f Fault) Fault {
	var mu sync.Mutex
	return func(p *Proxy, w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		hit := p.name(r) == name && n > 0
		if hit {
			n--
		}
		mu.Unlock()
		return hit && f(p, w, r)
	}
}

// Always is On of all the requests of that name.
func Always(name string, f Fault) Fault { return On(name, 1<<30, f) }

// Answer answers in the server's place: status, body, and headers in pairs.
func Answer(status int, body string, headers ...string) Fault {
	return func(_ *Proxy, w http.ResponseWriter, r *http.Request) bool {
		for i := 0; i < len(headers); i += 2 {
			w.Header().Set(headers[i], headers[i+1])
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			io.WriteString(w, body)
		}
		return true
	}
}

// Say answers in these words, \n standing for the end of a line, and closes the
// connection.
func Say(text string) Fault {
	return func(_ *Proxy, w http.ResponseWriter, _ *http.Request) bool {
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(c, strings.ReplaceAll(text, "\n", "\r\n"))
		c.Close()
		return true
	}
}

// Cut cuts the connection before the request gets anywhere.
func Cut(*Proxy, http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }

// Hold answers nothing until Release, and then passes the request on; or until its
// client has gone.
func Hold(p *Proxy, _ http.ResponseWriter, r *http.Request) bool {
	select {
	case <-p.held:
		return false
	case <-r.Context().Done():
		panic(http.ErrAbortHandler)
	}
}

// Delay passes requests on after a time.
func Delay(d time.Duration) Fault {
	return func(_ *Proxy, _ http.ResponseWriter, r *http.Request) bool {
		select {
		case <-time.After(d):
			return false
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
}

// Before does something, such as to put another object in the place of the one that is
// asked for, and passes the request on.
func Before(do func(*http.Request)) Fault {
	return func(_ *Proxy, _ http.ResponseWriter, r *http.Request) bool {
		do(r)
		return false
	}
}

// Unconditional takes the condition from a request, as some proxies do.
func Unconditional(_ *Proxy, _ http.ResponseWriter, r *http.Request) bool {
	r.Header.Del("If-Match")
	return false
}

// Lose has the server do its work, and cuts the connection instead of its answer.
func Lose(p *Proxy, _ http.ResponseWriter, r *http.Request) bool {
	p.there.ServeHTTP(httptest.NewRecorder(), r)
	panic(http.ErrAbortHandler)
}

// Change changes the server's answer, its headers or its body. The length that is
// announced is right.
func Change(change func(h http.Header, body []byte) []byte) Fault {
	return func(p *Proxy, w http.ResponseWriter, r *http.Request) bool {
		got := httptest.NewRecorder()
		p.there.ServeHTTP(got, r)
		body := change(got.Header(), got.Body.Bytes())
		if r.Method != http.MethodHead && got.Header().Get("Content-Length") != "" {
			got.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		send(w, r, got, body)
		return true
	}
}

// Corrupt flips a bit in the middle of a body; its length and its headers are right.
var Corrupt = Change(func(_ http.Header, body []byte) []byte {
	body = bytes.Clone(body)
	if len(body) > 0 {
		body[len(body)/2] ^= 0x20
	}
	return body
})

// Truncate sends half of the body that it announces, and cuts the connection.
func Truncate(p *Proxy, w http.ResponseWriter, r *http.Request) bool {
	half(p, w, r)
	panic(http.ErrAbortHandler)
}

// Stall sends half of the body that it announces, and then nothing until Release, or
// until its client has gone.
func Stall(p *Proxy, w http.ResponseWriter, r *http.Request) bool {
	half(p, w, r)
	select {
	case <-p.held:
	case <-r.Context().Done():
	}
	panic(http.ErrAbortHandler)
}

func half(p *Proxy, w http.ResponseWriter, r *http.Request) {
	got := httptest.NewRecorder()
	p.there.ServeHTTP(got, r)
	got.Header().Set("Content-Length", strconv.Itoa(got.Body.Len()))
	send(w, r, got, got.Body.Bytes()[:got.Body.Len()/2])
	w.(http.Flusher).Flush()
}

func send(w http.ResponseWriter, r *http.Request, got *httptest.ResponseRecorder, body []byte) {
	for key, values := range got.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(got.Code)
	if r.Method != http.MethodHead {
		w.Write(body)
	}
}
