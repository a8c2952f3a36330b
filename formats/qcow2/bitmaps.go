package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"glanced/backends/stored"
	"glanced/formats"
)

const (
	maxBitmaps         = 65535             // QEMU's own limit
	maxBitmapDirectory = 1024 * maxBitmaps // bytes; QEMU's own limit
	maxBitmapName      = 1023              // bytes, as in the specification
	bitmapFixed        = 24                // bytes in front of an entry's extra data

	// listedBitmaps bounds how much of a directory is read for its names, bytes:
	// more than QEMU's own tools make of any image.
	listedBitmaps = 1 << 20
)

// autoclearBitmaps is the bit of autoclear_features without which the bitmaps
// extension says nothing: who wrote the disk last did not keep the bitmaps.
const autoclearBitmaps = 0

// bitmapDirectory is where the image names its dirty bitmaps ("Bitmaps
// extension"); count 0 = there are none.
type bitmapDirectory struct {
	count     int64
	off, size int64 // host range, bytes
}

// bitmapExtension takes the content of the bitmaps extension. What QEMU refuses is
// refused.
func (h *header) bitmapExtension(b []byte) error {
	if h.autoclear>>autoclearBitmaps&1 == 0 {
		return nil
	}
	if len(b) != 24 {
		return corruptf("a bitmaps extension of %d bytes, not 24", len(b))
	}
	count, reserved := int64(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint32(b[4:])
	size, off := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	switch {
	case count == 0 || reserved != 0:
		return corruptf("a bitmaps extension with %d bitmaps and reserved bytes %#x", count, reserved)
	case count > maxBitmaps:
		return fmt.Errorf("%w: %d bitmaps, at most %d", formats.ErrLimit, count, maxBitmaps)
	case size > maxBitmapDirectory:
		return fmt.Errorf("%w: a bitmap directory of %d bytes, at most %d", formats.ErrLimit, size, maxBitmapDirectory)
	case off > math.MaxInt64 || int64(off) < h.clusterSize() || int64(off)%h.clusterSize() != 0:
		return corruptf("a bitmap directory at %d: not a cluster of its own", off)
	}
	h.bitmaps = bitmapDirectory{count: count, off: int64(off), size: int64(size)}
	return nil
}

// readBitmaps reads the names in the bitmap directory ("Bitmap directory"), as far
// as they lie in its first MiB.
func (h *header) readBitmaps(ctx context.Context, src stored.Bytes) error {
	d := h.bitmaps
	if d.count == 0 {
		return nil
	}
	if d.off > src.Size() || d.size > src.Size()-d.off {
		return corruptf("a bitmap directory of %d bytes at %d passes the end of the image (%d bytes)", d.size, d.off, src.Size())
	}
	c := cursor{src: src, what: "bitmap directory", at: d.off, end: d.off + d.size}
	for range d.count {
		if c.at-d.off > listedBitmaps {
			return nil
		}
		b, err := c.next(ctx, bitmapFixed)
		if err != nil {
			return err
		}
		nameLen, extraLen := int64(binary.BigEndian.Uint16(b[18:])), int64(binary.BigEndian.Uint32(b[20:]))
		if nameLen == 0 || nameLen > maxBitmapName {
			return corruptf("a bitmap name of %d bytes, not 1 to %d", nameLen, maxBitmapName)
		}
		if extraLen > c.end-c.at {
			return corruptf("a bitmap with %d bytes of extra data, which do not fit in the directory", extraLen)
		}
		c.skip(extraLen)
		if b, err = c.next(ctx, int(nameLen)); err != nil {
			return err
		}
		h.bitmapNames = append(h.bitmapNames, text(b))
		c.skip(-(bitmapFixed + extraLen + nameLen) & 7)
	}
	if c.at != c.end {
		return corruptf("a bitmap directory of %d bytes, of which its %d entries take %d", d.size, d.count, c.at-d.off)
	}
	return nil
}
