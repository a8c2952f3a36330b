// Package file keeps objects as plain files in one folder or in several:
// <folder>/<key>, the layout of Glance's filesystem store, so that either can read
// what the other wrote.
//
// An object appears under its name only when it is whole and on the disk: it is
// written to a file without a name (open(2), O_TMPFILE) and linked into place
// after fsync. On file systems without O_TMPFILE a name in the folder .incoming
// takes its place.
//
// The version of an object is a fingerprint of its content (version.go), the claim
// of an upload names its very file (claim.go).
//
// Several folders are meant for several disks (room.go says which one an upload goes
// to). One whose disk is not mounted, or has failed, is unavailable with what lies
// there, and the others go on (member.go).
package file

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/setting"
)

// Config of one store. The tags are the keys of the configuration file that this
// kind has beside those of every store.
type Config struct {
	ID       string `toml:"-"` // goes into each Location
	ReadOnly bool   `toml:"-"` // nothing in the folders is changed, nor are they made
	// Memory is a folder of the daemon's own, outside of the store's, where the store
	// remembers its folders by; "" = it does not (member.go).
	Memory string `toml:"-"`

	Path    string       `toml:"path"`    // the folder, or
	Paths   []Folder     `toml:"paths"`   // several
	Reserve setting.Part `toml:"reserve"` // of each file system, that uploads leave free
}

// Folder is one of several folders.
type Folder struct {
	Path     string `toml:"path"`
	Priority int    `toml:"priority"` // uploads go to the greatest that has room for them
}

// Defaults are a Config's values where the configuration file gives none.
var Defaults = Config{Memory: "file-stores"}

// LocalPaths are the fields of c that are paths, and may be relative until they are
// made absolute.
func (c *Config) LocalPaths() []*string {
	all := []*string{&c.Memory, &c.Path}
	for i := range c.Paths {
		all = append(all, &c.Paths[i].Path)
	}
	return all
}

// Moved tells whether c lacks a folder that was has. More of them are no matter.
func (c Config) Moved(was Config) bool {
	is, err := c.folders()
	old, errOld := was.folders()
	if err != nil || errOld != nil {
		return true
	}
	for _, f := range old {
		if !slices.ContainsFunc(is, func(g Folder) bool { return g.Path == f.Path }) {
			return true
		}
	}
	return c.Memory != was.Memory
}

// folders are the configured ones, their paths absolute and clean.
func (c Config) folders() ([]Folder, error) {
	all := c.Paths
	switch {
	case c.Path != "" && len(all) > 0:
		return nil, errors.New("path and paths are both set: set one")
	case c.Path != "":
		all = []Folder{{Path: c.Path}}
	case len(all) == 0:
		return nil, errors.New("no path; set the store's path to a folder, or paths to several")
	}
	var clean []Folder
	for _, f := range all {
		if f.Path == "" {
			return nil, errors.New("a folder of paths has no path")
		}
		root, err := filepath.Abs(f.Path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.Path, err)
		}
		clean = append(clean, Folder{root, f.Priority})
	}
	return clean, nil
}

var (
	_ backends.Store    = (*Store)(nil)
	_ backends.Degrader = (*Store)(nil)
)

// Store keeps objects in its folders. Safe for concurrent use, also by several
// processes over one folder.
type Store struct {
	id       string
	readOnly bool
	reserve  setting.Part
	members  []*member // in the order of the configuration, one at least
	memory   *memory

	// What file systems lack, for tests to lack it too.
	named     bool // O_TMPFILE: write under a name in .incoming
	unborn    bool // birth times
	unhandled bool // file handles
	coarse    bool // times finer than seconds

	looked func() // tests: between the look at a name and its removal; nil = nothing
}

// Open makes the folders if need be, and removes what an upload cut off by a crash
// left in .incoming. A folder that cannot be written is no error here: its objects can
// be read, and Begin fails with ErrReadOnly. Nor is one that is known from earlier and
// not there now, or one of several that cannot be opened: see Degraded.
func Open(cfg Config) (*Store, error) {
	folders, err := cfg.folders()
	if err != nil {
		return nil, fmt.Errorf("open a file store: %w", err)
	}
	s := &Store{id: cfg.ID, readOnly: cfg.ReadOnly, reserve: cfg.Reserve}
	if s.memory, err = openMemory(cfg.Memory, cfg.ID); err != nil {
		return nil, fmt.Errorf("open a file store: %w", err)
	}
	start := false
	var errs []error
	for _, f := range folders {
		m := &member{s: s, root: f.Path, priority: f.Priority}
		s.members = append(s.members, m)
		_, err := m.folder()
		start = start || err == nil || s.memory.id(m.root) != ""
		errs = append(errs, err)
	}
	err = s.twice()
	if err == nil && !start {
		err = errors.Join(errs...)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close releases the folders; what is open of them stays usable.
func (s *Store) Close() error {
	var errs []error
	for _, m := range s.members {
		errs = append(errs, m.close())
	}
	return errors.Join(errs...)
}

// Degraded implements backends.Degrader: it says which folders cannot be used, and why.
func (s *Store) Degraded() error {
	errs := []error{s.memory.trouble()}
	for _, m := range s.members {
		_, err := m.folder()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// open are the folders that can be used now, and why the others cannot.
func (s *Store) open() (up []*folder, down error) {
	var errs []error
	for _, m := range s.members {
		f, err := m.folder()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		up = append(up, f)
	}
	return up, errors.Join(errs...)
}

// twice is an error where two folders are the same one.
func (s *Store) twice() error {
	up, _ := s.open()
	for i, f := range up {
		for _, g := range up[:i] {
			if f.inode == g.inode {
				return fmt.Errorf("open a file store: %s and %s are the same folder: name it once", g.root, f.root)
			}
		}
	}
	return nil
}

// name is the store in messages: its folders.
func (s *Store) name() string {
	var roots []string
	for _, m := range s.members {
		roots = append(roots, m.root)
	}
	return strings.Join(roots, ", ")
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
