package ova

import (
	"context"
	"fmt"
	"io"

	"glanced/backends/stored"
)

// window is how much of an archive is fetched at once while its headers are
// read: what a request costs, not the bytes, is what counts with a remote store.
const window = 16 << 10

// reader reads stored bytes from the beginning, and seeks.
type reader struct {
	ctx context.Context // of the one call that makes and drops the reader
	src stored.Bytes
	pos int64
	buf []byte // src's bytes from at on
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
