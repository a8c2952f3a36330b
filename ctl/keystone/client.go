package keystone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gophercloud/gophercloud/v2"

	"glanced/backends/flight"
	"glanced/backends/setting"
	"glanced/ctl"
)

const (
	// connectTime and answerTime bound one attempt; the second is all of it.
	connectTime = 3 * time.Second
	answerTime  = 5 * time.Second
	// attempts are made of what fails in a way that may pass, with pauses between them.
	attempts   = 3
	firstPause = 100 * time.Millisecond
	morePause  = 4 // times the pause before
	// connections are open to Keystone at a time; who needs one more waits.
	connections = 32
	idleTime    = 90 * time.Second

	// early is how long before its end the service's own token is not used any more.
	early = time.Minute
	// deniedPause is how long Keystone is not asked for a token after it has refused the
	// password: some lock a user who fails often.
	deniedPause = 30 * time.Second

	// maxAnswer bounds an answer, bytes. One without the service catalog has some 2 KiB.
	maxAnswer = 1 << 20
)

// ErrDenied says that Keystone does not take the service's user or password. It is also
// ctl.ErrNotChecked: it says nothing of any client's token.
var ErrDenied = fmt.Errorf("%w: the user of [auth.keystone] is refused", ctl.ErrNotChecked)

// client asks Keystone, as the service's user. Safe for concurrent use.
type client struct {
	cfg      Config
	password setting.Secret
	keystone *gophercloud.ServiceClient
	login    flight.Group[struct{}, session]

	mu        sync.Mutex
	own       session
	denied    error // of the last login; until deniedEnd
	deniedEnd time.Time
}

// session is a token of the service's own.
type session struct {
	id      string
	expires time.Time
}

