package file

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"glanced/backends"
)

// mark tells a file from every other one, whatever they are called.
//
// The inode and the birth time (statx(2)) are not enough: an inode is used again as
// soon as it is free, and births are told in ticks of a few milliseconds, or not at
// all. So there are two more. The upload sets the file's modification time to the
// nanosecond at which it began, when it begins and again before it publishes the file.
// And the handle by which a file server would know the file (name_to_handle_at(2))
// has a number that is new when the inode is used again; some file systems have no
// handles. On one that has none, and keeps times in seconds, Begin waits until the
// second is over, so that it is no other upload's.
//
// A mark is for this very file: a copy of the folder is other files, which no claim
// speaks of, and a file whose time is changed by hand is one, too. They stay.
type mark struct {
	ino    uint64
	time   string // seconds.nanoseconds
	born   string // the same; "" = the file system does not tell
	handle string // type.hexadecimal; "" = the same
}

// is tells whether a file, by its mark now, is the one that m was made of.
func (m mark) is(now mark) bool {
	same := func(a, b string) bool { return a == b || a == "" || b == "" }
	return m.ino == now.ino && m.time == now.time && same(m.born, now.born) && same(m.handle, now.handle)
}

// markAt is the mark of the file called name in a folder, or of the open file where
// name is "".
func (s *Store) markAt(fd int, name string) (mark, error) {
	var st unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW
	if name == "" {
		flags = unix.AT_EMPTY_PATH
	}
	if err := unix.Statx(fd, name, flags, statxMask, &st); err != nil {
		return mark{}, err
	}
	m := mark{ino: st.Ino, time: stamp(st.Mtime)}
	if st.Mask&unix.STATX_BTIME != 0 && !s.unborn {
		m.born = stamp(st.Btime)
	}
	if h, _, err := unix.NameToHandleAt(fd, name, flags&unix.AT_EMPTY_PATH); err == nil && !s.unhandled {
		m.handle = fmt.Sprintf("%d.%x", h.Type(), h.Bytes())
	}
	return m, nil
}

// coarseTime is the coarsest that file systems keep times in (FAT).
const coarseTime = 2 * time.Second

// vague tells whether two files that follow each other quickly may have this mark.
func (m mark) vague() bool {
	return m.handle == "" && strings.HasSuffix(m.time, ".000000000")
}

func stamp(t unix.StatxTimestamp) string { return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec) }

const statxMask = unix.STATX_INO | unix.STATX_TYPE | unix.STATX_BTIME | unix.STATX_MTIME

// claim is what a claim of this store says: which file, under which key, the name in
// .incoming that it has until it is published ("" = none), and the id of the folder
// ("" = it has none, or the store had only one when the claim was made).
type claim struct {
	mark
	key, temp, folder string
}

// claimScheme begins a claim; what follows is written as the query of a URL is.
const claimScheme = "1:"

func (c claim) text() backends.Claim {
	v := url.Values{"key": {c.key}, "inode": {strconv.FormatUint(c.ino, 10)}, "time": {c.time}}
	for name, value := range map[string]string{"born": c.born, "handle": c.handle, "temp": c.temp, "folder": c.folder} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return backends.Claim(claimScheme + v.Encode())
}

func parseClaim(text backends.Claim) (c claim, err error) {
	query, ok := strings.CutPrefix(string(text), claimScheme)
	if !ok {
		return c, errors.New("not a claim")
	}
	v, err := url.ParseQuery(query)
	if err != nil {
		return c, errors.New("not a claim")
	}
	c.key, c.temp, c.folder = v.Get("key"), v.Get("temp"), v.Get("folder")
	c.time, c.born, c.handle = v.Get("time"), v.Get("born"), v.Get("handle")
	if c.ino, err = strconv.ParseUint(v.Get("inode"), 10, 64); err != nil {
		return c, errors.New("the claim names no inode")
	}
	if c.time == "" {
		return c, errors.New("the claim names no time")
	}
	if name, ok := strings.CutPrefix(c.temp, incoming+"/"); c.temp != "" && (!ok || name == "" || name[0] == '.' || strings.ContainsAny(name, "/\x00")) {
		return c, fmt.Errorf("the claim's %q is not a name in %s", c.temp, incoming)
	}
	return c, checkKey(c.key)
}

// Abandon implements backends.Store. A claim of the store before there were any is
// the location that the upload would have had.
func (s *Store) Abandon(ctx context.Context, text backends.Claim) error {
	if err := s.abandon(text); err != nil {
		return fmt.Errorf("abandon an upload into file store %s: %w", s.name(), err)
	}
	return nil
}

