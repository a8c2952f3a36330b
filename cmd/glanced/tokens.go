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
	var next ctl.Authenticator = ctl.Everyone{Identity: access.Identity{User: "admin", Project: "admin", Roles: []string{access.Admin}}}
	if c.Mode == "token" {
		var tokens []ctl.StaticToken
		for _, t := range c.Tokens {
			secret, err := readToken(t.File)
			if err != nil {
				return err
			}
			tokens = append(tokens, ctl.StaticToken{Token: secret, User: t.User, Project: t.Project, Roles: t.Roles})
		}
		var err error
		if next, err = ctl.NewStaticTokens(tokens); err != nil {
			return fmt.Errorf("auth.tokens: %w", err)
		}
	}
	a.current.Store(&next)
	return nil
}
