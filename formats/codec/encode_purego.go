//go:build !cgo || purego

package codec

import (
	"bytes"

	"github.com/klauspost/compress/zlib"
)

// level is the same bargain as with libdeflate, as far as it can be had.
const level = 5

// compressor is klauspost/compress's.
type compressor struct {
	w *zlib.Writer
}

func (c *compressor) zlib(dst, src []byte) ([]byte, error) {
	to := bytes.NewBuffer(dst)
	if c.w == nil {
		w, err := zlib.NewWriterLevel(to, level)
		if err != nil {
			return nil, err
		}
		c.w = w
	} else {
		c.w.Reset(to)
	}
	if _, err := c.w.Write(src); err != nil {
		return nil, err
	}
	if err := c.w.Close(); err != nil {
		return nil, err
	}
	return to.Bytes(), nil
}

func (c *compressor) close() { c.w = nil }
