package swift

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"glanced/backends"
)

// tokenLen is the length of rand.Text.
const tokenLen = 26

// claim is what a claim of this store says: the token that the object carries, and that
// the names of its segments hold.
type claim struct {
	container, key, token string
}

// claimScheme begins a claim; what follows is written as the query of a URL is.
const claimScheme = "swift:1:"

func (c claim) text() backends.Claim {
	v := url.Values{"container": {c.container}, "key": {c.key}, "token": {c.token}}
	return backends.Claim(claimScheme + v.Encode())
}

func parseClaim(text backends.Claim) (c claim, err error) {
	query, ok := strings.CutPrefix(string(text), claimScheme)
	if !ok {
		return c, errors.New("not a claim")
	}
	v, err := url.ParseQuery(query)
	if err != nil {
		return c, errors.New("not a claim")
	}
	c = claim{v.Get("container"), v.Get("key"), v.Get("token")}
	if c.container == "" || checkKey(c.key) != nil || len(c.token) != tokenLen || strings.Contains(c.token, "/") {
		return c, errors.New("the claim names no container, key or token")
	}
	return c, nil
}

// prefix is how the names of the upload's segments begin. Swift refuses some characters in
// a manifest, so the key is escaped.
func (c claim) prefix() string { return url.QueryEscape(c.key) + "/" + c.token + "/" }

// segment is the name of one, numbered from 1.
func (c claim) segment(number int) string { return fmt.Sprintf("%s%05d", c.prefix(), number) }

// Abandon implements backends.Store.
func (s *Store) Abandon(ctx context.Context, text backends.Claim) error {
	return s.wrap("clean up after an upload to", s.abandon(ctx, text, 0))
}

// abandon is Abandon by who knows that so many segments were begun, 0 = does not know.
func (s *Store) abandon(ctx context.Context, text backends.Claim, begun int) error {
	c, err := parseClaim(text)
	if err != nil {
		return fmt.Errorf("%w: %w", backends.ErrBadLocation, err)
	}
	if c.container != s.cfg.Container {
		return fmt.Errorf("%w: the claim is of container %q", backends.ErrBadLocation, c.container)
	}
	if err := s.writable(); err != nil {
		return err
	}
	p := place{account: s.own, container: c.container, name: c.key}
	unlock, err := changing.Lock(ctx, p.lockName())
	if err != nil {
		return err
	}
	defer unlock()
	h, _, err := p.ask(ctx, "look at "+p.name, request{method: http.MethodHead, query: "multipart-manifest=get"})
	if err == nil && h.Get(tokenHeader) == c.token {
		err = p.remove(ctx)
	}
	if err != nil && !errors.Is(err, backends.ErrNotFound) {
		return err
	}
	return s.removeSegments(ctx, c, begun)
}

// removeSegments removes an upload's segments: those that the listing knows, and, as it may
// be late, those that the upload must have made before the ones it knows, or after them
// as far as there are some.
func (s *Store) removeSegments(ctx context.Context, c claim, begun int) error {
	container := place{account: s.own, container: c.container}
	listed, err := list(ctx, container, c.prefix())
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, one := range listed {
		names[one.name] = true
	}
	for number := 1; number <= maxSegments; number++ {
		name := c.segment(number)
		err := container.in(c.container, name).remove(ctx)
		switch {
		case err == nil:
		case !errors.Is(err, backends.ErrNotFound):
			return err
		case number >= begun && !names[name]:
			number = maxSegments // a later one would have needed this one
		}
		delete(names, name)
	}
	for name := range names {
		if err := container.in(c.container, name).remove(ctx); err != nil && !errors.Is(err, backends.ErrNotFound) {
			return err
		}
	}
	return nil
}

// lockName names the lock on p.
func (p place) lockName() string {
	return p.account.host() + "\x00" + p.account.login.project + "\x00" + p.tenant + "\x00" + p.container + "\x00" + p.name
}

