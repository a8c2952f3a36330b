package swift

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/setting"
)

const (
	// maxKey is the longest key in bytes: with a token and a number, Swift's own limit is
	// 1024 (max_object_name_length), escaped.
	maxKey = 256
	// maxContainer is max_container_name_length.
	maxContainer = 256
	// maxForeign is how many accounts of locations are remembered.
	maxForeign = 64
)

const configScheme = "swift+config://"

func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case len(key) > maxKey:
		return fmt.Errorf("the key has %d bytes, at most %d are allowed", len(key), maxKey)
	case key[0] == '.':
		return fmt.Errorf("the key %q begins with a dot", key)
	case strings.Contains(key, "/") || !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("the key %q is not one path element", key)
	}
	return nil
}

func checkContainer(name string) error {
	if name == "" || len(name) > maxContainer || name == "." || name == ".." || strings.Contains(name, "/") ||
		!utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) {
		return fmt.Errorf("%q is no name of a container", name)
	}
	return nil
}

// target is the object of a location, and whose token it is asked for with. Which hosts
// are asked, and with whose credentials, is for the configuration to say and not for a
// record:
//
//   - swift+config://reference/…: the account of that name, which is this store's own or one
//     of config_file;
//   - project%3Auser:key@authhost/…: authhost is that of such an account, or one of
//     glance_hosts. Where the user is that account's, its key is used, as the record's may
//     have been rotated since; else the record's user and key are, in the way that account
//     asks for tokens. A host of glance_hosts is asked as the location says;
//   - storagehost/v1/AUTH_x/glance_<id>/<id>, without a user (a multi-tenant Glance): with
//     this store's token, at this store's own server, if that is the storagehost or it is
//     one of glance_hosts; the container is the one that a multi-tenant Glance gives to
//     this key. The token must be one that may read other accounts;
//   - elsewhere: ErrBadLocation, and nothing is sent.
func (s *Store) target(ctx context.Context, loc backends.Location) (place, error) {
	if loc.Store != s.cfg.ID {
		return place{}, s.bad(fmt.Sprintf("the location is of store %q, this is %q", loc.Store, s.cfg.ID))
	}
	l, err := parseLocation(loc.URL)
	if err != nil {
		return place{}, s.bad(err.Error())
	}
	p := place{container: l.container, name: l.key}
	switch {
	case l.reference != "":
		if p.account = s.references[l.reference]; p.account == nil {
			return place{}, s.bad(fmt.Sprintf("there is no reference %q: config_file may have it", overhttp.Clip(l.reference)))
		}
	case l.user != "":
		if p.account = s.accountOf(l); p.account == nil {
			return place{}, s.bad("its host is neither that of auth_url, nor one of config_file or glance_hosts")
		}
	default:
		at, err := s.own.session(ctx, "")
		if err != nil {
			return place{}, err
		}
		// With our host another scheme is taken, too: it is asked in ours.
		host, ours := overhttp.HostPort(l.host, l.tls), overhttp.HostPort(at.storage.Host, at.storage.Scheme == "https")
		if host != ours && overhttp.HostPort(l.host, !l.tls) != ours && !s.hosts[host] {
			return place{}, s.bad("its host is neither the store's nor one of glance_hosts")
		}
		if l.container != s.cfg.TenantPrefix+l.key {
			return place{}, s.bad("its container is not one that a multi-tenant Glance makes: tenant_prefix says how these begin")
		}
		p.account, p.tenant = s.own, "/"+l.path
	}
	return p, nil
}

// accountOf is the account of a location that holds credentials, nil where its host is
// none that may be asked.
func (s *Store) accountOf(l location) *account {
	host := overhttp.HostPort(l.host, l.tls)
	known := append([]*account{s.own}, s.others...)
	var like *account
	for _, a := range known {
		if a.host() != host {
			continue
		}
		same := l.login(a.login)
		same.key = a.login.key
		if same == a.login {
			return a
		}
		if like == nil {
			like = a
		}
	}
	var as login
	switch {
	case like != nil:
		as = l.login(like.login)
	case s.hosts[host]:
		as = s.cfg.finish(login{url: l.authURL(), user: l.user, key: setting.Secret(l.secret)})
	default:
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.foreign[as]
	if a == nil {
		if len(s.foreign) >= maxForeign {
			clear(s.foreign)
		}
		a = &account{s: s, login: as}
		s.foreign[as] = a
	}
	return a
}

func (s *Store) bad(why string) error {
	return fmt.Errorf("%w: swift store %s/%s: %s", backends.ErrBadLocation, s.own.host(), s.cfg.Container, why)
}

// location is what a location's text says.
type location struct {
	reference    string // of swift+config
	tls          bool
	user, secret string // of an account, "" = none; the user perhaps with its project
	host         string // host[:port]
	path         string // of the address, without slashes around it
	container    string
	key          string
}

func (l location) authURL() string {
	scheme := "http"
	if l.tls {
		scheme = "https"
	}
	return scheme + "://" + l.host + "/" + l.path
}

// login is the location's user, who asks for tokens in the way of another one.
func (l location) login(like login) login {
	like.project, like.user, like.key = "", l.user, setting.Secret(l.secret)
	return like.split()
}

var errForm = errors.New("want swift+config://reference/container/key, or one of Glance's forms")

// parseLocation reads what this store writes, and what Glance's does (glance_store 4.1,
// _drivers/swift/store.py, StoreLocation): swift+http(s)://user:key@authhost/path/container/id,
// user and key escaped but for slashes; swift is swift+https; swift+config with a
// reference; and, of a multi-tenant one, swift+http(s)://storagehost/v1/account/container/id.
// Errors say nothing of the text.
func parseLocation(text string) (l location, err error) {
	scheme, rest, _ := strings.Cut(text, "://")
	switch scheme {
	case "swift+config", "swift+http":
	case "swift", "swift+https":
		l.tls = true
	default:
		return l, errors.New("not a location of type swift")
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 && scheme != "swift+config" {
		user, key, ok := cutLast(rest[:i], ":")
		if l.user, err = url.PathUnescape(user); err != nil || !ok {
			return l, errForm
		}
		if l.secret, err = url.PathUnescape(key); err != nil || l.user == "" || l.secret == "" {
			return l, errForm
		}
		rest = rest[i+1:]
	}
	elements := strings.Split(rest, "/")
	n := len(elements)
	if n < 3 || strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '?' || r == '#' || r == '\\' }) {
		return l, errForm
	}
	l.host, l.path = elements[0], strings.Join(elements[1:n-2], "/")
	for _, e := range elements {
		if e == "" || e == "." || e == ".." {
			return l, errForm
		}
	}
	if strings.ContainsAny(l.host, "%@") || strings.Contains(l.path, "%") {
		return l, errForm
	}
	if l.container, err = url.PathUnescape(elements[n-2]); err != nil || checkContainer(l.container) != nil {
		return l, errForm
	}
	if l.key, err = url.PathUnescape(elements[n-1]); err != nil || checkKey(l.key) != nil {
		return l, errForm
	}
	switch {
	case scheme == "swift+config" && n == 3:
		l.reference, l.host = l.host, ""
	case scheme == "swift+config", l.user == "" && n != 5: // v1/account
		return l, errForm
	}
	return l, nil
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// escapeName escapes a name of several path elements.
func escapeName(name string) string {
	elements := strings.Split(name, "/")
	for i, e := range elements {
		elements[i] = url.PathEscape(e)
	}
	return strings.Join(elements, "/")
}
