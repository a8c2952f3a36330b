package file

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"glanced/backends"
)

// maxKey is the longest key in bytes: NAME_MAX of Linux file systems, less the
// suffix that names in .incoming carry.
const maxKey = 200

func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case len(key) > maxKey:
		return fmt.Errorf("the key has %d bytes, at most %d are allowed", len(key), maxKey)
	case key[0] == '.':
		return fmt.Errorf("the key %q begins with a dot", key)
	case strings.ContainsAny(key, "/\x00"):
		return fmt.Errorf("the key %q is not one path element", key)
	}
	return nil
}

// locate is where key lies.
func (f *folder) locate(key string, size int64, version string) backends.Location {
	u := url.URL{Scheme: "file", Path: filepath.Join(f.root, key)}
	return backends.Location{Store: f.s.id, URL: u.String(), Size: size, Version: version}
}

// key is the inverse of locate. home is the folder that the location says, nil if the
// store has it not: it may be that of the store before its folder was moved. What lies
// elsewhere under the same key is to be believed only for its size or its version; a
// location without home that records neither is ErrBadLocation, as is anything but a
// plain name in a folder.
func (s *Store) key(loc backends.Location) (key string, home *member, err error) {
	if loc.Store != s.id {
		return "", nil, s.bad(fmt.Sprintf("the location is of store %q, this is %q", loc.Store, s.id))
	}
	root, key, err := splitURL(loc.URL)
	if err != nil {
		return "", nil, s.bad(err.Error())
	}
	home = s.member(root)
	if home == nil && loc.Size < 0 && loc.Version == "" {
		return "", nil, s.bad("it lies in another folder, and neither size nor version is recorded to know it by")
	}
	return key, home, nil
}

// member finds a folder by its path; nil = there is none.
func (s *Store) member(root string) *member {
	for _, m := range s.members {
		if m.root == root {
			return m
		}
	}
	return nil
}

// splitURL parts file:///folder/key.
func splitURL(text string) (folder, key string, err error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", "", errors.New("not a URL")
	}
	if u.Scheme != "file" || u.Host != "" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" ||
		!filepath.IsAbs(u.Path) || filepath.Clean(u.Path) != u.Path {
		return "", "", errors.New("want file:///folder/key")
	}
	folder, key = filepath.Dir(u.Path), filepath.Base(u.Path)
	return folder, key, checkKey(key)
}

func (s *Store) bad(why string) error {
	return fmt.Errorf("%w: file store %s: %s", backends.ErrBadLocation, s.name(), why)
}
