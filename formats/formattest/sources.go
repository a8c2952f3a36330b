package formattest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"testing"

	"glanced/formats"
)

// ErrInjected is what a Mem fails with when it was told to fail.
var ErrInjected = errors.New("injected read error")

// Mem is a Source in memory that counts what is done to it. Safe for concurrent
// use.
type Mem struct {
	b      []byte
	read   atomic.Int64
	reads  atomic.Int64
	closed atomic.Int64
	failAt atomic.Int64 // reads from this one on fail; 0 = never
}

// Memory makes a Source of b, which must not change from here on.
func Memory(b []byte) *Mem { return &Mem{b: b} }

// ReadAt fills p from off; outside of the bytes it fails with ErrRange.
func (m *Mem) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := m.reads.Add(1)
	if at := m.failAt.Load(); at > 0 && n >= at {
		return ErrInjected
	}
	if m.closed.Load() > 0 {
		return formats.ErrClosed
	}
	if off < 0 || off > int64(len(m.b)-len(p)) {
		return fmt.Errorf("%w: %d bytes at %d of %d", formats.ErrRange, len(p), off, len(m.b))
	}
	m.read.Add(int64(len(p)))
	copy(p, m.b[off:])
	return nil
}

// Size is the number of bytes held.
func (m *Mem) Size() int64 { return int64(len(m.b)) }

// Close makes later reads fail.
func (m *Mem) Close() error { m.closed.Add(1); return nil }

// BytesRead is how many bytes were read since it was made.
func (m *Mem) BytesRead() int64 { return m.read.Load() }

// Reads is how many reads were asked for since it was made.
func (m *Mem) Reads() int64 { return m.reads.Load() }

// FailFrom makes the n-th read from the beginning (1 = the first) and all later
// ones fail with ErrInjected.
func (m *Mem) FailFrom(n int64) { m.failAt.Store(n) }

// File is a Source over a local file, with the abilities of one: FileRange and
// Extents. Safe for concurrent use.
type File struct {
	f    *os.File
	size int64
}

// OpenFile opens path for the length of the test.
func OpenFile(t testing.TB, path string) *File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return &File{f, st.Size()}
}

// ReadAt fills p from off or fails.
func (s *File) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n, err := s.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = formats.ErrRange
	}
	return fmt.Errorf("%d bytes at %d of %d: %w", len(p), off, s.size, err)
}

// Size is the file's size in bytes when it was opened.
func (s *File) Size() int64 { return s.size }

// Close closes the file.
func (s *File) Close() error { return s.f.Close() }

// FileRange is the file itself.
func (s *File) FileRange(off, n int64) (*os.File, int64, bool) {
	return s.f, off, off >= 0 && n >= 0 && off <= s.size-n
}

// seekData and seekHole are lseek(2)'s whence values on Linux.
const (
	seekData = 3
	seekHole = 4
)

// Extents tells the runs that the file system holds and its holes.
func (s *File) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := s.f.Seek(off, seekData)
		if errors.Is(err, syscall.ENXIO) {
			data, err = end, nil // a hole up to the end of the file
		}
		if err != nil {
			return err
		}
		if data = min(data, end); data > off {
			if !yield(off, data-off, true) {
				return nil
			}
			off = data
			continue
		}
		hole, err := s.f.Seek(off, seekHole)
		if err != nil {
			return err
		}
		hole = min(hole, end)
		if !yield(off, hole-off, false) {
			return nil
		}
		off = hole
	}
	return nil
}
