package ctl

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrUnauthorized says that a token is missing, unknown or no longer valid.
var ErrUnauthorized = errors.New("no valid token was given")

// Identity is who asks.
type Identity struct {
	User, Project string // ids or names, as the authenticator has them
	Roles         []string
	Admin         bool // may see and change what other projects own
}

// AdminRole is the role that makes an Identity Admin, as in Glance's default policy.
const AdminRole = "admin"

// NewIdentity works out Admin from the roles; role names have no case in OpenStack.
func NewIdentity(user, project string, roles []string) Identity {
	return Identity{
		User: user, Project: project, Roles: slices.Clone(roles),
		Admin: slices.ContainsFunc(roles, func(r string) bool { return strings.EqualFold(r, AdminRole) }),
	}
}

// Authenticator turns a token into who holds it. token is "" when the client
// sent none. It fails with ErrUnauthorized for a bad token, and with any other
// error when it could not tell. Safe for concurrent use.
type Authenticator interface {
	Authenticate(ctx context.Context, token string) (Identity, error)
}

// Challenger is the ability of an Authenticator to say, as the value of
// WWW-Authenticate, where its tokens come from.
type Challenger interface{ Challenge() string }

// defaultChallenge is for authenticators whose tokens come from no service.
const defaultChallenge = `Token realm="glanced"`

// StaticToken is one token of the configuration.
type StaticToken struct {
	Token         string
	User, Project string
	Roles         []string
}

// StaticTokens is the Authenticator of a fixed list. It keeps hashes of the
// tokens, not the tokens.
type StaticTokens []hashedToken

type hashedToken struct {
	sum [sha256.Size]byte
	who Identity
}

// NewStaticTokens fails for an empty token, and for one without a project.
func NewStaticTokens(tokens []StaticToken) (StaticTokens, error) {
	list := make(StaticTokens, 0, len(tokens))
	for i, t := range tokens {
		if t.Token == "" {
			return nil, fmt.Errorf("token %d (user %q) is empty: write it into its file, or take the entry out", i+1, t.User)
		}
		if t.Project == "" {
			return nil, fmt.Errorf("token %d (user %q) has no project", i+1, t.User)
		}
		list = append(list, hashedToken{sha256.Sum256([]byte(t.Token)), NewIdentity(t.User, t.Project, t.Roles)})
	}
	return list, nil
}

// Authenticate compares with every token, so that the time taken tells nothing
// of which one came close.
func (s StaticTokens) Authenticate(_ context.Context, token string) (Identity, error) {
	sum := sha256.Sum256([]byte(token))
	found := -1
	for i, t := range s {
		if subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Identity{}, ErrUnauthorized
	}
	return s[found].who, nil
}

// Everyone is the Authenticator of auth mode none: whoever can connect is
// Identity, whatever token they send.
type Everyone struct{ Identity Identity }

// Authenticate never fails.
func (e Everyone) Authenticate(context.Context, string) (Identity, error) { return e.Identity, nil }
