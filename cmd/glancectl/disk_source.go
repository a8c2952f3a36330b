package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// fileSource is a local file or block device as a formats.Source. Close may be
// called more than once: a disk closes its sources, and so do we.
type fileSource struct {
	f     *os.File
	size  int64
	close func() error
}

// openSource opens the file at path, which is a name that the user gave.
func openSource(path string) (*fileSource, error) {
	if err := regularOrDevice(path); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("find the size of %s: %w", path, err)
	}
	return &fileSource{f: f, size: size, close: sync.OnceValue(f.Close)}, nil
}

// ReadAt implements formats.Source.
func (s *fileSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n, err := s.f.ReadAt(p, off); n < len(p) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %d bytes at %d of %s: %w", len(p), off, s.f.Name(), err)
	}
	return nil
}

// Size implements formats.Source.
func (s *fileSource) Size() int64 { return s.size }

// Close implements formats.Source.
func (s *fileSource) Close() error { return s.close() }

// FileRange implements formats.FileRanger.
func (s *fileSource) FileRange(off, n int64) (*os.File, int64, bool) {
	return s.f, off, off >= 0 && n >= 0 && off <= s.size-n
}

// Extents implements formats.Extenter by asking the file system (lseek(2),
// SEEK_DATA and SEEK_HOLE). Where it keeps no holes, all is data. The file offset
// it moves is used by nobody else.
func (s *fileSource) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	fd := int(s.f.Fd())
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // only a hole until the end of the file
			data = end
		case err != nil:
			yield(off, end-off, false)
			return nil
		}
		if data = min(data, end); data > off {
			if !yield(off, data-off, true) {
				return nil
			}
			off = data
			continue
		}
		hole, err := unix.Seek(fd, off, unix.SEEK_HOLE)
		if err != nil {
			hole = end
		}
		hole = min(hole, end)
		if !yield(off, hole-off, false) {
			return nil
		}
		off = hole
	}
	return nil
}
