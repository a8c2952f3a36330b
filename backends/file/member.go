package file

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"glanced/backends"
)

// markerName is the file by which a folder is known again. Its content is an id, one
// line. A disk that is not mounted leaves an empty folder where it should be, and what
// is written there is out of sight when it is mounted again: so a folder that had a
// marker and now has none, nor any object, is not used.
//
// That it had one is remembered beside the daemon's own data (memory.go). A folder
// without a marker that has objects in it was restored from a backup, and gets its
// marker again.
const markerName = ".glanced-folder"

// maxMarker is the longest id, bytes.
const maxMarker = 64

// member is one configured folder, whether it can be used or not. Safe for concurrent
// use.
type member struct {
	s        *Store
	root     string // absolute, clean
	priority int

	mu     sync.Mutex
	up     *folder // nil: it could not be opened yet
	closed bool
}

// folder is a member that can be used.
type folder struct {
	s        *Store
	root     string
	priority int
	dir      *os.File // root, open for the *at calls
	id       string   // of its marker; "" = it has none
	inode    inode

	removing sync.Mutex   // see lock
	promised atomic.Int64 // bytes that uploads under way have announced and not written yet
}

// inode is a file's, on this machine.
type inode struct{ dev, ino uint64 }

var errClosed = errors.New("the store is closed")

// folder is m's, opened now if it could not be before: its disk may have been mounted.
// Where it cannot be used, the error is ErrUnavailable.
func (m *member) folder() (*folder, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, errClosed
	}
	if m.up != nil {
		return m.up, nil
	}
	f, err := m.open()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	m.up = f
	return f, nil
}

func (m *member) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.up == nil {
		return nil
	}
	return m.up.dir.Close()
}

// open makes the folder, unless it is known from earlier, and looks whether it is the
// right one.
func (m *member) open() (*folder, error) {
	known := m.s.memory.id(m.root)
	if !m.s.readOnly && known == "" {
		if err := os.MkdirAll(m.root, 0o750); err != nil {
			return nil, fmt.Errorf("make %s for a file store; set the store's path to a folder that can be made: %w", m.root, err)
		}
	}
	dir, err := os.OpenFile(m.root, os.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case err != nil && known != "":
		return nil, fmt.Errorf("open the folder of a file store; mount its disk if that is not there: %w", err)
	case err != nil:
		return nil, fmt.Errorf("open the folder of a file store; set the store's path to one that can be read: %w", err)
	}
	f := &folder{s: m.s, root: m.root, priority: m.priority, dir: dir}
	if err = f.look(known); err == nil && !m.s.readOnly {
		err = f.sweep()
	}
	if err != nil {
		dir.Close()
		return nil, err
	}
	return f, nil
}

// look checks that the folder is the one that is known, "" = none is, and sees to it
// that it will be known again.
func (f *folder) look(known string) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.dir.Fd()), &st); err != nil {
		return fmt.Errorf("look at %s: %w", f.root, err)
	}
	f.inode = inode{st.Dev, st.Ino}
	id, err := f.marker()
	if err != nil {
		return err
	}
	switch {
	case id != "" && known != "" && !f.s.memory.has(id):
		return fmt.Errorf("%s is not the folder that the store used there: its %s says %s, not %s: mount the right disk; or write that id into the file, and this folder is used in its place", f.root, markerName, id, known)
	case id == "" && known != "":
		if empty, err := f.empty(); err != nil {
			return err
		} else if empty {
			return fmt.Errorf("%s is empty and has no %s, so it is not the folder that the store used there: mount its disk; or, if an empty folder is to take its place, echo %s > %s", f.root, markerName, known, filepath.Join(f.root, markerName))
		}
	}
	if id == "" && f.s.memory.keeps() && !f.s.readOnly {
		// Where it cannot be written, or not now, the folder goes without.
		id, _ = f.mark(cmp.Or(known, rand.Text()))
	}
	f.id = id
	f.s.memory.keep(f.root, id)
	return nil
}

// marker is the id in the folder's marker; "" = there is none.
func (f *folder) marker() (string, error) {
	fd, err := unix.Openat(int(f.dir.Fd()), markerName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	path := filepath.Join(f.root, markerName)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", path, err)
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxMarker+2))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	id := strings.TrimSpace(string(text))
	if len(id) > maxMarker {
		return "", fmt.Errorf("%s holds no id", path)
	}
	return id, nil // "": a crash came before the id was on the disk
}

// mark gives the folder a marker, durably, unless it has one: another process may have
// been first. The id is the one that it has then.
func (f *folder) mark(id string) (string, error) {
	dirfd := int(f.dir.Fd())
	temp := markerName + "." + rand.Text()
	fd, err := unix.Openat(dirfd, temp, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return "", err
	}
	defer unix.Unlinkat(dirfd, temp, 0)
	file := os.NewFile(uintptr(fd), temp)
	_, err = file.WriteString(id + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", err
	}
	if err := renameNew(dirfd, temp, markerName); err != nil && !errors.Is(err, unix.EEXIST) {
		return "", err
	}
	if err := f.dir.Sync(); err != nil {
		return "", err
	}
	return f.marker()
}

// empty tells that nothing is in the folder that could be an object.
func (f *folder) empty() (bool, error) {
	fd, err := unix.Openat(int(f.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("look into %s: %w", f.root, err)
	}
	names := os.NewFile(uintptr(fd), f.root)
	defer names.Close()
	for {
		some, err := names.Readdirnames(100)
		for _, name := range some {
			if name[0] != '.' && name != "lost+found" {
				return false, nil
			}
		}
		if err == io.EOF {
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("look into %s: %w", f.root, err)
		}
	}
}
