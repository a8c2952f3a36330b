package swift

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"glanced/backends"
)

const (
	connectTime = 5 * time.Second
	// stallTime is how long a request may move no byte, in either direction.
	stallTime = 30 * time.Second
	idleTime  = 90 * time.Second
)

// dialer makes clients.
type dialer struct {
	connections int
	authorities *x509.CertPool
	redirect    func(addr string) string // tests
}

func (d dialer) http() *http.Client {
	plain := &net.Dialer{Timeout: connectTime, KeepAlive: 30 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				if d.redirect != nil {
					addr = d.redirect(addr)
				}
				return plain.DialContext(ctx, network, addr)
			},
			TLSClientConfig:     &tls.Config{RootCAs: d.authorities, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: 2 * connectTime,
			MaxConnsPerHost:     d.connections,
			MaxIdleConns:        d.connections,
			MaxIdleConnsPerHost: d.connections,
			IdleConnTimeout:     idleTime,
			DisableCompression:  true,
			WriteBufferSize:     64 << 10,
		},
		// A server that sends elsewhere does not choose where our requests go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// straight is a transport for a client that is not ours to tell about redirects.
type straight struct{ http.RoundTripper }

func (s straight) RoundTrip(req *http.Request) (*http.Response, error) {
	answer, err := s.RoundTripper.RoundTrip(req)
	if err == nil && answer.StatusCode >= 300 && answer.StatusCode < 400 && answer.Header.Get("Location") != "" {
		answer.Body.Close()
		return nil, errors.New("the server sends elsewhere")
	}
	return answer, err
}

// watch ends a request in which nothing moves for a time.
type watch struct {
	ctx   context.Context
	timer *time.Timer
	most  time.Duration
	stop  func()
}

func newWatch(ctx context.Context, most time.Duration) *watch {
	stalled := fmt.Errorf("%w: nothing moved for %v", backends.ErrUnavailable, most)
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(most, func() { cancel(stalled) })
	return &watch{ctx, timer, most, func() { timer.Stop(); cancel(context.Canceled) }}
}

// moved is told that something did, or is about to.
func (w *watch) moved() { w.timer.Reset(w.most) }

// rest has the watch look away: it is not the server who is waited for.
func (w *watch) rest() { w.timer.Stop() }
