// Package keystone is the Authenticator whose tokens are OpenStack Keystone's (version 3
// of the Identity API). It shows a token to Keystone, which says whose it is, of which
// project and with which roles, and when it expires.
//
// Answers are kept, under a hash of the token. A token that was found good is shown to
// Keystone again once a minute, so that one that was revoked is refused within that
// time, as it is in Glance within five. While Keystone does not answer, such a token goes
// on working until it expires, and for all others the error is ctl.ErrNotChecked: nobody
// is told that a token is bad because nobody could be asked.
//
// A service that acts for a user, such as Nova, sends a token of its own in
// X-Service-Token beside the user's. If it has the role service, the user's token may have
// expired, so that what the user began can be finished; Keystone says for how long
// ([token] allow_expired_window). This, and what is answered to whom, is as in
// keystonemiddleware (auth_token), which Glance has before it.
//
// Neither a token nor the password is in any error, or in the log.
package keystone

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"glanced/backends/flight"
	"glanced/ctl"
)

const (
	userHeader    = "X-Auth-Token"
	serviceHeader = "X-Service-Token"

	// serviceRole is what makes a service token allow for a user's token that has expired.
	serviceRole = "service"

	// maxToken is the longest token that Keystone is shown, bytes. Its own are about 200
	// (Fernet) to 1000 (JWS) long, and the servers before it may take no more than 4 KiB
	// of headers.
	maxToken = 2 << 10

	// checkedFor is how long an answer holds before Keystone is asked again.
	checkedFor = time.Minute
	// refusedFor is how long a refusal holds, which keeps a client that repeats itself
	// from Keystone's door.
	refusedFor = 10 * time.Second
	// askedFor is how long the old answer holds when Keystone is asked again: while it
	// thinks, and until the next attempt when it says nothing.
	askedFor = 30 * time.Second
	// patience is how long a client waits for that when there is an old answer.
	patience = 5 * time.Second
)

// Authenticator implements ctl.Authenticator and ctl.Challenger. Safe for concurrent
// use. It owns nothing that needs closing.
type Authenticator struct {
	authURL string
	client  *client
	cache   *Cache
	flight  flight.Group[question, token]
	log     *slog.Logger
	told    rate.Sometimes
	now     func() time.Time
	checked time.Duration
}

// New asks the Keystone of cfg. It reads the files that cfg names, and does not connect:
// Keystone may be away. cache may have been another Authenticator's, and still be; what it
// knows of another auth_url is not believed.
func New(cfg Config, cache *Cache, log *slog.Logger) (*Authenticator, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Authenticator{authURL: cfg.AuthURL, client: c, cache: cache, log: log, now: cfg.now,
		checked: cmp.Or(cfg.checked, checkedFor), told: rate.Sometimes{First: 1, Interval: time.Minute}}, nil
}

// Challenge is the value of WWW-Authenticate, as keystonemiddleware writes it.
func (a *Authenticator) Challenge() string { return fmt.Sprintf("Keystone uri=%q", a.authURL) }

// Check asks Keystone for a token of the service's own. It fails with ErrDenied when
// Keystone does not take the user or the password, and with another error when it
// cannot be asked.
func (a *Authenticator) Check(ctx context.Context) error {
	_, err := a.client.session(ctx, "")
	return err
}

// Authenticate tells whose the token in X-Auth-Token is. User and Project are Keystone's
// ids. A token that is not scoped to a project (of the system, of a domain, unscoped)
// is its user's without any role, for Glance's policies are about projects.
//
// It fails with ctl.ErrUnauthorized, with ctl.ErrServiceToken where the token in
// X-Service-Token is no good, and with ctl.ErrNotChecked where Keystone does not say.
func (a *Authenticator) Authenticate(ctx context.Context, header http.Header) (ctl.Identity, error) {
	user, service := header.Get(userHeader), header.Get(serviceHeader)
	if !wellFormed(user) {
		return ctl.Identity{}, fmt.Errorf("%w: %s is missing, or holds nothing that could be a token", ctl.ErrUnauthorized, userHeader)
	}
	expiredToo := false
	if service != "" {
		if !wellFormed(service) {
			return ctl.Identity{}, fmt.Errorf("%w: it is no token", ctl.ErrServiceToken)
		}
		s, err := a.token(ctx, service, false)
		if errors.Is(err, ctl.ErrUnauthorized) {
			return ctl.Identity{}, fmt.Errorf("%w: %v", ctl.ErrServiceToken, err)
		}
		if err != nil {
			return ctl.Identity{}, err
		}
		expiredToo = s.service
	}
	t, err := a.token(ctx, user, expiredToo)
	return t.who, err
}

