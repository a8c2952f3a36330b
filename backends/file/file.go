// Package file keeps objects as plain files in one folder: <path>/<key>, the
// layout of Glance's filesystem store, so that either can read what the other wrote.
//
// An object appears under its name only when it is whole and on the disk: it is
// written to a file without a name (open(2), O_TMPFILE) and linked into place
// after fsync. On file systems without O_TMPFILE a name in the folder .incoming
// takes its place.
package file

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/stored"
)

// maxKey is the longest key in bytes: NAME_MAX of Linux file systems, less the
// suffix that names in .incoming carry.
const maxKey = 200

// Config of one store.
type Config struct {
	ID   string // goes into each Location
	Path string // the folder; it is made if it is not there
}

var _ backends.Locator = (*Store)(nil)

// Store keeps objects in one folder. Safe for concurrent use, also by several
// processes over one folder.
type Store struct {
	id   string
	root string   // absolute, clean
	dir  *os.File // root, open for the *at calls

	named bool // write under a name in .incoming: the file system has no O_TMPFILE
}

// Open makes the folder if need be, and removes what an upload cut off by a
// crash left in .incoming. A folder that cannot be written is no error here:
// its objects can be read, and Put fails with ErrReadOnly.
func Open(cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, errors.New("open a file store: no path; set the store's path to a folder")
	}
	root, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open file store %s: %w", cfg.Path, err)
	}
	if err := os.MkdirAll(root, 0o750); err != nil {
		return nil, fmt.Errorf("make the folder of a file store; set the store's path to one that can be made: %w", err)
	}
	dir, err := os.OpenFile(root, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the folder of a file store; set the store's path to one that can be read: %w", err)
	}
	s := &Store{id: cfg.ID, root: root, dir: dir}
	if err := s.sweep(); err != nil {
		dir.Close()
		return nil, err
	}
	return s, nil
}

// Close releases the folder; open blobs stay usable.
func (s *Store) Close() error { return s.dir.Close() }

// Usage is that of the file system that holds the folder, Free being what an
// ordinary user may still write.
func (s *Store) Usage(ctx context.Context) (backends.Usage, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(s.dir.Fd()), &st); err != nil {
		return backends.Usage{Total: -1, Free: -1}, fmt.Errorf("ask for the free space of %s: %w", s.root, err)
	}
	return backends.Usage{Total: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}

// Locate is where key lies, or would lie.
func (s *Store) Locate(key string) backends.Location {
	u := url.URL{Scheme: "file", Path: filepath.Join(s.root, key)}
	return backends.Location{Store: s.id, URL: u.String()}
}

// Open opens an object for reading; it never follows a symbolic link.
func (s *Store) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	key, err := s.key(loc)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK so that a FIFO put there by hand does not hang us.
	fd, err := unix.Openat(int(s.dir.Fd()), key, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s in file store %s: %w", key, s.root, kind(err))
	}
	b, err := newBlob(os.NewFile(uintptr(fd), filepath.Join(s.root, key)), s.id, key)
	if err != nil {
		return nil, fmt.Errorf("open %s in file store %s: %w", key, s.root, err)
	}
	return b, nil
}

// Delete unlinks an object, durably; blobs open on it read on.
func (s *Store) Delete(ctx context.Context, loc backends.Location) error {
	key, err := s.key(loc)
	if err != nil {
		return err
	}
	if err := unix.Unlinkat(int(s.dir.Fd()), key, 0); err != nil {
		return fmt.Errorf("delete %s from file store %s: %w", key, s.root, kind(err))
	}
	if err := s.dir.Sync(); err != nil {
		return fmt.Errorf("delete %s from file store %s: %w", key, s.root, kind(err))
	}
	return nil
}

// key is the inverse of Locate. Anything but a plain name directly in this
// store's folder is ErrBadLocation.
func (s *Store) key(loc backends.Location) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("%w: file store %s: %s", backends.ErrBadLocation, s.root, why)
	}
	if loc.Store != s.id {
		return bad(fmt.Sprintf("the location is of store %q, this is %q", loc.Store, s.id))
	}
	u, err := url.Parse(loc.URL)
	if err != nil {
		return bad("not a URL")
	}
	if u.Scheme != "file" || u.Host != "" || u.User != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return bad("want file:///folder/key")
	}
	dir, key := filepath.Split(u.Path)
	if dir != strings.TrimSuffix(s.root, "/")+"/" {
		return bad("it lies in another folder")
	}
	if err := checkKey(key); err != nil {
		return bad(err.Error())
	}
	return key, nil
}

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

// kind adds the sentinel of the contract that an errno stands for.
func kind(err error) error {
	for _, k := range []struct {
		errno, sentinel error
	}{
		{unix.ENOSPC, backends.ErrFull},
		{unix.EDQUOT, backends.ErrFull},
		{unix.EFBIG, backends.ErrFull},
		{unix.EROFS, backends.ErrReadOnly},
		{unix.EACCES, backends.ErrReadOnly},
		{unix.EPERM, backends.ErrReadOnly},
		{unix.EEXIST, backends.ErrExists},
		{unix.ENOENT, backends.ErrNotFound},
		{unix.ELOOP, backends.ErrBadLocation}, // O_NOFOLLOW met a symbolic link
	} {
		if errors.Is(err, k.errno) {
			return fmt.Errorf("%w (%w)", k.sentinel, err)
		}
	}
	return err
}
