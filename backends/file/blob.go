package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"glanced/backends"
)

// The abilities that the file store has; without one of them its part of the
// conformance suite would be skipped, and sendfile and holes with it.
var (
	_ backends.Locator    = (*Store)(nil)
	_ backends.FileRanger = (*blob)(nil)
	_ backends.Extenter   = (*blob)(nil)
)

// blob is one open file. Its size and version are those at opening.
type blob struct {
	f       *os.File
	size    int64
	version string
}

// newBlob owns f, also when it fails.
func newBlob(f *os.File) (*blob, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		f.Close()
		return nil, fmt.Errorf("%w: not a regular file", backends.ErrBadLocation)
	}
	return &blob{
		f:       f,
		size:    st.Size,
		version: fmt.Sprintf("%d-%d.%09d-%d", st.Ino, st.Mtim.Sec, st.Mtim.Nsec, st.Size),
	}, nil
}

func (b *blob) Size() int64     { return b.size }
func (b *blob) Version() string { return b.version }
func (b *blob) Close() error    { return b.f.Close() }

func (b *blob) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := b.inside(off, int64(len(p))); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	// os.File.ReadAt reads on until p is full, or fails.
	_, err := b.f.ReadAt(p, off)
	if err == io.EOF {
		err = fmt.Errorf("%w: it was cut off", backends.ErrChanged)
	}
	if err != nil {
		return fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, b.f.Name(), err)
	}
	return nil
}

// FileRange implements backends.FileRanger: the file is the blob.
func (b *blob) FileRange(off, n int64) (f *os.File, pos int64, ok bool) {
	if b.inside(off, n) != nil {
		return nil, 0, false
	}
	return b.f, off, true
}

// Extents implements backends.Extenter by SEEK_DATA and SEEK_HOLE (lseek(2)). A
// file system that does not know them has data everywhere.
func (b *blob) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	if err := b.inside(off, n); err != nil {
		return err
	}
	// The file's own position moves here; nothing else uses it.
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		data, err := b.f.Seek(off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // no data from here on
			data = end
		case errors.Is(err, unix.EINVAL):
			yield(off, end-off, false)
			return nil
		case err != nil:
			return fmt.Errorf("look for holes in %s: %w", b.f.Name(), err)
		}
		if data = min(data, end); data > off {
			if !yield(off, data-off, true) {
				return nil
			}
			off = data
			continue
		}
		hole, err := b.f.Seek(off, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("look for holes in %s: %w", b.f.Name(), err)
		}
		hole = min(hole, end)
		if hole <= off {
			return fmt.Errorf("look for holes in %s: %w", b.f.Name(), backends.ErrChanged)
		}
		if !yield(off, hole-off, false) {
			return nil
		}
		off = hole
	}
	return nil
}

func (b *blob) inside(off, n int64) error {
	if off < 0 || n < 0 || off > b.size-n {
		return fmt.Errorf("%w: %d bytes at %d of an object of %d", backends.ErrRange, n, off, b.size)
	}
	return nil
}
