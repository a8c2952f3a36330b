package file

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/localfile"
)

const (
	// holeLen is the aligned unit in which zeros are left out of the file. It is
	// a multiple of every common block size, and large enough that a file of
	// scattered zeros does not become one of many fragments: with 4 KiB, ext4 took
	// such an upload at a thirtieth of the rate (contrib/decisions/0013).
	holeLen = 64 << 10
	// syncWindow is how much is written before the kernel is told to begin to
	// write it back; syncBehind windows later we wait for it. So the fsync at the
	// end finds at most syncBehind windows, however long the upload was.
	syncWindow = 16 << 20
	syncBehind = 8

	incoming = ".incoming"
)

// errEnded is what a Writer says after Abort.
var errEnded = errors.New("the upload was aborted")

// writer is an upload under way: a file on its way to its key.
type writer struct {
	s        *Store
	in       *folder
	ctx      context.Context // Begin's; it bounds the writing
	key      string
	size     int64 // announced, -1 = unknown
	promised int64 // of it, not written yet: counted in the folder
	f        *os.File
	temp     string // path relative to the root; "" = it has no name yet
	claim    claim
	began    time.Time // what the file's time is set to
	written  int64

	durable   bool  // the content is on the disk
	published bool  // the key is the file's name
	broken    bool  // Commit need not be tried again
	err       error // of an earlier call: there is only Abort
	done      *backends.Location
}

// Begin implements backends.Store. With a known size, too little free space is found
// before the first byte. Where the best folder cannot be written after all, it is the
// next one's turn.
func (s *Store) Begin(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w, err := s.begin(ctx, key, size)
	if err != nil {
		return nil, fmt.Errorf("begin to write %q into file store %s: %w", key, s.name(), err)
	}
	return w, nil
}

func (s *Store) begin(ctx context.Context, key string, size int64) (*writer, error) {
	if err := checkKey(key); err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrBadLocation, err)
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	up, down := s.open()
	for _, f := range up {
		if f.has(key) {
			return nil, backends.ErrExists
		}
	}
	rooms, err := s.choose(up, size)
	if err != nil && down != nil {
		return nil, fmt.Errorf("%w; %v", err, down)
	}
	if err != nil {
		return nil, err
	}
	failed := down // with no folder to try, that is why
	for i, r := range rooms {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		w, err := r.in.begin(ctx, key, size)
		if err == nil {
			return w, nil
		}
		if i > 0 {
			err = fmt.Errorf("%w; %w", failed, err)
		}
		failed = err
	}
	return nil, failed
}

// begin begins an upload into the folder.
func (f *folder) begin(ctx context.Context, key string, size int64) (*writer, error) {
	w := &writer{s: f.s, in: f, ctx: ctx, key: key, size: size}
	if err := w.create(); err != nil {
		return nil, fmt.Errorf("%s: %w", f.root, kind(err))
	}
	if err := w.sign(); err != nil {
		w.discard()
		return nil, kind(err)
	}
	w.promised = max(size, 0)
	f.promised.Add(w.promised)
	return w, nil
}

// create makes the file: without a name, or under one in .incoming.
func (w *writer) create() error {
	dirfd := int(w.in.dir.Fd())
	if !w.s.named {
		fd, err := unix.Openat(dirfd, ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o640)
		if err == nil {
			w.f = os.NewFile(uintptr(fd), filepath.Join(w.in.root, w.key))
			return nil
		}
		// EISDIR comes from kernels, EOPNOTSUPP and EINVAL from file systems, that do not know O_TMPFILE.
		if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	if err := unix.Mkdirat(dirfd, incoming, 0o750); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	for {
		temp := incoming + "/" + w.key + "." + rand.Text()
		fd, err := unix.Openat(dirfd, temp, unix.O_CREAT|unix.O_EXCL|unix.O_RDWR|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o640)
		if err != nil {
			return err
		}
		// The lock tells other processes' sweeps that somebody writes here. One that
		// came before it has taken the name away.
		unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err == nil && st.Nlink == 0 {
			unix.Close(fd)
			continue
		}
		w.f, w.temp = os.NewFile(uintptr(fd), filepath.Join(w.in.root, temp)), temp
		return nil
	}
}

// sign makes the claim on the file.
func (w *writer) sign() error {
	w.began = time.Now()
	if err := w.s.setTime(w.f, w.began); err != nil {
		return err
	}
	m, err := w.s.markAt(int(w.f.Fd()), "")
	w.claim = claim{mark: m, key: w.key, temp: w.temp, folder: w.in.id}
	if err == nil && m.vague() {
		select {
		case <-time.After(coarseTime):
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		}
	}
	return err
}

// Claim implements backends.Writer.
func (w *writer) Claim() backends.Claim { return w.claim.text() }

// Write implements io.Writer. Aligned runs of zeros become holes.
func (w *writer) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.write(p)
	if err != nil {
		w.err = w.explain(err)
	}
	return n, w.err
}

func (w *writer) write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	if w.published {
		return 0, errors.New("it is committed")
	}
	if w.size >= 0 && int64(len(p)) > w.size-w.written {
		return 0, fmt.Errorf("%w: %d bytes were announced", backends.ErrLong, w.size)
	}
	w.durable = false
	if err := localfile.WriteSparse(roomy{w}, p, w.written, holeLen); err != nil {
		return 0, kind(err)
	}
	before := w.written
	w.written += int64(len(p))
	w.keepPromise(int64(len(p)))
	if before/syncWindow != w.written/syncWindow {
		writeBack(w.f, w.written/syncWindow*syncWindow)
	}
	return len(p), nil
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

