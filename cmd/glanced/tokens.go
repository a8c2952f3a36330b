package main

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"

	"glanced/catalog/access"
	"glanced/ctl"
)

// authenticator is the configured way to tell who asks; a reload swaps it whole.
type authenticator struct {
	current atomic.Pointer[ctl.Authenticator]
}

func (a *authenticator) Authenticate(ctx context.Context, header http.Header) (ctl.Identity, error) {
	return (*a.current.Load()).Authenticate(ctx, header)
}

// load reads the token files; nothing changes if one of them is bad.
func (a *authenticator) load(c authConfig) error {
	next, err := readAuth(c)
	if err == nil {
		a.current.Store(&next)
	}
	return err
}

// readAuth reads the token files, and makes those that are missing.
func readAuth(c authConfig) (ctl.Authenticator, error) {
	if c.Mode != "token" {
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
