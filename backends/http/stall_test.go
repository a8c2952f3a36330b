package http

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"glanced/backends"
)

// within answers requests by a server in the same bubble as the test, by pipes.
type within struct{ conns chan net.Conn }

func (l within) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (l within) Close() error   { return nil }
func (l within) Addr() net.Addr { return &net.UnixAddr{Name: "within"} }

func (l within) dial(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	l.conns <- theirs
	return ours, nil
}

// An answer that does not begin, or stops, for as long as the timeout ends the read; one
// that is only slow does not.
func TestAnAnswerThatStallsIsGivenUp(t *testing.T) {
	const most = 10 * time.Second
	for name, c := range map[string]struct {
		pauses []time.Duration // before the answer, and before each of its bytes
		took   time.Duration
		want   error
	}{
		"slow":              {[]time.Duration{most - 1, most - 1, most - 1, most - 1}, 4 * (most - 1), nil},
		"does not begin":    {[]time.Duration{time.Hour}, most, backends.ErrUnavailable},
		"stops at once":     {[]time.Duration{time.Second, time.Hour}, most + time.Second, backends.ErrUnavailable},
		"stops in the body": {[]time.Duration{0, most - 1, most - 1, time.Hour}, 3*most - 2, backends.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s, err := Open(Config{ID: "web", Connections: 1, Timeout: Defaults.Timeout, Spool: dir, SpoolLimit: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				l := within{make(chan net.Conn, 1)}
				s.transport.DialContext = l.dial
				pauses := []time.Duration{0, 0, 0, 0}
				server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					pause := func(i int) {
						if i < len(pauses) {
							select {
							case <-time.After(pauses[i]):
							case <-r.Context().Done():
							}
						}
					}
					pause(0)
					var first, last int
					fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last)
					w.Header().Set("Etag", `"one"`)
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/3", first, last))
					w.Header().Set("Content-Length", fmt.Sprint(last-first+1))
					w.WriteHeader(http.StatusPartialContent)
					for i := range last - first + 1 {
						w.(http.Flusher).Flush()
						pause(i + 1)
						w.Write([]byte("abc"[first+i : first+i+1]))
					}
				})}
				go server.Serve(l)
				b, err := s.Open(t.Context(), backends.Location{Store: "web", URL: "http://within/k", Size: -1})
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				pauses = c.pauses
				began, got := time.Now(), make([]byte, 3)
				err = b.ReadAt(t.Context(), got, 0)
				if took := time.Since(began); !errors.Is(err, c.want) || c.want == nil && (err != nil || string(got) != "abc") || took != c.took {
					t.Errorf("%q, %v after %v", got, err, took)
				}
				b.Close()
				s.Close()
				close(l.conns)
				server.Close()
			})
		})
	}
}
