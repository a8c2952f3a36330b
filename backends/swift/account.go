package swift

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	swiftauth "github.com/ncw/swift/v2"

	"glanced/backends"
	"glanced/backends/flight"
	"glanced/backends/overhttp"
)

const (
	// early is how long before its end a token is not used any more.
	early = time.Minute
	// trusted is how long after the server took a token it is believed to take it again.
	trusted = time.Minute
	// maxAnswer bounds what is read of an answer that is not an object, bytes: a page of
	// a listing, of 10,000 names of 1024 bytes at most, with all else of them.
	maxAnswer = 64 << 20
)

// account is a login and what it was given: a token, and where the account lies.
type account struct {
	s      *Store
	login  login
	flight flight.Group[string, session]

	mu    sync.Mutex
	last  session
	taken time.Time // when the server last took the token
}

type session struct {
	storage *url.URL
	token   string
	expires time.Time // zero = not told
}

// session is a token and where to use it. refused is a token that the server did not
// take, "" = none: whoever comes first with it asks for the next one, for all.
func (a *account) session(ctx context.Context, refused string) (session, error) {
	current := func() (session, bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		good := a.last.token != "" && a.last.token != refused && (a.last.expires.IsZero() || time.Until(a.last.expires) > early)
		return a.last, good
	}
	if now, good := current(); good {
		return now, nil
	}
	return a.flight.Do(ctx, "", func(ctx context.Context) (session, error) {
		if now, good := current(); good {
			return now, nil
		}
		next, err := a.authenticate(ctx)
		if err == nil {
			a.mu.Lock()
			a.last, a.taken = next, time.Now()
			a.mu.Unlock()
		}
		return next, err
	})
}

// authenticate asks for a token. Errors do not hold what was sent.
func (a *account) authenticate(ctx context.Context) (session, error) {
	const doing = "ask for a token"
	l := a.login
	watch := newWatch(ctx, a.s.cfg.stall)
	defer watch.stop()
	c := &swiftauth.Connection{
		AuthUrl: l.url, AuthVersion: l.version, UserName: l.user, ApiKey: string(l.key), Tenant: l.project,
		Domain: l.userDomain.name, DomainId: l.userDomain.id, TenantDomain: l.projectDomain.name, TenantDomainId: l.projectDomain.id,
		Region: l.region, EndpointType: swiftauth.EndpointType(l.endpoint),
		ConnectTimeout: 2 * a.s.cfg.stall, Transport: straight{a.s.http.Transport},
	}
	if err := c.Authenticate(watch.ctx); err != nil {
		said := (*swiftauth.Error)(nil)
		if !errors.As(err, &said) || said.StatusCode == 0 && ctx.Err() != nil {
			return session{}, failed(ctx, watch.ctx, doing, err)
		}
		switch status := said.StatusCode; {
		case status == http.StatusUnauthorized || status == http.StatusForbidden:
			return session{}, fmt.Errorf("%s: %w: %s refuses the user or the key (%d): check user, key, project and the domains", doing, backends.ErrDenied, a.host(), status)
		case status == 0:
			return session{}, fmt.Errorf("%s: %w: %s names no object store: check region and endpoint_type", doing, backends.ErrUnavailable, a.host())
		case status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status == 498:
			return session{}, fmt.Errorf("%s: %w: %s answers %d", doing, backends.ErrUnavailable, a.host(), status)
		default:
			return session{}, fmt.Errorf("%s: %w: %s answers %d: check auth_url and auth_version", doing, backends.ErrUnavailable, a.host(), status)
		}
	}
	storage, err := url.Parse(c.StorageUrl)
	if err != nil || storage.Scheme != "http" && storage.Scheme != "https" || storage.Host == "" {
		return session{}, fmt.Errorf("%s: %w: %s names no object store: check region and endpoint_type", doing, backends.ErrUnavailable, a.host())
	}
	return session{storage, c.AuthToken, c.Expires}, nil
}

// host is where tokens are asked for, host:port.
func (a *account) host() string {
	u, err := url.Parse(a.login.url)
	if err != nil {
		return ""
	}
	return overhttp.HostPort(u.Host, u.Scheme == "https")
}

// place is an object, a container (name is "") or an account (container is "").
type place struct {
	account   *account
	tenant    string // path of another account on the account's server, such as /v1/AUTH_x; "" = the account's own
	container string
	name      string
}

