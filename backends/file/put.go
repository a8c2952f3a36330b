package file

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/localfile"
)

const (
	// bufferLen is one write, and a multiple of holeLen so that buffers begin on
	// hole boundaries.
	bufferLen = 1 << 20
	// holeLen is the aligned unit in which zeros are left out of the file. It is
	// a multiple of every common block size, and large enough that a file of
	// scattered zeros does not become one of many fragments.
	holeLen = 64 << 10
	// syncWindow is how much is written before the kernel is told to begin to
	// write it back; syncBehind windows later we wait for it. So the fsync at the
	// end finds at most syncBehind windows, however long the upload was.
	syncWindow = 16 << 20
	syncBehind = 8

	incoming = ".incoming"
)

// Put implements backends.Store. Aligned runs of zeros become holes. With a
// known size, too little free space is found before the first byte is read.
func (s *Store) Put(ctx context.Context, key string, r io.Reader, size int64) (backends.Location, error) {
	var none backends.Location
	fail := func(err error) (backends.Location, error) {
		return none, fmt.Errorf("put %s into file store %s: %w", key, s.root, err)
	}
	if err := checkKey(key); err != nil {
		return fail(fmt.Errorf("%w: %w", backends.ErrBadLocation, err))
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(s.dir.Fd()), key, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return fail(backends.ErrExists)
	}
	if size > 0 {
		if u, err := s.Usage(ctx); err == nil && u.Free < size {
			return fail(fmt.Errorf("%w: %d bytes are wanted, %d are free", backends.ErrFull, size, u.Free))
		}
	}
	n, err := s.newName(key)
	if err != nil {
		return fail(kind(err))
	}
	defer n.discard()
	if err := write(ctx, n.f, r, size); err != nil {
		return fail(err)
	}
	if err := n.f.Sync(); err != nil {
		return fail(kind(err))
	}
	if err := n.publish(); err != nil {
		return fail(kind(err))
	}
	if err := s.dir.Sync(); err != nil {
		// The name may or may not survive a crash: take it away again.
		unix.Unlinkat(int(s.dir.Fd()), key, 0)
		return fail(kind(err))
	}
	return s.Locate(key), nil
}

// write copies r into f, holes left out, and checks its length against size.
func write(ctx context.Context, f *os.File, r io.Reader, size int64) error {
	buf := make([]byte, bufferLen)
	var off int64
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := fill(r, buf)
		last := err == io.EOF
		if err != nil && !last {
			return fmt.Errorf("read the body at byte %d: %w", off+int64(n), err)
		}
		if size >= 0 && off+int64(n) > size {
			return fmt.Errorf("%w: %d bytes were announced", backends.ErrLong, size)
		}
		if err := localfile.WriteSparse(f, buf[:n], off, holeLen); err != nil {
			return kind(err)
		}
		before := off
		off += int64(n)
		if before/syncWindow != off/syncWindow {
			writeBack(f, off/syncWindow*syncWindow)
		}
		if last {
			break
		}
	}
	if size >= 0 && off < size {
		return fmt.Errorf("%w: got %d of %d bytes", backends.ErrShort, off, size)
	}
	return kind(f.Truncate(off)) // for a hole at the end
}

// fill reads until buf is full, or r ends (io.EOF) or fails. It is not
// io.ReadFull because that one's io.ErrUnexpectedEOF means a good end, and an
// HTTP body's means that the client is gone.
func fill(r io.Reader, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// writeBack starts writing back the window that ends at end, and waits for one
// further behind. It is only a hint: fsync finds what it could not do.
func writeBack(f *os.File, end int64) {
	fd := int(f.Fd())
	unix.SyncFileRange(fd, end-syncWindow, syncWindow, unix.SYNC_FILE_RANGE_WRITE)
	if old := end - syncBehind*syncWindow; old >= syncWindow {
		unix.SyncFileRange(fd, old-syncWindow, syncWindow,
			unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
}

// name is a file on its way to its key.
type name struct {
	s    *Store
	key  string
	f    *os.File
	temp string // path relative to the root; "" = it has no name yet
}

func (s *Store) newName(key string) (*name, error) {
	if !s.named {
		fd, err := unix.Openat(int(s.dir.Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o640)
		if err == nil {
			return &name{s: s, key: key, f: os.NewFile(uintptr(fd), filepath.Join(s.root, key))}, nil
		}
		// EISDIR comes from kernels, EOPNOTSUPP and EINVAL from file systems, that do not know O_TMPFILE.
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
			return nil, err
		}
	}
	dirfd := int(s.dir.Fd())
	if err := unix.Mkdirat(dirfd, incoming, 0o750); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	temp := incoming + "/" + key + "." + rand.Text()
	fd, err := unix.Openat(dirfd, temp, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o640)
	if err != nil {
		return nil, err
	}
	// The lock tells other processes' sweeps that somebody still writes here.
	unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	return &name{s: s, key: key, f: os.NewFile(uintptr(fd), filepath.Join(s.root, temp)), temp: temp}, nil
}

// publish gives the file its key; EEXIST if there is one.
func (n *name) publish() error {
	dirfd := int(n.s.dir.Fd())
	if n.temp == "" {
		// By /proc, as AT_EMPTY_PATH wants a capability (open(2), "O_TMPFILE").
		return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(n.f.Fd())), dirfd, n.key, unix.AT_SYMLINK_FOLLOW)
	}
	err := unix.Renameat2(dirfd, n.temp, dirfd, n.key, unix.RENAME_NOREPLACE)
	if err == nil {
		n.temp = ""
		return nil
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return unix.Linkat(dirfd, n.temp, dirfd, n.key, 0) // NFS: no RENAME_NOREPLACE, but links
	}
	return err
}

// discard closes the file; one that was not published is gone with it.
func (n *name) discard() {
	if n.temp != "" {
		unix.Unlinkat(int(n.s.dir.Fd()), n.temp, 0)
	}
	n.f.Close()
}

// sweep removes files in .incoming that nobody writes any more.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(filepath.Join(s.root, incoming))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep file store %s: %w", s.root, err)
	}
	for _, e := range entries {
		temp := incoming + "/" + e.Name()
		fd, err := unix.Openat(int(s.dir.Fd()), temp, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		if unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) == nil {
			err = unix.Unlinkat(int(s.dir.Fd()), temp, 0)
		}
		unix.Close(fd)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(kind(err), backends.ErrReadOnly) {
			return fmt.Errorf("sweep %s from file store %s: %w", temp, s.root, err)
		}
	}
	return nil
}
