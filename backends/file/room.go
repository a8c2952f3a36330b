package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"glanced/backends"
)

// errNoRoom is an ErrFull that says already what is to be done.
var errNoRoom = fmt.Errorf("%w", backends.ErrFull)

// room is what a folder's file system has, bytes.
type room struct {
	in      *folder
	total   int64
	left    int64 // what an ordinary user may still write
	reserve int64 // of it, what uploads leave free
}

// free is what uploads may write.
func (r room) free() int64 { return max(r.left-r.reserve, 0) }

// unpromised is free, less what uploads under way have announced.
func (r room) unpromised() int64 { return r.free() - r.in.promised.Load() }

func (r room) String() string {
	text := fmt.Sprintf("%s has %d bytes free", r.in.root, r.left)
	if r.reserve > 0 {
		text += fmt.Sprintf(", of which %d are reserved", r.reserve)
	}
	return text
}

func (f *folder) room() (room, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.dir.Fd()), &st); err != nil {
		return room{}, fmt.Errorf("ask for the free space of %s: %w", f.root, err)
	}
	r := room{in: f, total: int64(st.Blocks) * st.Bsize, left: int64(st.Bavail) * st.Bsize}
	r.reserve = f.s.reserve.Of(r.total)
	return r, nil
}

// remedy ends the message of an ErrFull.
const remedy = "delete images, make its disk larger, or upload to another store"

// advice says how full the folder is, and what to do.
func (f *folder) advice() string {
	r, err := f.room()
	if err != nil {
		return f.root + ": " + remedy
	}
	return r.String() + ": " + remedy
}

// choose is the folders that an upload of size bytes (-1 = unknown) may go into, the
// best first: the greatest priority, and of several the one with the most free space.
// Those where it fits only if others do not write what they have announced come last.
// ErrFull where it fits nowhere; an upload of unknown size does anywhere.
func (s *Store) choose(up []*folder, size int64) ([]room, error) {
	var rooms []room
	var full []string
	for _, f := range up {
		r, err := f.room()
		if err != nil { // it is not to be had: the last one to try
			r = room{in: f}
		} else if size > r.free() {
			full = append(full, r.String())
			continue
		}
		rooms = append(rooms, r)
	}
	if len(rooms) == 0 && len(full) > 0 {
		return nil, fmt.Errorf("%w: %d bytes are wanted; %s: %s", errNoRoom, size, strings.Join(full, "; "), remedy)
	}
	want := max(size, 1)
	slices.SortStableFunc(rooms, func(a, b room) int {
		return cmp.Or(
			falseLast(a.unpromised() >= want, b.unpromised() >= want),
			cmp.Compare(b.in.priority, a.in.priority),
			cmp.Compare(b.unpromised(), a.unpromised()))
	})
	return rooms, nil
}

func falseLast(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// roomy is an upload's file, of which nothing is written that the reserve is for. Of
// several uploads that write at the same time, each may take as much as it writes at once
// beyond that.
type roomy struct{ *writer }

// WriteAt implements io.WriterAt.
func (w roomy) WriteAt(p []byte, off int64) (int, error) {
	if w.s.reserve.Any() {
		r, err := w.in.room()
		if err != nil {
			return 0, err
		}
		if int64(len(p)) > r.free() {
			return 0, fmt.Errorf("%w: %s: %s", errNoRoom, r, remedy)
		}
	}
	return w.f.WriteAt(p, off)
}

// Usage is that of the file systems that hold the folders, each counted once, Free being
// what uploads may write. What is not mounted is left out.
func (s *Store) Usage(ctx context.Context) (backends.Usage, error) {
	up, down := s.open()
	var u backends.Usage
	counted := map[uint64]bool{}
	var errs []error
	for _, f := range up {
		if counted[f.inode.dev] {
			continue
		}
		r, err := f.room()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		counted[f.inode.dev] = true
		u.Total += r.total
		u.Free += r.free()
	}
	if len(counted) == 0 {
		return backends.Usage{Total: -1, Free: -1}, errors.Join(append(errs, down)...)
	}
	return u, nil
}