// in is another object of p's account.
func (p place) in(container, name string) place {
	p.container, p.name = container, name
	return p
}

// url is where p lies.
func (p place) url(at session, query string) string {
	u := *at.storage
	u.RawQuery, u.Fragment, u.User = query, "", nil
	path, raw := u.Path, u.EscapedPath()
	if p.tenant != "" {
		path, raw = p.tenant, (&url.URL{Path: p.tenant}).EscapedPath()
	}
	if p.container != "" {
		path, raw = path+"/"+p.container, raw+"/"+url.PathEscape(p.container)
	}
	if p.name != "" {
		path, raw = path+"/"+p.name, raw+"/"+escapeName(p.name)
	}
	u.Path, u.RawPath = path, raw
	return u.String()
}

// request is one that may be made twice.
type request struct {
	method, query string
	header        http.Header
	body          []byte
}

// do makes a request, twice where the token is refused: it may have ended. The answer is
// a success, whose body the caller closes before it stops the watch.
func (p place) do(ctx context.Context, doing string, watch *watch, r request) (*http.Response, error) {
	at, err := p.account.session(ctx, "")
	if err != nil {
		return nil, err
	}
	for again := false; ; again = true {
		req, err := http.NewRequestWithContext(watch.ctx, r.method, p.url(at, r.query), bytes.NewReader(r.body))
		if err != nil {
			return nil, fmt.Errorf("%s: %w: it has no URL", doing, backends.ErrBadLocation)
		}
		if len(r.body) == 0 && r.method != http.MethodPut {
			req.Body, req.GetBody = nil, nil
		}
		for key, values := range r.header {
			req.Header[key] = values
		}
		answer, err := p.account.send(p.account.s.http, req, at)
		if err != nil {
			return nil, failed(ctx, watch.ctx, doing, err)
		}
		if answer.StatusCode == http.StatusUnauthorized && !again {
			answer.Body.Close()
			if at, err = p.account.session(ctx, at.token); err != nil {
				return nil, err
			}
			watch.moved()
			continue
		}
		if answer.StatusCode < 200 || answer.StatusCode > 299 {
			return nil, refused(doing, answer)
		}
		return answer, nil
	}
}

func (a *account) send(c *http.Client, req *http.Request, at session) (*http.Response, error) {
	req.Header.Set("X-Auth-Token", at.token)
	req.Header.Set("User-Agent", "glanced")
	answer, err := c.Do(req)
	if err == nil && answer.StatusCode < 300 {
		a.mu.Lock()
		a.taken = time.Now()
		a.mu.Unlock()
	}
	return answer, err
}

// ask makes a request whose answer is short, and is its headers and body.
func (p place) ask(ctx context.Context, doing string, r request) (http.Header, []byte, error) {
	watch := newWatch(ctx, p.account.s.cfg.stall)
	defer watch.stop()
	answer, err := p.do(ctx, doing, watch, r)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(&moving{io.LimitReader(answer.Body, maxAnswer+1), watch})
	if err != nil {
		return nil, nil, failed(ctx, watch.ctx, doing, err)
	}
	if len(body) > maxAnswer {
		return nil, nil, fmt.Errorf("%s: %w: the answer is too long", doing, backends.ErrUnavailable)
	}
	return answer.Header, body, nil
}

// about is what the server says of a container or an account. Not by HEAD: Swift's answer
// to that has a body (the end of a chunked one), which is found before the next answer
// of the connection.
func (p place) about(ctx context.Context, doing string) (http.Header, error) {
	h, _, err := p.ask(ctx, doing, request{method: http.MethodGet, query: "format=json&limit=1"})
	return h, err
}

// fresh makes it likely that the token is taken by a request that cannot be made twice.
func (p place) fresh(ctx context.Context) (session, error) {
	a := p.account
	a.mu.Lock()
	sure := time.Since(a.taken) < trusted
	a.mu.Unlock()
	if !sure {
		if _, err := p.in(p.container, "").about(ctx, "look at the container"); err != nil {
			return session{}, err
		}
	}
	return a.session(ctx, "")
}

// moving tells a watch of what is read.
type moving struct {
	io.Reader
	watch *watch
}

func (m *moving) Read(p []byte) (int, error) {
	m.watch.moved()
	return m.Reader.Read(p)
}
