package rbd

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxKey is the longest key in bytes. A RADOS object's name, which the key is a part
// of, may be much longer.
const maxKey = 255

func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case len(key) > maxKey:
		return fmt.Errorf("the key has %d bytes, at most %d are allowed", len(key), maxKey)
	case key[0] == '.':
		return fmt.Errorf("the key %q begins with a dot", key)
	case strings.ContainsAny(key, "/@") || !utf8.ValidString(key) || strings.ContainsFunc(key, unicode.IsControl):
		return fmt.Errorf("the key %q is not one path element, or has an @", key)
	}
	return nil
}

// location is what a location's text says.
type location struct {
	fsid, pool string // of the cluster; "" = whatever the store's are
	image      string
	snap       string // "" = the image itself
}

const locationScheme = "rbd://"

func (l location) text() string {
	parts := []string{l.fsid, l.pool, l.image, l.snap}
	if l.fsid == "" {
		parts = []string{l.image}
	}
	for i, p := range parts {
		parts[i] = quote(p)
	}
	return locationScheme + strings.Join(parts, "/")
}

// parseLocation reads what this store writes and what Glance's does (glance_store 4.1,
// _drivers/rbd.py): rbd://fsid/pool/image/snapshot, and rbd://image, which is older.
// Each part is escaped with %.
func parseLocation(text string) (l location, err error) {
	rest, ok := strings.CutPrefix(text, locationScheme)
	if !ok {
		return l, errors.New("not a location of type rbd")
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 1 && len(parts) != 4 {
		return l, errors.New("want rbd://fsid/pool/image/snapshot or rbd://image")
	}
	for i, p := range parts {
		if parts[i], err = url.PathUnescape(p); err != nil || checkKey(parts[i]) != nil {
			return l, errors.New("want rbd://fsid/pool/image/snapshot or rbd://image, each part escaped")
		}
	}
	if len(parts) == 1 {
		return location{image: parts[0]}, nil
	}
	return location{parts[0], parts[1], parts[2], parts[3]}, nil
}

// quote escapes all but the unreserved characters (RFC 3986, section 2.3), as Python's
// quote(text, "") does.
func quote(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