// remove deletes what lies at p, and no segments of it.
func (p place) remove(ctx context.Context) error {
	_, _, err := p.ask(ctx, "delete "+p.name, request{method: http.MethodDelete})
	return err
}

// Delete implements backends.Store. A manifest of a dynamic large object goes first, as
// the version that is recorded says where its segments are: repeated, the deletion finds
// them by that. A static one goes last, as it is the same when they are gone. Segments
// whose names do not begin as the key does are not this object's alone, and stay.
func (s *Store) Delete(ctx context.Context, loc backends.Location) error {
	return s.wrap("delete an object of", s.delete(ctx, loc))
}

func (s *Store) delete(ctx context.Context, loc backends.Location) error {
	if err := s.writable(); err != nil {
		return err
	}
	p, err := s.target(ctx, loc)
	if err != nil {
		return err
	}
	unlock, err := changing.Lock(ctx, p.lockName())
	if err != nil {
		return err
	}
	defer unlock()
	_, f, err := s.find(ctx, loc)
	if errors.Is(err, backends.ErrNotFound) {
		return s.deleteLeft(ctx, p, loc, err)
	}
	if err != nil {
		return err
	}
	segments := slices.DeleteFunc(f.segments, func(one part) bool { return !p.owns(one.name) })
	if f.kind == dynamicObject && loc.Version != "" {
		if err := p.remove(ctx); err != nil {
			return err
		}
		if _, err := p.removeAll(ctx, segments); err != nil {
			return err
		}
	} else {
		if _, err := p.removeAll(ctx, segments); err != nil {
			return err
		}
		if err := p.remove(ctx); err != nil {
			return err
		}
	}
	return p.removeTenant(ctx)
}

// deleteLeft finishes a deletion that got as far as the manifest.
func (s *Store) deleteLeft(ctx context.Context, p place, loc backends.Location, notFound error) error {
	container, prefix, ok := manifestIn(loc.Version)
	if !ok || container != p.container || !p.owns(prefix) {
		return notFound
	}
	left, err := list(ctx, p.in(container, ""), prefix)
	if err != nil {
		return err
	}
	removed, err := p.removeAll(ctx, left)
	if err == nil && removed == 0 {
		return notFound
	}
	return err
}

// manifestIn is where a version says that the segments are.
func manifestIn(version string) (container, prefix string, ok bool) {
	rest, ok := strings.CutPrefix(version, "dlo:")
	if !ok {
		return "", "", false
	}
	if _, rest, ok = strings.Cut(rest, ":"); !ok {
		return "", "", false
	}
	text, err := url.PathUnescape(rest)
	if err != nil {
		return "", "", false
	}
	return strings.Cut(text, "/")
}

// owns tells whether a segment's name is one of those that are made for p alone: by this
// package (key/token/number), by Glance (key-number), and by Swift's own client (key/…).
func (p place) owns(name string) bool {
	return strings.HasPrefix(name, p.name+"-") || strings.HasPrefix(name, p.name+"/") || strings.HasPrefix(name, url.QueryEscape(p.name)+"/")
}

// removeAll deletes objects of p's account, and says how many there were.
func (p place) removeAll(ctx context.Context, parts []part) (n int, err error) {
	for _, one := range parts {
		err := p.in(one.container, one.name).remove(ctx)
		if err == nil {
			n++
		} else if !errors.Is(err, backends.ErrNotFound) {
			return n, err
		}
	}
	return n, nil
}

// removeTenant deletes the container that a multi-tenant Glance made for this one object.
// One that is not there, or not empty (409), or whose server is away just then is no
// error: the object is deleted, and an empty container harms nobody.
func (p place) removeTenant(ctx context.Context) error {
	if p.tenant == "" {
		return nil
	}
	_, _, err := p.in(p.container, "").ask(ctx, "delete the container", request{method: http.MethodDelete})
	if errors.Is(err, backends.ErrNotFound) || errors.Is(err, backends.ErrUnavailable) {
		return nil
	}
	return err
}
