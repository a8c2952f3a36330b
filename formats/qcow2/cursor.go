package qcow2

import (
	"context"
	"fmt"

	"glanced/backends/stored"
)

// cursorAhead is how many bytes a cursor reads at once, at least.
const cursorAhead = 64 << 10

// cursor reads a table of entries of many lengths forward, in pieces that are
// larger than what is asked for.
type cursor struct {
	src  stored.Bytes
	what string // the table's name, for errors
	at   int64  // host offset of the next byte
	end  int64  // host offset just past the table, at most the source's size
	buf  []byte // from at on
}

// skip passes over n bytes, of which there may be fewer: QEMU does not write the
// padding after the last snapshot where the file ends there.
func (c *cursor) skip(n int64) {
	c.buf = c.buf[min(n, int64(len(c.buf))):]
	c.at += n
}

// next is the next n bytes, valid until the next call. It fails with ErrCorrupt
// where the table ends before that.
func (c *cursor) next(ctx context.Context, n int) ([]byte, error) {
	if n > len(c.buf) {
		left := c.end - c.at
		if int64(n) > left {
			return nil, corruptf("an entry of the %s passes its end at %d (of an image of %d bytes)", c.what, c.end, c.src.Size())
		}
		c.buf = make([]byte, min(left, int64(max(n, cursorAhead))))
		if err := c.src.ReadAt(ctx, c.buf, c.at); err != nil {
			return nil, fmt.Errorf("read the %s: %w", c.what, err)
		}
	}
	b := c.buf[:n]
	c.buf = c.buf[n:]
	c.at += int64(n)
	return b, nil
}