func newClient(cfg Config) (*client, error) {
	password, err := cfg.secret()
	if err != nil {
		return nil, err
	}
	authorities, err := cfg.authorities()
	if err != nil {
		return nil, err
	}
	provider := &gophercloud.ProviderClient{HTTPClient: http.Client{
		Transport: bounded{&http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: connectTime, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:     &tls.Config{RootCAs: authorities, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout: connectTime,
			MaxConnsPerHost:     connections,
			MaxIdleConnsPerHost: connections,
			IdleConnTimeout:     idleTime,
			DisableCompression:  true, // an answer is bounded as it comes
		}},
		// A server that sends elsewhere does not choose who gets to see tokens.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	provider.UserAgent.Prepend("glanced")
	return &client{cfg: cfg, password: password, keystone: &gophercloud.ServiceClient{ProviderClient: provider, Endpoint: cfg.endpoint(), Type: "identity"}}, nil
}

// bounded cuts answers off that are too long.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// description is a token in an answer (Identity API v3, "Validate and show information
// for token").
type description struct {
	Token struct {
		Expires time.Time `json:"expires_at"`
		User    struct {
			ID string `json:"id"`
		} `json:"user"`
		Project struct { // "" = of another scope, or of none
			ID string `json:"id"`
		} `json:"project"`
		Roles []struct {
			Name string `json:"name"`
		} `json:"roles"`
	} `json:"token"`
}

// token is the described one.
func (d description) token() token {
	t := token{expires: d.Token.Expires}
	t.who.User, t.who.Project = d.Token.User.ID, d.Token.Project.ID
	for _, r := range d.Token.Roles {
		t.service = t.service || strings.EqualFold(r.Name, serviceRole)
		if t.who.Project != "" {
			t.who.Roles = append(t.who.Roles, r.Name)
		}
	}
	return t
}

// failure is why Keystone could not be asked. It is ctl.ErrNotChecked.
type failure struct {
	text string
	pass bool // it may pass: another attempt is worth it
}

func (f *failure) Error() string { return fmt.Sprintf("%v: %s", ctl.ErrNotChecked, f.text) }
func (f *failure) Unwrap() error { return ctl.ErrNotChecked }

// status is an answer that is no success.
type status int

func (s status) Error() string { return fmt.Sprintf("Keystone answers %d", int(s)) }

// validate asks whose a token is. expiredToo: it may have expired. It fails with
// ctl.ErrUnauthorized when Keystone knows no such token, and with ctl.ErrNotChecked when
// it does not say; with ctx's cause when nobody wants to know any more.
func (c *client) validate(ctx context.Context, text string, expiredToo bool) (token, error) {
	for n, pause := 1, firstPause; ; n, pause = n+1, pause*morePause {
		t, err := c.attempt(ctx, text, expiredToo)
		failed := (*failure)(nil)
		if n == attempts || !errors.As(err, &failed) || !failed.pass {
			return t, err
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
			return token{}, context.Cause(ctx)
		}
	}
}

// attempt is one attempt of validate, with a new token of the service's own when
// Keystone does not take the one that there is.
func (c *client) attempt(ctx context.Context, text string, expiredToo bool) (token, error) {
	query := "nocatalog=1"
	if expiredToo {
		query += "&allow_expired=1"
	}
	refused := ""
	for {
		own, err := c.session(ctx, refused)
		if err != nil {
			return token{}, err
		}
		var d description
		_, err = c.call(ctx, http.MethodGet, query, http.StatusOK, map[string]string{"X-Auth-Token": own.id, "X-Subject-Token": text}, nil, &d)
		if err == nil && (d.Token.User.ID == "" || d.Token.Expires.IsZero()) {
			return token{}, &failure{"Keystone's answer describes no token", true}
		}
		switch s, _ := err.(status); s {
		case http.StatusNotFound:
			return token{}, errRefused
		case http.StatusUnauthorized:
			if refused != "" {
				return token{}, &failure{fmt.Sprintf("Keystone does not take the token that it has just given to user %q", c.cfg.Username), false}
			}
			refused = own.id
		case http.StatusForbidden:
			return token{}, &failure{fmt.Sprintf("Keystone does not let user %q validate tokens: give it the role service or admin in project %q", c.cfg.Username, c.cfg.ProjectName), false}
		default:
			return d.token(), c.explain(err)
		}
	}
}

// explain makes a failure of any status.
func (c *client) explain(err error) error {
	s, ok := err.(status)
	if !ok {
		return err
	}
	if s >= 500 || slices.Contains([]status{http.StatusRequestTimeout, http.StatusTooManyRequests, 498}, s) {
		return &failure{s.Error(), true}
	}
	return &failure{fmt.Sprintf("%v at %s: check auth_url", s, c.keystone.Endpoint), false}
}

// session is a token of the service's own. refused is one that Keystone did not take, ""
// = none: whoever comes first with it asks for the next one, for all.
func (c *client) session(ctx context.Context, refused string) (session, error) {
	current := func() (session, bool, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.denied != nil && c.cfg.now().Before(c.deniedEnd) {
			return session{}, false, c.denied
		}
		return c.own, c.own.id != "" && c.own.id != refused && c.own.expires.Sub(c.cfg.now()) > early, nil
	}
	if own, good, err := current(); good || err != nil {
		return own, err
	}
	return c.login.Do(ctx, struct{}{}, func(ctx context.Context) (session, error) {
		if own, good, err := current(); good || err != nil {
			return own, err
		}
		own, err := c.logIn(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.denied = nil; errors.Is(err, ErrDenied) {
			c.denied, c.deniedEnd = err, c.cfg.now().Add(deniedPause)
		}
		if err == nil {
			c.own = own
		}
		return own, err
	})
}

// logIn asks for a token by the password.
func (c *client) logIn(ctx context.Context) (session, error) {
	options := gophercloud.AuthOptions{
		Username: c.cfg.Username, DomainName: c.cfg.UserDomainName, Password: string(c.password),
		Scope: &gophercloud.AuthScope{ProjectName: c.cfg.ProjectName, DomainName: c.cfg.ProjectDomainName},
	}
	scope, err := options.ToTokenV3ScopeMap()
	if err != nil {
		return session{}, &failure{"the project cannot be asked for: " + err.Error(), false}
	}
	request, err := options.ToTokenV3CreateMap(scope)
	if err != nil {
		return session{}, &failure{"the user cannot be named: " + err.Error(), false}
	}
	var d description
	header, err := c.call(ctx, http.MethodPost, "nocatalog=1", http.StatusCreated, nil, request, &d)
	switch s, _ := err.(status); s {
	case http.StatusUnauthorized, http.StatusForbidden:
		return session{}, fmt.Errorf("%w: %v to user %q of domain %q in project %q of domain %q: check the names and the password",
			ErrDenied, s, c.cfg.Username, c.cfg.UserDomainName, c.cfg.ProjectName, c.cfg.ProjectDomainName)
	}
	if err != nil {
		return session{}, c.explain(err)
	}
	id := header.Get("X-Subject-Token")
	if id == "" || d.Token.Expires.IsZero() {
		return session{}, &failure{"Keystone's answer holds no token", true}
	}
	return session{id, d.Token.Expires}, nil
}

// call makes one request of /v3/auth/tokens. It fails with a status, with a failure, or
// with ctx's cause.
func (c *client) call(ctx context.Context, method, query string, want int, header map[string]string, request, answer any) (http.Header, error) {
	attempt, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	resp, err := c.keystone.Request(attempt, method, c.keystone.ServiceURL("auth", "tokens")+"?"+query,
		&gophercloud.RequestOpts{JSONBody: request, JSONResponse: answer, MoreHeaders: header, OkCodes: []int{want}})
	if err == nil {
		return resp.Header, nil
	}
	// What the library says of an answer holds its body, and Keystone's repeats tokens.
	unexpected, sent := gophercloud.ErrUnexpectedResponseCode{}, (*url.Error)(nil)
	switch {
	case errors.As(err, &unexpected):
		return nil, status(unexpected.Actual)
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case attempt.Err() != nil:
		return nil, &failure{fmt.Sprintf("no answer from %s within %v", c.keystone.Endpoint, answerTime), true}
	case errors.As(err, &sent):
		return nil, &failure{fmt.Sprintf("%s cannot be reached: %v", c.keystone.Endpoint, sent.Err), true}
	}
	return nil, &failure{fmt.Sprintf("what %s answers is not as Keystone answers: %v", c.keystone.Endpoint, err), true}
}
