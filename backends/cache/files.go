package cache

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// The files of an object's folder.
const (
	dataName = "data" // the object, with holes where chunks are missing
	sumsName = "sums" // sums.go
	pinName  = "pin"  // empty; there: the object is pinned
)

func punch(f *os.File, off, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// freeBytes is what the file system of dir has free for who is not root.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("ask for the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

func allocatedOf(f *os.File) int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// record makes the folder of an object, and its files. Cache.files is held.
func (o *object) record() error {
	if o.recorded {
		return nil
	}
	if err := os.Mkdir(o.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	data, err := os.OpenFile(filepath.Join(o.dir, dataName), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err == nil {
		err = errors.Join(data.Truncate(o.size), data.Close())
	}
	if err == nil {
		o.c.mu.Lock()
		h := header{chunk: o.c.cfg.ChunkSize, size: o.size, id: o.id, place: o.place}
		o.c.mu.Unlock()
		err = os.WriteFile(filepath.Join(o.dir, sumsName), h.encode(), 0o600)
	}
	if err != nil {
		o.unrecord()
		return err
	}
	o.counted(true, headerSize)
	return nil
}

// unrecord removes the files of an object, and its folder if nobody else put
// anything there. Cache.files is held.
func (o *object) unrecord() error {
	var errs []error
	// The data goes last: without sums it is nothing.
	for _, name := range []string{pinName, sumsName, dataName} {
		if err := os.Remove(filepath.Join(o.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	os.Remove(o.dir)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	o.counted(false, 0)
	return nil
}

// counted notes whether there are files, and what that of sums takes. Cache.files is
// held.
func (o *object) counted(recorded bool, sums int64) {
	o.c.mu.Lock()
	defer o.c.mu.Unlock()
	o.recorded = recorded
	o.c.used += sums - o.sums
	o.sums = sums
}

// enter opens the object's data, if it is on disk, for one more user; leave takes it
// away. It reports whether the data is there. Cache.files is held.
func (o *object) enter() (ok bool, err error) {
	o.c.mu.Lock()
	o.users++
	is := o.data != nil
	o.c.mu.Unlock()
	if is || !o.recorded {
		return is, nil
	}
	f, err := os.OpenFile(filepath.Join(o.dir, dataName), os.O_RDWR, 0)
	if errors.Is(err, unix.EROFS) {
		f, err = os.Open(filepath.Join(o.dir, dataName))
	}
	if err == nil {
		var st os.FileInfo
		if st, err = f.Stat(); err == nil && st.Size() != o.size {
			err = fmt.Errorf("%s has %d bytes, not %d", f.Name(), st.Size(), o.size)
		}
	}
	if err != nil {
		f.Close()
		return false, err
	}
	o.c.mu.Lock()
	o.data = f
	o.c.mu.Unlock()
	return true, nil
}

// left is leave, and closes what is to be closed.
func (o *object) left() {
	o.c.mu.Lock()
	f := o.leave()
	o.c.mu.Unlock()
	f.Close()
}

// write puts chunks from first on, in p, on the disk, then their records. Cache.files
// is held, and the caller is a user.
func (o *object) write(first uint32, p []byte, sums []uint32) error {
	if err := o.writeData(first, p); err != nil {
		return err
	}
	records := make([]byte, 0, recordSize*len(sums))
	for i, sum := range sums {
		r := record(o.base, first+uint32(i), sum)
		records = append(records, r[:]...)
	}
	return o.writeRecords(first, records)
}

// writeData puts chunks from first on, in p, on the disk. Those of zeros become a hole,
// whatever was there.
func (o *object) writeData(first uint32, p []byte) error {
	for i, n := first, uint32(0); len(p) > 0; i, n = i+n, 0 {
		end := int64(0)
		zeros := isZero(p[:min(o.span(i, 1), int64(len(p)))])
		for end < int64(len(p)) && isZero(p[end:end+o.span(i+n, 1)]) == zeros {
			end += o.span(i+n, 1)
			n++
		}
		var err error
		if zeros {
			err = punch(o.data, o.start(i), end)
		} else {
			_, err = o.data.WriteAt(p[:end], o.start(i))
		}
		if err != nil {
			return err
		}
		p = p[end:]
	}
	return nil
}

// isZero reports whether b is all zeros; on data it looks at a few bytes.
func isZero(b []byte) bool {
	return len(b) > 0 && b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1])
}

func (o *object) writeRecords(first uint32, records []byte) error {
	f, err := os.OpenFile(filepath.Join(o.dir, sumsName), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.WriteAt(records, recordAt(first)); err == nil {
		o.counted(true, allocatedOf(f))
	}
	return err
}

// erase takes chunks of which the index knows nothing any more from the disk, and
// what they took from what is used. Cache.files is held.
func (c *Cache) erase(gone []*chunk) error {
	slices.SortFunc(gone, func(a, b *chunk) int {
		return cmp.Or(cmp.Compare(a.o.name, b.o.name), cmp.Compare(a.i, b.i))
	})
	var errs []error
	for len(gone) > 0 {
		o, n := gone[0].o, 1
		for n < len(gone) && gone[n].o == o {
			n++
		}
		errs = append(errs, o.erase(gone[:n]))
		gone = gone[n:]
	}
	return errors.Join(errs...)
}

func (o *object) erase(gone []*chunk) error {
	var freed int64
	for _, ch := range gone {
		freed += o.allocated(ch.i)
	}
	o.c.mu.Lock()
	last := len(o.chunks) == 0 && o.users == 0 && !o.pinned
	o.c.mu.Unlock()
	var err error
	if last {
		err = o.unrecord()
	} else {
		err = o.punch(gone)
	}
	o.c.mu.Lock()
	o.c.used -= freed
	if last && o.users == 0 {
		o.forget()
	}
	o.c.mu.Unlock()
	return err
}

// punch erases runs of neighbours: first the records, then the data.
func (o *object) punch(gone []*chunk) error {
	ok, err := o.enter()
	defer o.left()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody removed the files: so they are erased
	}
	if !ok {
		return err
	}
	for len(gone) > 0 {
		n := 1
		for n < len(gone) && gone[n].i == gone[n-1].i+1 {
			n++
		}
		first := gone[0].i
		if e := o.writeRecords(first, make([]byte, recordSize*n)); err == nil && !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
		end := o.start(first + uint32(n))
		if end == o.size { // the file's last block too
			end = (end + block - 1) &^ (block - 1)
		}
		if e := punch(o.data, o.start(first), end-o.start(first)); err == nil {
			err = e
		}
		gone = gone[n:]
	}
	return err
}
