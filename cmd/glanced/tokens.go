package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"glanced/backends/budget"
	"glanced/catalog/access"
	"glanced/ctl"
	"glanced/ctl/keystone"
)

// tryKeystone is how long Keystone may take to say whether it takes the configured user.
const tryKeystone = 10 * time.Second

// authenticator is the configured way to tell who asks; a reload swaps it whole.
type authenticator struct {
	current atomic.Pointer[ctl.Authenticator]
	known   *keystone.Cache // what Keystone has said; reloads leave it as it is
	log     *slog.Logger
}

func (a *authenticator) Authenticate(ctx context.Context, header http.Header) (ctl.Identity, error) {
	return (*a.current.Load()).Authenticate(ctx, header)
}

// Challenge implements ctl.Challenger, as far as what is configured does.
func (a *authenticator) Challenge() string {
	if c, ok := (*a.current.Load()).(ctl.Challenger); ok {
		return c.Challenge()
	}
	return ""
}

// open puts what is configured in force. memory is for what is known of tokens, bytes.
func (a *authenticator) open(c authConfig, memory int64, log *slog.Logger) error {
	a.known, a.log = keystone.NewCache(budget.New(memory)), log
	next, err := a.read(c)
	if err == nil {
		a.current.Store(&next)
	}
	return err
}

// read is what c says. It reads the files of tokens and of the password, and makes token
// files that are missing.
func (a *authenticator) read(c authConfig) (ctl.Authenticator, error) {
	switch c.Mode {
	case "keystone":
		auth, err := keystone.New(c.Keystone, a.known, a.log)
		if err != nil {
			return nil, fmt.Errorf("auth.keystone: %w", err)
		}
		return auth, nil
	case "none":
		return ctl.Everyone{Identity: access.Identity{User: "admin", Project: "admin", Roles: []string{access.Admin}}}, nil
	}
	var tokens []ctl.StaticToken
	for _, t := range c.Tokens {
		secret, err := readToken(t.File)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, ctl.StaticToken{Token: secret, User: t.User, Project: t.Project, Roles: t.Roles})
	}
	auth, err := ctl.NewStaticTokens(tokens)
	if err != nil {
		return nil, fmt.Errorf("auth.tokens: %w", err)
	}
	return auth, nil
}

// try fails when Keystone refuses the configured user. That Keystone cannot be asked is
// only logged: it may come later.
func (a *authenticator) try(ctx context.Context, auth ctl.Authenticator) error {
	k, ok := auth.(*keystone.Authenticator)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tryKeystone)
	defer cancel()
	err := k.Check(ctx)
	if errors.Is(err, keystone.ErrDenied) {
		return fmt.Errorf("auth.keystone: %w", err)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		a.log.Warn("Keystone cannot be asked now; until it can, requests are answered 503", "error", err)
	}
	return nil
}
