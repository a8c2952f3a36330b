package ova

import (
	"context"
	"fmt"
	"io"
	"os"

	"glanced/formats"
)

// window is how much of an archive is fetched at once while its headers are
// read: what a request costs, not the bytes, is what counts with a remote store.
const window = 16 << 10

// reader reads a Source from the beginning, and seeks.
type reader struct {
	ctx context.Context // of the one call that makes and drops the reader
	src formats.Source
	pos int64
	buf []byte // src's bytes at bufPos
	at  int64
}

func (r *reader) Read(p []byte) (int, error) {
	left := r.src.Size() - r.pos
	if left <= 0 {
		return 0, io.EOF
	}
	if r.pos < r.at || r.pos >= r.at+int64(len(r.buf)) {
		if r.buf == nil {
			r.buf = make([]byte, window)
		}
		r.buf, r.at = r.buf[:min(window, left)], r.pos
		if err := r.src.ReadAt(r.ctx, r.buf, r.pos); err != nil {
			r.buf = r.buf[:0]
			return 0, fmt.Errorf("read the archive: %w", err)
		}
	}
	n := copy(p, r.buf[r.pos-r.at:])
	r.pos += int64(n)
	return n, nil
}

// Seek implements io.Seeker, for skipping forward: archive/tar asks for nothing
// else. It fails past the end, so that a member's size cannot lie.
func (r *reader) Seek(off int64, whence int) (int64, error) {
	if whence != io.SeekCurrent || off < 0 {
		return 0, fmt.Errorf("seek by %d from %d: only forward", off, whence)
	}
	if off > r.src.Size()-r.pos {
		return 0, io.ErrUnexpectedEOF
	}
	r.pos += off
	return r.pos, nil
}

// section is the bytes [off, off+n) of a Source, which its close may own.
type section struct {
	src    formats.Source
	off, n int64
	close  func() error
}

// newSection has those abilities of a Source that src has, and no others.
func newSection(src formats.Source, off, n int64, close func() error) formats.Source {
	s := &section{src, off, n, close}
	r, ranges := src.(formats.FileRanger)
	x, extents := src.(formats.Extenter)
	p, prefetches := src.(formats.Prefetcher)
	fr, ex, pf := sectionRanger{s, r}, sectionExtenter{s, x}, sectionPrefetcher{s, p}
	type S = *section
	switch {
	case ranges && extents && prefetches:
		return struct {
			S
			sectionRanger
			sectionExtenter
			sectionPrefetcher
		}{s, fr, ex, pf}
	case ranges && extents:
		return struct {
			S
			sectionRanger
			sectionExtenter
		}{s, fr, ex}
	case ranges && prefetches:
		return struct {
			S
			sectionRanger
			sectionPrefetcher
		}{s, fr, pf}
	case extents && prefetches:
		return struct {
			S
			sectionExtenter
			sectionPrefetcher
		}{s, ex, pf}
	case ranges:
		return struct {
			S
			sectionRanger
		}{s, fr}
	case extents:
		return struct {
			S
			sectionExtenter
		}{s, ex}
	case prefetches:
		return struct {
			S
			sectionPrefetcher
		}{s, pf}
	}
	return s
}

// ReadAt implements formats.Source; ErrRange outside the section.
func (s *section) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := s.inside(off, int64(len(p))); err != nil {
		return err
	}
	return s.src.ReadAt(ctx, p, s.off+off)
}

// Size implements formats.Source.
func (s *section) Size() int64 { return s.n }

// Close implements formats.Source.
func (s *section) Close() error { return s.close() }

func (s *section) inside(off, n int64) error {
	if off < 0 || n < 0 || off > s.n-n {
		return fmt.Errorf("%w: %d bytes at %d of a file of %d in the archive", formats.ErrRange, n, off, s.n)
	}
	return nil
}

type sectionRanger struct {
	in *section
	of formats.FileRanger
}

// FileRange implements formats.FileRanger.
func (s sectionRanger) FileRange(off, n int64) (*os.File, int64, bool) {
	if s.in.inside(off, n) != nil {
		return nil, 0, false
	}
	return s.of.FileRange(s.in.off+off, n)
}

type sectionExtenter struct {
	in *section
	of formats.Extenter
}

// Extents implements formats.Extenter.
func (s sectionExtenter) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	if err := s.in.inside(off, n); err != nil {
		return err
	}
	return s.of.Extents(ctx, s.in.off+off, n, func(at, n int64, hole bool) bool {
		return yield(at-s.in.off, n, hole)
	})
}

type sectionPrefetcher struct {
	in *section
	of formats.Prefetcher
}

// Prefetch implements formats.Prefetcher.
func (s sectionPrefetcher) Prefetch(off, n int64) {
	if s.in.inside(off, n) == nil {
		s.of.Prefetch(s.in.off+off, n)
	}
}
