package ctl

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"glanced/catalog/access"
)

// Sentinels of Authenticate.
var (
	// ErrUnauthorized says that a token is missing, unknown or no longer valid.
	ErrUnauthorized = errors.New("no valid token was given")
	// ErrServiceToken is ErrUnauthorized of the token that a service sends beside the user's.
	ErrServiceToken = errors.New("the service token is not valid")
	// ErrNotChecked says that who knows the tokens does not answer, so that nothing is
	// known of this one.
	ErrNotChecked = errors.New("the token cannot be checked now")
)

// tokenHeader is where clients of OpenStack put their token.
const tokenHeader = "X-Auth-Token"

// Authenticator tells by a request's headers who sent it: a token is in
// X-Auth-Token, and a service that acts for a user has one of its own beside it. It
// fails with ErrUnauthorized for a bad or missing one, with ErrServiceToken for a bad
// one of a service, and with ErrNotChecked when it could not tell. Safe for concurrent
// use.
type Authenticator interface {
	Authenticate(ctx context.Context, header http.Header) (Identity, error)
}

// Challenger is the ability of an Authenticator to say, as the value of
// WWW-Authenticate, where its tokens come from; "" = nowhere that clients could ask.
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

// NewStaticTokens fails for an empty token, for one without a project or a role that
// counts, and for one that stands in two entries: which of them it is would be chance.
func NewStaticTokens(tokens []StaticToken) (StaticTokens, error) {
	list := make(StaticTokens, 0, len(tokens))
	for i, t := range tokens {
		if t.Token == "" {
			return nil, fmt.Errorf("token %d (user %q) is empty: write it into its file, or take the entry out", i+1, t.User)
		}
		if t.Project == "" {
			return nil, fmt.Errorf("token %d (user %q) has no project", i+1, t.User)
		}
		if !access.AnyRole(t.Roles) {
			return nil, fmt.Errorf("token %d (user %q) has none of the roles %s, %s and %s, so that it may do nothing: give it one", i+1, t.User, access.Reader, access.Member, access.Admin)
		}
		sum := sha256.Sum256([]byte(t.Token))
		if first := slices.IndexFunc(list, func(o hashedToken) bool { return o.sum == sum }); first >= 0 {
			return nil, fmt.Errorf("tokens %d (user %q) and %d (user %q) are the same: give each a token of its own", first+1, tokens[first].User, i+1, t.User)
		}
		list = append(list, hashedToken{sum, Identity{User: t.User, Project: t.Project, Roles: slices.Clone(t.Roles)}})
	}
	return list, nil
}

// Authenticate compares with every token, so that the time taken tells nothing
// of which one came close.
func (s StaticTokens) Authenticate(_ context.Context, header http.Header) (Identity, error) {
	sum := sha256.Sum256([]byte(header.Get(tokenHeader)))
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
func (e Everyone) Authenticate(context.Context, http.Header) (Identity, error) {
	return e.Identity, nil
}
