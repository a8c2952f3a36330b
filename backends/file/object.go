package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/localfile"
	"glanced/backends/stored"
)

// object is an open file of the store, and what it was when it was opened.
type object struct {
	*os.File
	in      *folder
	key     string
	info    os.FileInfo
	version string
	// fresh: the file was changed so shortly before that, by its times, it could have
	// been changed since.
	fresh bool
}

// freshTime is more than the coarsest times of a file system that we know of, seconds
// (two, of FAT).
const freshTime = 3 * time.Second

// Stat implements backends.Store. The version of a file is a fingerprint of its
// content; see version.
func (s *Store) Stat(ctx context.Context, loc backends.Location) (backends.Location, error) {
	o, err := s.find(loc)
	if err != nil {
		return backends.Location{}, fmt.Errorf("look at an object of file store %s: %w", s.name(), err)
	}
	defer o.Close()
	loc.Size, loc.Version = o.info.Size(), o.version
	return loc, nil
}

// Open implements backends.Store; it never follows a symbolic link. The bytes'
// identity is made of the store's id, the key and the version.
func (s *Store) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	o, err := s.find(loc)
	if err != nil {
		return nil, fmt.Errorf("open an object of file store %s: %w", s.name(), err)
	}
	f, err := localfile.New(o.File, stored.NewIdentity(s.id, o.key, o.version))
	if err != nil {
		return nil, err
	}
	return &blob{File: f, object: o}, nil
}

// Delete implements backends.Store: it unlinks the file, durably. What is open of it
// reads on.
func (s *Store) Delete(ctx context.Context, loc backends.Location) error {
	if err := s.delete(loc); err != nil {
		return fmt.Errorf("delete an object of file store %s: %w", s.name(), err)
	}
	return nil
}

func (s *Store) delete(loc backends.Location) error {
	if err := s.writable(); err != nil {
		return err
	}
	o, err := s.find(loc)
	if err != nil {
		return err
	}
	defer o.Close() // after it is unlinked: an open file's inode is nobody else's
	return o.in.unlink(o.key, func(st *unix.Statx_t) bool { return sameFile(st, o.info) })
}

// find opens and looks at the file of a location, and checks that it is what the
// location records. It looks in the folder that the location says, then in the others:
// a folder may have been moved, or an object from one disk to another.
func (s *Store) find(loc backends.Location) (*object, error) {
	key, home, err := s.key(loc)
	if err != nil {
		return nil, err
	}
	var down, other error // a folder that may have it; what else is under its key
	if home != nil {
		o, err := home.find(key, loc)
		switch {
		case err == nil:
			return o, nil
		case errors.Is(err, backends.ErrUnavailable):
			down = err
		case !errors.Is(err, backends.ErrNotFound):
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	for _, m := range s.members {
		if m == home || loc.Size < 0 && loc.Version == "" {
			continue
		}
		o, err := m.find(key, loc)
		switch {
		case err == nil:
			return o, nil
		case errors.Is(err, backends.ErrUnavailable):
			down = cmp.Or(down, err)
		case !errors.Is(err, backends.ErrNotFound):
			other = fmt.Errorf("%s in %s: %w", key, m.root, err)
		}
	}
	switch {
	case down != nil:
		return nil, fmt.Errorf("%s: %w", key, down)
	case home == nil && other != nil:
		return nil, fmt.Errorf("%w: it lies in another folder; %w", backends.ErrBadLocation, other)
	case home == nil:
		// Not ErrNotFound: the bytes may be there, where the location says.
		return nil, s.bad("it lies in another folder, and there is no " + key + " here")
	case other != nil:
		return nil, other
	}
	return nil, fmt.Errorf("%s: %w", key, backends.ErrNotFound)
}

// find is ErrUnavailable where the folder cannot be used now.
func (m *member) find(key string, loc backends.Location) (*object, error) {
	f, err := m.folder()
	if err != nil {
		return nil, err
	}
	o, err := f.openKey(key)
	if err != nil {
		return nil, err
	}
	if err := loc.Check(o.info.Size(), o.version); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// has tells whether anything is under a key.
func (f *folder) has(key string) bool {
	var st unix.Stat_t
	return unix.Fstatat(int(f.dir.Fd()), key, &st, unix.AT_SYMLINK_NOFOLLOW) == nil
}

func (f *folder) openKey(key string) (*object, error) {
	// O_NONBLOCK so that a FIFO put there by hand does not hang us.
	fd, err := unix.Openat(int(f.dir.Fd()), key, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, kind(err)
	}
	o := &object{File: os.NewFile(uintptr(fd), filepath.Join(f.root, key)), in: f, key: key}
	if o.info, err = o.Stat(); err == nil {
		changed := changeTime(o.info)
		o.fresh = time.Since(time.Unix(changed.Unix())) < freshTime
		if o.info.Mode().IsRegular() {
			o.version, err = version(o.File, o.info.Size())
		} else {
			err = fmt.Errorf("%w: not a regular file", backends.ErrBadLocation)
		}
	}
	if err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

// blob is an open object as stored bytes.
type blob struct {
	*localfile.File
	object *object
}

var _ stored.Verifier = (*blob)(nil)

// Verify implements stored.Verifier: it looks at the file again, and into it where
// its times or its size say that it was touched, or where they would not say it.
func (b *blob) Verify(ctx context.Context) error {
	o := b.object
	now, err := o.Stat()
	if err != nil {
		return fmt.Errorf("look at %s: %w", o.Name(), err)
	}
	if !o.fresh && now.Size() == o.info.Size() && now.ModTime().Equal(o.info.ModTime()) && changeTime(now) == changeTime(o.info) {
		return nil
	}
	recorded := backends.Location{Size: o.info.Size(), Version: o.version}
	found := ""
	if now.Size() == o.info.Size() {
		if found, err = version(o.File, now.Size()); err != nil {
			return fmt.Errorf("%s: %w", o.Name(), err)
		}
	}
	if err := recorded.Check(now.Size(), found); err != nil {
		return fmt.Errorf("%s: %w", o.Name(), err)
	}
	return nil
}

func changeTime(info os.FileInfo) syscall.Timespec { return info.Sys().(*syscall.Stat_t).Ctim }

// sameFile tells whether a name is that of an open file.
func sameFile(st *unix.Statx_t, open os.FileInfo) bool {
	o := open.Sys().(*syscall.Stat_t)
	return st.Ino == o.Ino && unix.Mkdev(st.Dev_major, st.Dev_minor) == o.Dev
}
