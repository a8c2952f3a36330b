package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/retry"
)

const (
	maxRedirects = 5       // as Glance
	drain        = 4 << 10 // what of an answer that is not wanted is read, so that its connection can be used again
)

// answer is what a server says, its body not read yet. Close it.
type answer struct {
	*http.Response
	ctx    context.Context // of the exchange
	cancel context.CancelCauseFunc
	stall  *time.Timer // ends the exchange when the body does not come
	most   time.Duration
}

// get asks for u, with extra headers, and follows redirects: never from https to
// http, and the user and password go to no other server than u's.
func (s *Store) get(ctx context.Context, u *url.URL, header http.Header) (*answer, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	at := u
	for hops := 0; ; hops++ {
		a, err := s.ask(ctx, at, credentials(u, at), header)
		if err != nil {
			return nil, fmt.Errorf("GET %s: %w", shown(at), err)
		}
		if !slices.Contains([]int{301, 302, 303, 307, 308}, a.StatusCode) {
			return a, nil
		}
		next, err := redirected(at, a.Header.Get("Location"))
		a.drain()
		a.Close()
		if err == nil && hops == maxRedirects {
			err = fmt.Errorf("more than %d redirects", maxRedirects)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: GET %s: %w", backends.ErrUnavailable, shown(at), err)
		}
		at = next
	}
}

// credentials are those of u where at is on the same server.
func credentials(u, at *url.URL) *url.Userinfo {
	if origin(u) != origin(at) {
		return nil
	}
	return u.User
}

// redirected is where an answer from u sends us on to.
func redirected(u *url.URL, location string) (*url.URL, error) {
	if len(location) > maxURL {
		return nil, errors.New("redirected to a URL that is too long")
	}
	next, err := u.Parse(location)
	if err != nil || location == "" || next.Scheme != "http" && next.Scheme != "https" || next.Hostname() == "" {
		return nil, errors.New("redirected to what is no URL of HTTP")
	}
	if u.Scheme == "https" && next.Scheme == "http" {
		return nil, fmt.Errorf("redirected to %s, which is not encrypted", shown(next))
	}
	next.User, next.Fragment, next.RawFragment = nil, "", ""
	return next, nil
}

// ask makes one exchange.
func (s *Store) ask(ctx context.Context, u *url.URL, who *url.Userinfo, header http.Header) (*answer, error) {
	exchange, cancel := context.WithCancelCause(ctx)
	bare := *u
	bare.User = nil
	req := (&http.Request{Method: http.MethodGet, URL: &bare, Host: bare.Host, Header: http.Header{
		"Accept-Encoding": {"identity"}, "User-Agent": {"glanced"},
	}}).WithContext(exchange)
	for k, v := range header {
		req.Header[k] = v
	}
	if who != nil {
		password, _ := who.Password()
		req.SetBasicAuth(who.Username(), password)
	}
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		err = failed(exchange, err)
		cancel(nil)
		return nil, err
	}
	return &answer{Response: resp, ctx: exchange, cancel: cancel, most: s.timeout, stall: time.AfterFunc(s.timeout, func() {
		cancel(fmt.Errorf("%w: nothing came for %v", backends.ErrUnavailable, s.timeout))
	})}, nil
}

// failed is why an exchange was broken off.
func failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Not wrapped: a time limit of the network is not one of our caller.
	return fmt.Errorf("%w: %v", backends.ErrUnavailable, err)
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	a.stall.Reset(a.most)
	n, err := a.Body.Read(p)
	if err != nil && err != io.EOF {
		err = failed(a.ctx, err)
	}
	return n, err
}

// Close ends the exchange. A body that was not read to its end costs the connection.
func (a *answer) Close() {
	a.stall.Stop()
	a.Body.Close()
	a.cancel(nil)
}

func (a *answer) drain() { io.CopyN(io.Discard, a, drain) }

// exactly fills p with the body, which must be as long.
func (a *answer) exactly(p []byte) error {
	if a.ContentLength >= 0 && a.ContentLength != int64(len(p)) {
		return fmt.Errorf("%w: the answer has %d bytes, %d were asked for", backends.ErrUnavailable, a.ContentLength, len(p))
	}
	for n := 0; n < len(p); {
		m, err := a.Read(p[n:])
		n += m
		if err == io.EOF && n < len(p) {
			return fmt.Errorf("%w: the answer ended after %d of %d bytes", backends.ErrUnavailable, n, len(p))
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	var more [1]byte
	for {
		n, err := a.Read(more[:])
		switch {
		case n > 0:
			return fmt.Errorf("%w: the answer has more than the %d bytes that were asked for", backends.ErrUnavailable, len(p))
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// refusal is what a status other than the expected ones means.
func (a *answer) refusal() error {
	say := func(kind error) error { return fmt.Errorf("%w: the server answered %s", kind, status(a.StatusCode)) }
	switch code := a.StatusCode; {
	case code == http.StatusNotFound, code == http.StatusGone:
		return say(backends.ErrNotFound)
	case code == http.StatusPreconditionFailed, code == http.StatusRequestedRangeNotSatisfiable:
		return say(backends.ErrChanged)
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return retry.After(say(backends.ErrUnavailable), overhttp.RetryAfter(a.Header, time.Now()))
	case code >= 400:
		return say(backends.ErrDenied)
	}
	return say(backends.ErrUnavailable)
}

// status is our own words for a status: the server's are anybody's.
func status(code int) string { return fmt.Sprintf("%d %s", code, http.StatusText(code)) }