// Commit implements backends.Writer.
func (w *writer) Commit(ctx context.Context) (backends.Location, error) {
	if w.done != nil {
		return *w.done, nil
	}
	if w.err != nil {
		return backends.Location{}, w.err
	}
	if err := w.commit(ctx); err != nil {
		err = w.explain(err)
		if w.broken {
			w.err = err
		}
		return backends.Location{}, err
	}
	return *w.done, nil
}

func (w *writer) commit(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if w.written < w.size {
		return fmt.Errorf("%w: got %d of %d bytes", backends.ErrShort, w.written, w.size)
	}
	if !w.durable {
		if err := w.persist(); err != nil {
			return err
		}
	}
	version, err := version(w.f, w.written)
	if err != nil {
		return err
	}
	if err := w.publish(); err != nil {
		return kind(err)
	}
	if err := w.in.dir.Sync(); err != nil {
		w.broken = true // as in persist
		return kind(err)
	}
	loc := w.in.locate(w.key, w.written, version)
	w.done = &loc
	w.f.Close()
	return nil
}

// keepPromise is for n announced bytes that are written, or will not be.
func (w *writer) keepPromise(n int64) {
	n = min(n, w.promised)
	w.promised -= n
	w.in.promised.Add(-n)
}

// persist brings the file to the disk. An fsync that failed is not repeated: the
// kernel tells once of pages that it could not write, and then takes them for clean.
func (w *writer) persist() error {
	err := w.f.Truncate(w.written) // for a hole at the end
	if err == nil {
		err = w.s.setTime(w.f, w.began)
	}
	if err == nil {
		err = w.f.Sync()
	}
	if err == nil {
		var m mark
		if m, err = w.s.markAt(int(w.f.Fd()), ""); err == nil && !w.claim.is(m) {
			err = errors.New("the file system did not keep the time by which the upload is known; put the store's folder on another")
		}
	}
	w.durable, w.broken = err == nil, err != nil
	return kind(err)
}

// publish gives the file its key; EEXIST if another one has it.
func (w *writer) publish() error {
	if w.published {
		return nil
	}
	err := w.linkAlone()
	if err != nil && !w.isAt(w.key) { // it may have got there though the call failed
		return err
	}
	w.published = true
	if w.temp != "" {
		unix.Unlinkat(int(w.in.dir.Fd()), w.temp, 0) // where it was linked, or a call's answer was lost
	}
	return nil
}

// linkAlone is link where no other folder has the key. With several, a look at them and
// the link are one step, for all who publish there.
func (w *writer) linkAlone() error {
	if len(w.s.members) == 1 {
		return w.link()
	}
	up, _ := w.s.open()
	slices.SortFunc(up, func(a, b *folder) int { // so that nobody waits for who waits for him
		return cmp.Or(cmp.Compare(a.inode.dev, b.inode.dev), cmp.Compare(a.inode.ino, b.inode.ino))
	})
	for _, f := range up {
		defer f.lock()()
	}
	for _, f := range up {
		if f != w.in && f.has(w.key) {
			return unix.EEXIST
		}
	}
	return w.link()
}

func (w *writer) link() error {
	dirfd := int(w.in.dir.Fd())
	if w.temp == "" {
		// By /proc, as AT_EMPTY_PATH wants a capability (open(2), "O_TMPFILE").
		return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(int(w.f.Fd())), dirfd, w.key, unix.AT_SYMLINK_FOLLOW)
	}
	return renameNew(dirfd, w.temp, w.key)
}

// renameNew gives a file in a folder another name, which nothing has: EEXIST.
func renameNew(dirfd int, from, to string) error {
	err := unix.Renameat2(dirfd, from, dirfd, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return unix.Linkat(dirfd, from, dirfd, to, 0) // NFS: no RENAME_NOREPLACE, but links
	}
	return err
}

// isAt tells whether name is the file's.
func (w *writer) isAt(name string) bool {
	var st unix.Statx_t
	info, err := w.f.Stat()
	return err == nil && unix.Statx(int(w.in.dir.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, statxMask, &st) == nil && sameFile(&st, info)
}

// Abort implements backends.Writer.
func (w *writer) Abort(ctx context.Context) error {
	if w.err == nil {
		w.err = w.explain(errEnded)
	}
	w.done = nil
	w.keepPromise(w.promised)
	defer w.f.Close() // after Abandon: an open file's inode is nobody else's
	return w.s.Abandon(ctx, w.Claim())
}

// discard is for a file that nobody has a claim on yet.
func (w *writer) discard() {
	if w.temp != "" {
		unix.Unlinkat(int(w.in.dir.Fd()), w.temp, 0)
	}
	w.f.Close()
}

func (w *writer) explain(err error) error {
	if errors.Is(err, backends.ErrFull) && !errors.Is(err, errNoRoom) {
		err = fmt.Errorf("%w: %s", err, w.in.advice())
	}
	return fmt.Errorf("write %q into file store %s: %w", w.key, w.in.root, err)
}
