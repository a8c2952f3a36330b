package http

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"glanced/backends"
)

// maxURL is the longest location, bytes: as much as servers take in a request line.
const maxURL = 8 << 10

// parse reads http(s)://[user:password@]host[:port]/path[?query], as Glance records
// locations of this kind.
func (s *Store) parse(loc backends.Location) (*url.URL, error) {
	if loc.Store != s.id {
		return nil, fmt.Errorf("%w: the location is of store %q, this is %q", backends.ErrBadLocation, loc.Store, s.id)
	}
	u, err := parseURL(loc.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrBadLocation, err)
	}
	return u, nil
}

// parseURL's errors do not quote the text, which may hold a password.
func parseURL(text string) (*url.URL, error) {
	if len(text) > maxURL {
		return nil, fmt.Errorf("the URL has %d bytes, at most %d are allowed", len(text), maxURL)
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Opaque != "" || u.Hostname() == "" || !strings.HasPrefix(u.Path, "/") {
		return nil, errors.New("want http://[user:password@]host[:port]/path[?query], or https://…")
	}
	if u.Fragment != "" || strings.Contains(text, "#") {
		return nil, errors.New("the URL has a fragment, which no server is told")
	}
	if u.User != nil {
		if _, ok := u.User.Password(); !ok || strings.Contains(u.User.Username(), ":") {
			return nil, errors.New("the URL has a user without a password; want user:password@")
		}
	}
	if strings.HasSuffix(u.Host, ":") {
		return nil, errors.New("the URL has an empty port")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("the URL's port is not one")
		}
	}
	// A server resolves these, so one object would have many names.
	for part := range strings.SplitSeq(u.Path, "/") {
		if part == "." || part == ".." {
			return nil, errors.New("the URL's path has a . or .. in it")
		}
	}
	return u, nil
}

// shown is how messages name an object: without user, password and query, which may
// be a signature.
func shown(u *url.URL) string {
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return plain.String()
}

// place is the URL without what only opens the door.
func place(u *url.URL) string {
	plain := *u
	plain.User = nil
	return plain.String()
}

// origin is the server behind a URL: who may be told what another must not.
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.ToLower(u.Hostname()) + ":" + port
}
