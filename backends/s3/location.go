package s3

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"glanced/backends"
	"glanced/backends/overhttp"
)

// maxKey is the longest key in bytes: S3's own limit is 1024, with the prefix.
const maxKey = 512

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

// locate is where key lies, in Glance's spelling: nothing is escaped.
func (s *Store) locate(key string, h head) backends.Location {
	return backends.Location{Store: s.cfg.ID, Size: h.size, Version: h.etag,
		URL: "s3+" + s.at.scheme() + "://" + s.at.text() + "/" + s.cfg.Bucket + "/" + s.cfg.Prefix + key}
}

// target is one object, and by whom it can be asked for.
type target struct {
	api         *awss3.Client
	bucket, key string
	place       string // host:port/bucket/key
}

func newTarget(api *awss3.Client, at endpoint, bucket, key string) target {
	return target{api, bucket, key, at.host + "/" + bucket + "/" + key}
}

// own is the object that this store writes under a key.
func (s *Store) own(key string) target {
	return newTarget(s.client, s.at, s.cfg.Bucket, s.cfg.Prefix+key)
}

// target is the object of a location: one of this store's bucket, or one that Glance
// recorded. Which host is asked, and with whose keys, is for the configuration to say
// and not for a record:
//
//   - host and bucket are the configured ones: with the configured keys, as those of
//     the record may have been rotated since;
//   - another bucket of the configured host, or a host of glance_hosts: with the
//     record's keys, and only if it has some, as ours are for our bucket;
//   - elsewhere: ErrBadLocation, and nothing is sent.
func (s *Store) target(loc backends.Location) (target, error) {
	if loc.Store != s.cfg.ID {
		return target{}, s.bad(fmt.Sprintf("the location is of store %q, this is %q", loc.Store, s.cfg.ID))
	}
	l, err := parseLocation(loc.URL)
	if err != nil {
		return target{}, s.bad(err.Error())
	}
	at := endpoint{l.tls, overhttp.HostPort(l.host, l.tls)}
	known := s.allowed[at.host]
	if at.host == s.at.host || overhttp.HostPort(l.host, s.at.tls) == s.at.host {
		if l.path == s.cfg.Bucket+"/"+s.cfg.Prefix+l.key || l.path == s.cfg.Bucket+"/"+l.key {
			return newTarget(s.client, s.at, s.cfg.Bucket, strings.TrimPrefix(l.path, s.cfg.Bucket+"/")), nil
		}
		at, known = s.at, true
	}
	bucket, _, plain := strings.Cut(strings.TrimSuffix(l.path, "/"+l.key), "/")
	switch {
	case !known:
		return target{}, s.bad("its host is neither the store's nor one of glance_hosts")
	case plain:
		return target{}, s.bad("want host/bucket/key")
	case l.accessKey == "":
		return target{}, s.bad("its bucket is not the store's, and it holds no keys")
	}
	return newTarget(s.api(s.http, at, l.accessKey, l.secretKey), at, bucket, l.key), nil
}

func (s *Store) bad(why string) error {
	return fmt.Errorf("%w: s3 store %s: %s", backends.ErrBadLocation, s.place, why)
}

// location is what a location's text says.
type location struct {
	tls                  bool
	accessKey, secretKey string // "" = none
	host                 string // host[:port]
	path                 string // bucket/key, the key with folders or without
	key                  string // the path's last element
}

// parseLocation reads what this store writes, and what Glance's does
// (glance_store 4.1, _drivers/s3.py): s3://key:secret@host/bucket/id, s3+http://…,
// s3+https://…; s3 is plain HTTP. Nothing is escaped, and the secret may hold a slash
// or a colon, so what it is ends at the last @. Errors say nothing of the text.
func parseLocation(text string) (l location, err error) {
	scheme, rest, _ := strings.Cut(text, "://")
	switch scheme {
	case "s3", "s3+http":
	case "s3+https":
		l.tls = true
	default:
		return l, errors.New("not a location of type s3")
	}
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		var ok bool
		if l.accessKey, l.secretKey, ok = strings.Cut(rest[:i], ":"); !ok || l.accessKey == "" || l.secretKey == "" {
			return location{}, errors.New("want keys before the @")
		}
		rest = rest[i+1:]
	}
	l.host, l.path, _ = strings.Cut(rest, "/")
	elements := strings.Split(l.path, "/")
	l.key = elements[len(elements)-1]
	for _, e := range elements {
		if checkKey(e) != nil {
			return location{}, errors.New("want host/bucket/key")
		}
	}
	if l.host == "" || len(elements) < 2 || strings.ContainsFunc(l.host, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`\%?#`, r) }) {
		return location{}, errors.New("want host/bucket/key")
	}
	return l, nil
}
