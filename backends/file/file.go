// Package file keeps objects as plain files in one folder: <path>/<key>, the
// layout of Glance's filesystem store, so that either can read what the other wrote.
//
// An object appears under its name only when it is whole and on the disk: it is
// written to a file without a name (open(2), O_TMPFILE) and linked into place
// after fsync. On file systems without O_TMPFILE a name in the folder .incoming
// takes its place.
//
// The version of an object is a fingerprint of its content (version.go), the claim
// of an upload names its very file (claim.go).
package file

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"glanced/backends"
)

// Config of one store. The tags are the keys of the configuration file that this
// kind has beside those of every store.
type Config struct {
	ID       string `toml:"-"`    // goes into each Location
	ReadOnly bool   `toml:"-"`    // nothing in the folder is changed, nor is it made
	Path     string `toml:"path"` // the folder
}

var _ backends.Store = (*Store)(nil)

// Store keeps objects in one folder. Safe for concurrent use, also by several
// processes over one folder.
type Store struct {
	id       string
	root     string   // absolute, clean
	dir      *os.File // root, open for the *at calls
	readOnly bool

	removing sync.Mutex // see lock

	// What file systems lack, for tests to lack it too.
	named     bool // O_TMPFILE: write under a name in .incoming
	unborn    bool // birth times
	unhandled bool // file handles
	coarse    bool // times finer than seconds

	looked func() // tests: between the look at a name and its removal; nil = nothing
}

// Open makes the folder if need be, and removes what an upload cut off by a
// crash left in .incoming. A folder that cannot be written is no error here:
// its objects can be read, and Begin fails with ErrReadOnly.
func Open(cfg Config) (*Store, error) {
	if cfg.Path == "" {
		return nil, errors.New("open a file store: no path; set the store's path to a folder")
	}
	root, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("open file store %s: %w", cfg.Path, err)
	}
	if !cfg.ReadOnly {
		if err := os.MkdirAll(root, 0o750); err != nil {
			return nil, fmt.Errorf("make the folder of a file store; set the store's path to one that can be made: %w", err)
		}
	}
	dir, err := os.OpenFile(root, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("open the folder of a file store; set the store's path to one that can be read: %w", err)
	}
	s := &Store{id: cfg.ID, root: root, dir: dir, readOnly: cfg.ReadOnly}
	if !cfg.ReadOnly {
		if err := s.sweep(); err != nil {
			dir.Close()
			return nil, err
		}
	}
	return s, nil
}

// Close releases the folder; what is open of it stays usable.
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

// writable is ErrReadOnly for a store that is configured so.
func (s *Store) writable() error {
	if s.readOnly {
		return fmt.Errorf("%w: it is configured as read-only", backends.ErrReadOnly)
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
