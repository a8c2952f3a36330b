// Package glanceapi is glancectl's client of the Images API v2 and of glanced's
// admin routes, over the control socket or over a URL.
//
// The JSON of an image is kept as the server sent it (Image is a map), because
// custom properties stand beside the fields of the API.
package glanceapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	dialTimeout    = 10 * time.Second
	requestTimeout = 2 * time.Minute // of a request that carries no image data
	continueWait   = 2 * time.Second // for a server that ignores Expect: 100-continue
	maxAnswer      = 64 << 20        // bytes of a JSON answer: a page of 1000 images is some MiB
	maxRetries     = 3               // of a GET, on 503 with Retry-After
	minRetryAfter  = 50 * time.Millisecond
	maxRetryAfter  = 30 * time.Second
)

// Client talks to one server. Safe for concurrent use.
type Client struct {
	base   *url.URL // without /v2 and without a trailing slash
	token  string
	socket string // "" = over base
	http   *http.Client
}

// NewSocket is a client of the control socket at path. Who asks is known to the
// server by the credentials of the socket's peer, so there is no token.
func NewSocket(path string) *Client {
	dialer := net.Dialer{Timeout: dialTimeout}
	return newClient(&url.URL{Scheme: "http", Host: "localhost"}, "", path, &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
	})
}

// NewURL is a client of the Images API at raw ("http://host:9292", with or
// without a final /v2), which asks with token where it is not empty.
func NewURL(raw, token string) (*Client, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("the URL cannot be read: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("the URL %q is not of the form http://HOST:PORT", raw)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("the URL of %s may carry no user, query or fragment", u.Host)
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/v2")
	dialer := net.Dialer{Timeout: dialTimeout}
	return newClient(u, token, "", &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext}), nil
}

func newClient(base *url.URL, token, socket string, t *http.Transport) *Client {
	t.ExpectContinueTimeout = continueWait
	t.DisableCompression = true // image data must arrive as stored
	return &Client{base: base, token: token, socket: socket, http: &http.Client{
		Transport: t,
		// net/http would carry X-Auth-Token along to any host that the answer names.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Where names the server for messages.
func (c *Client) Where() string {
	if c.socket != "" {
		return "the socket " + c.socket
	}
	return c.base.String()
}

// OverSocket reports whether the client talks to a control socket.
func (c *Client) OverSocket() bool { return c.socket != "" }

// request is one exchange; path segments must already be escaped.
type request struct {
	method, path string
	query        url.Values
	header       http.Header
	body         io.Reader
	size         int64 // of body in bytes; -1 = unknown, sent in chunks
}

// send makes the exchange, and returns an answer of status 2xx, whose body the
// caller closes, or an error: *Error where the server answered otherwise.
func (c *Client) send(ctx context.Context, r request) (*http.Response, error) {
	for tries := 1; ; tries++ {
		resp, err := c.sendOnce(ctx, r)
		e, ok := err.(*Error)
		if !ok || r.method != http.MethodGet || e.Status != http.StatusServiceUnavailable ||
			tries > maxRetries || e.RetryAfter <= 0 || e.RetryAfter > maxRetryAfter {
			return resp, err
		}
		select {
		case <-time.After(e.RetryAfter):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *Client) sendOnce(ctx context.Context, r request) (*http.Response, error) {
	u := c.base.String() + r.path
	if len(r.query) > 0 {
		u += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, u, r.body)
	if err != nil {
		return nil, fmt.Errorf("make the request %s %s: %w", r.method, r.path, err)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.body != nil {
		req.ContentLength = r.size
		if r.size == 0 {
			req.Body = http.NoBody
		}
	}
	req.Header.Set("User-Agent", "glancectl")
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if ue, ok := err.(*url.Error); ok {
			err = ue.Err // it repeats the method and the URL
		}
		return nil, &ConnError{Client: c, Err: err}
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, answerError(r, resp)
}

// call sends in (nil = nothing) as JSON and decodes the answer into out (nil = dropped).
func (c *Client) call(ctx context.Context, r request, in, out any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, requestTimeout,
		fmt.Errorf("%s gave no answer to %s %s within %s", c.Where(), r.method, r.path, requestTimeout))
	defer cancel()
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		if r.header == nil {
			r.header = http.Header{"Content-Type": {"application/json"}}
		}
		r.body, r.size = bytes.NewReader(b), int64(len(b))
	}
	resp, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return &ConnError{Client: c, Err: err}
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("the answer to %s %s is longer than %d bytes", r.method, r.path, maxAnswer)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("the answer to %s %s is not what the Images API gives (%w): is %s really glanced or Glance?", r.method, r.path, err, c.Where())
	}
	return nil
}

// retryAfter reads a Retry-After header in seconds or as a date (RFC 9110, 10.2.3); 0 = none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if v == "" {
		return 0
	}
	if n, err := strconv.Atoi(v); err == nil {
		return max(time.Duration(min(n, 3600))*time.Second, minRetryAfter)
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(t.Sub(now), minRetryAfter)
	}
	return 0
}