func (s *Store) abandon(text backends.Claim) error {
	if err := s.writable(); err != nil {
		return err
	}
	if strings.HasPrefix(string(text), "file:") {
		return s.abandonURL(string(text))
	}
	c, err := parseClaim(text)
	if err != nil {
		return s.bad(err.Error())
	}
	// The mark tells whether a file is the upload's, in whatever folder it is.
	up, down := s.open()
	var errs []error
	for _, f := range up {
		if c.folder != "" && f.id != "" && f.id != c.folder {
			continue
		}
		found, err := f.abandon(c)
		if found && err == nil {
			return nil
		}
		errs = append(errs, err)
		if c.folder != "" && f.id == c.folder {
			down = nil // it is in none of these
		}
	}
	return errors.Join(append(errs, down)...)
}

// abandon removes what an upload left in the folder; found tells whether that was
// anything.
func (f *folder) abandon(c claim) (found bool, err error) {
	var errs []error
	if c.temp != "" {
		// The name is random: no other file ever has it. The time moves with every write.
		errs = append(errs, f.unlink(c.temp, func(st *unix.Statx_t) bool { return st.Ino == c.ino }))
	}
	errs = append(errs, f.unlink(c.key, func(*unix.Statx_t) bool {
		now, err := f.s.markAt(int(f.dir.Fd()), c.key)
		return err == nil && c.is(now)
	}))
	for i, err := range errs {
		found = found || err == nil
		// Nothing there, or what is there is another upload's.
		if errors.Is(err, backends.ErrNotFound) || errors.Is(err, backends.ErrChanged) {
			errs[i] = nil
		}
	}
	return found, errors.Join(errs...)
}

// abandonURL removes what an upload left whose claim is a location: whatever is
// under the key, as such an upload is the last one of its key. Where the folder was
// another one, nobody knows whose that is, and it stays.
func (s *Store) abandonURL(text string) error {
	root, key, err := splitURL(text)
	if err != nil {
		return s.bad(err.Error())
	}
	if m := s.member(root); m != nil {
		f, err := m.folder()
		if err == nil {
			err = f.unlink(key, func(st *unix.Statx_t) bool { return true })
		}
		if errors.Is(err, backends.ErrNotFound) {
			return nil
		}
		return err
	}
	up, down := s.open()
	for _, f := range up {
		if f.has(key) {
			return s.bad("the upload was into another folder, and is not to be told from what is under key " + key + " in " + f.root + "; remove that by hand if no image is stored there")
		}
	}
	return down
}

// unlink removes a name, durably, if the file under it is the right one: ErrChanged
// if not, ErrNotFound where there is none.
func (f *folder) unlink(name string, right func(*unix.Statx_t) bool) error {
	if err := f.unlinkName(name, right); err != nil {
		return err
	}
	return kind(f.dir.Sync())
}

func (f *folder) unlinkName(name string, right func(*unix.Statx_t) bool) error {
	defer f.lock()()
	dirfd := int(f.dir.Fd())
	var st unix.Statx_t
	if err := unix.Statx(dirfd, name, unix.AT_SYMLINK_NOFOLLOW, statxMask, &st); err != nil {
		return kind(err)
	}
	if !right(&st) {
		return fmt.Errorf("%s: %w", name, backends.ErrChanged)
	}
	if f.s.looked != nil {
		f.s.looked()
	}
	return kind(unix.Unlinkat(dirfd, name, 0))
}

// lock keeps all who remove names apart, in this process and in others: between a
// look at a name and its removal, no other may remove it, for then a third could
// publish a new object there. Publishing never replaces anything, and needs no lock.
// On file systems without locks, only this process's are kept apart.
func (f *folder) lock() (unlock func()) {
	f.removing.Lock()
	fd := int(f.dir.Fd())
	for errors.Is(unix.Flock(fd, unix.LOCK_EX), unix.EINTR) {
	}
	return func() {
		unix.Flock(fd, unix.LOCK_UN)
		f.removing.Unlock()
	}
}

// sweep removes files in .incoming that nobody writes any more: those of uploads
// cut off before their claim was on record, too.
func (f *folder) sweep() error {
	entries, err := os.ReadDir(filepath.Join(f.root, incoming))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep file store %s: %w", f.root, err)
	}
	for _, e := range entries {
		temp := incoming + "/" + e.Name()
		fd, err := unix.Openat(int(f.dir.Fd()), temp, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = unix.Unlinkat(int(f.dir.Fd()), temp, 0)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(kind(err), backends.ErrReadOnly) {
			return fmt.Errorf("sweep %s from file store %s: %w", temp, f.root, err)
		}
	}
	return nil
}

// setTime sets a file's modification time.
func (s *Store) setTime(f *os.File, t time.Time) error {
	if s.coarse {
		t = t.Truncate(time.Second)
	}
	ts := unix.NsecToTimespec(t.UnixNano())
	err := unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(f.Fd())), []unix.Timespec{ts, ts}, 0)
	if err != nil {
		return fmt.Errorf("set the time by which an upload is known; put the store's folder on a file system that can: %w", err)
	}
	return nil
}