// wellFormed tells whether Keystone is to be shown a text: its tokens are words of ASCII.
func wellFormed(text string) bool {
	if text == "" || len(text) > maxToken {
		return false
	}
	for _, b := range []byte(text) {
		if b <= ' ' || b > '~' {
			return false
		}
	}
	return true
}

// token is what Keystone says of one.
type token struct {
	who     ctl.Identity
	service bool // has the role service, of whatever scope
	expires time.Time
}

// question is what Keystone is asked: about which token, and whether it may have
// expired. The token itself is not kept.
type question struct {
	sum        [sha256.Size]byte
	expiredToo bool
}

func (a *Authenticator) question(text string, expiredToo bool) question {
	return question{sha256.Sum256([]byte(a.authURL + "\x00" + text)), expiredToo}
}

// token is what is known of a token, or what Keystone says now.
func (a *Authenticator) token(ctx context.Context, text string, expiredToo bool) (token, error) {
	q, now := a.question(text, expiredToo), a.now()
	known, ok := a.cache.get(q)
	switch fresh := now.Before(known.fresh); {
	case !ok:
	case known.refused && fresh:
		return token{}, errRefused
	case known.refused:
	case now.Before(known.until) && fresh:
		return known.token, nil
	case now.Before(known.until):
		return a.again(ctx, q, text, known.token)
	case !expiredToo:
		return token{}, errExpired
	}
	return a.ask(ctx, q, text)
}

var (
	errRefused = fmt.Errorf("%w: Keystone does not know it", ctl.ErrUnauthorized)
	errExpired = fmt.Errorf("%w: it has expired", ctl.ErrUnauthorized)
)

// ask asks Keystone, once for all who bring the same token meanwhile.
func (a *Authenticator) ask(ctx context.Context, q question, text string) (token, error) {
	return a.flight.Do(ctx, q, func(ctx context.Context) (token, error) {
		t, err := a.client.validate(ctx, text, q.expiredToo)
		now := a.now()
		switch {
		case err == nil && (q.expiredToo || now.Before(t.expires)):
			known := answer{token: t, fresh: now.Add(a.checked), until: t.expires}
			if q.expiredToo && known.until.Before(known.fresh) {
				known.until = known.fresh
			}
			a.cache.put(q, owner(t.who), known, now)
			return t, nil
		case err == nil: // by our clock
			err = errExpired
			fallthrough
		case errors.Is(err, ctl.ErrUnauthorized):
			a.cache.put(q, nobody, answer{refused: true, fresh: now.Add(refusedFor), until: now.Add(refusedFor)}, now)
		}
		return token{}, err
	})
}

// again asks about a token that was found good a while ago. Whoever comes first asks;
// what was known holds for the others, and for all when Keystone says nothing.
func (a *Authenticator) again(ctx context.Context, q question, text string, known token) (token, error) {
	now := a.now()
	if !a.cache.claim(q, now, now.Add(askedFor)) {
		return known, nil
	}
	// A client that hangs up does not prolong its token.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	t, err := a.ask(ctx, q, text)
	if err == nil || errors.Is(err, ctl.ErrUnauthorized) {
		return t, err
	}
	a.told.Do(func() {
		a.log.Warn("Keystone does not say whether tokens are still good: those that it knew go on working until they expire, others are refused with 503", "error", err)
	})
	return known, nil
}

// nobody is whose share of the cache refusals take.
const nobody = ""

// owner is whose share of the cache an identity takes.
func owner(who ctl.Identity) string {
	if who.Project != "" {
		return "project " + who.Project
	}
	return "user " + who.User
}
