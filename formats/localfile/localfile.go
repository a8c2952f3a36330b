// Package localfile is a local file, or block device, as a formats.Source with
// all abilities of one: sendfile can take its bytes, and it knows its holes.
package localfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"glanced/formats"
)

var (
	_ formats.FileRanger = (*Source)(nil)
	_ formats.Extenter   = (*Source)(nil)
)

// Source is an open file. It opens no names: who makes one has opened the file.
// Safe for concurrent use.
type Source struct {
	f     *os.File
	size  int64
	close func() error
}

// New makes a Source of f, which it owns from here on, also when it fails. The
// size is the one now; the file must not change. f's own position is moved.
func New(f *os.File) (*Source, error) {
	size, err := f.Seek(0, io.SeekEnd) // of a block device too, where stat says 0
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("find the size of %s: %w", f.Name(), err)
	}
	return &Source{f: f, size: size, close: sync.OnceValue(f.Close)}, nil
}

// ReadAt implements formats.Source. A range outside the file is formats.ErrRange;
// a file that was cut off since it was opened is io.ErrUnexpectedEOF.
func (s *Source) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := s.inside(off, int64(len(p))); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	// os.File.ReadAt reads on until p is full, or fails.
	if n, err := s.f.ReadAt(p, off); n < len(p) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, s.f.Name(), err)
	}
	return nil
}

// Size implements formats.Source.
func (s *Source) Size() int64 { return s.size }

// Close implements formats.Source. More than once is the same as once, for who
// keeps a Source that a disk owns too.
func (s *Source) Close() error { return s.close() }

// FileRange implements formats.FileRanger: the file is the source.
func (s *Source) FileRange(off, n int64) (*os.File, int64, bool) {
	if s.inside(off, n) != nil {
		return nil, 0, false
	}
	return s.f, off, true
}

// Extents implements formats.Extenter by asking the file system (lseek(2),
// SEEK_DATA and SEEK_HOLE). Where it keeps no holes, all is data.
func (s *Source) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
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
			return fmt.Errorf("look for holes in %s: at %d it says both data and a hole: it changed", s.f.Name(), off)
		}
		if !yield(off, hole-off, false) {
			return nil
		}
		off = hole
	}
	return nil
}

func (s *Source) inside(off, n int64) error {
	if off < 0 || n < 0 || off > s.size-n {
		return fmt.Errorf("%w: %d bytes at %d of %s of %d", formats.ErrRange, n, off, s.f.Name(), s.size)
	}
	return nil
}
