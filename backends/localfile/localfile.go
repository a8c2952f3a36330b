// Package localfile is files of this machine as bytes at rest: reading one, with
// every ability of package stored, and writing one with holes for its zeros. It
// opens no names: who makes a File has opened it.
package localfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"glanced/backends/stored"
)

var (
	_ stored.FileRanger = (*File)(nil)
	_ stored.WholeFiler = (*File)(nil)
	_ stored.Extenter   = (*File)(nil)
)

// File is an open file, or block device, as stored bytes. Safe for concurrent use.
type File struct {
	f     *os.File
	size  int64
	id    stored.Identity
	close func() error
}

// New makes a File of f, which it owns from here on, also when it fails. The size
// is the one now; the file must not change. f's own position is moved. id may be
// "", for a file of which nobody knows what it will be tomorrow.
func New(f *os.File, id stored.Identity) (*File, error) {
	size, err := f.Seek(0, io.SeekEnd) // of a block device too, where stat says 0
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("find the size of %s: %w", f.Name(), err)
	}
	return &File{f: f, size: size, id: id, close: sync.OnceValue(f.Close)}, nil
}

// ReadAt implements stored.Bytes. A file that was cut off since it was opened is
// stored.ErrChanged.
func (s *File) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := s.inside(off, int64(len(p))); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	// os.File.ReadAt reads on until p is full, or fails.
	if n, err := s.f.ReadAt(p, off); n < len(p) {
		if err == io.EOF {
			err = fmt.Errorf("%w: it was cut off", stored.ErrChanged)
		}
		return fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, s.f.Name(), err)
	}
	return nil
}

// Size is in bytes, as it was when the File was made.
func (s *File) Size() int64 { return s.size }

// Identity is what New was given.
func (s *File) Identity() stored.Identity { return s.id }

// Close closes the file. More than once is the same as once, for who keeps a File
// that a disk owns too.
func (s *File) Close() error { return s.close() }

// FileRange implements stored.FileRanger. Nothing has to be held: the file is
// open until Close.
func (s *File) FileRange(off, n int64) (stored.FileRange, bool) {
	if off < 0 || n <= 0 || off > s.size-n {
		return stored.FileRange{}, false
	}
	return stored.FileRange{File: s.f, Pos: off, Len: n}, true
}

// WholeFile implements stored.WholeFiler. It looks at the size once more: who is
// handed the whole file no longer reads through here, where the end of one that
// was cut off is noticed.
func (s *File) WholeFile() (stored.FileRange, bool) {
	if now, err := s.f.Stat(); err != nil || !now.Mode().IsRegular() || now.Size() != s.size {
		return stored.FileRange{}, false
	}
	return stored.FileRange{File: s.f, Len: s.size}, true
}

// Extents implements stored.Extenter by asking the file system (lseek(2),
// SEEK_DATA and SEEK_HOLE). Where it keeps no holes, all is data.
func (s *File) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	if err := s.inside(off, n); err != nil {
		return err
	}
	// The file's own position moves here; nothing else uses it.
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		data, err := s.f.Seek(off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // only a hole until the end of the file
			data = end
		case errors.Is(err, unix.EINVAL): // it knows no holes
			yield(off, end-off, false)
			return nil
		case err != nil:
			return fmt.Errorf("look for holes in %s: %w", s.f.Name(), err)
		}
		if data = min(data, end); data > off {
			if !yield(off, data-off, true) {
				return nil
			}
			off = data
			continue
		}
		hole, err := s.f.Seek(off, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("look for holes in %s: %w", s.f.Name(), err)
		}
		hole = min(hole, end)
		if hole <= off {
			return fmt.Errorf("look for holes in %s: at %d it says both data and a hole: %w", s.f.Name(), off, stored.ErrChanged)
		}
		if !yield(off, hole-off, false) {
			return nil
		}
		off = hole
	}
	return nil
}

func (s *File) inside(off, n int64) error {
	if err := stored.Inside(s, off, n); err != nil {
		return fmt.Errorf("%s: %w", s.f.Name(), err)
	}
	return nil
}
