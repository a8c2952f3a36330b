// Package codec decodes one compressed cluster of a disk image into a buffer of
// the caller's: all of it, exactly, or an error; or, where the caller wants no
// more, its beginning. Nothing is allocated in proportion to what the coded bytes
// claim.
//
// Deflate and Zlib are done by libdeflate, DeflatePrefix by ISA-L and Zstd by
// libzstd, through cgo; built with the tag purego, or without cgo, all by
// klauspost/compress. The choice was measured on 64 KiB clusters of the Go tree's
// programs (BenchmarkDecode, MB/s of decoded bytes on one core of a busy machine,
// so read them as ratios):
//
//	         cgo    purego
//	deflate  624    114
//	zlib     711    150
//	zstd    1043    558
package codec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zlib"
)

// ErrCorrupt says that the coded bytes are not a stream of the codec, or decode
// to another size than the caller's buffer has.
var ErrCorrupt = errors.New("corrupt compressed data")

// MaxGrain is the most that a VMDKLastGrain may decode to, bytes. Grains are 64 KiB
// in practice; the specification gives no upper limit.
const MaxGrain = 2 << 20

// Decoder holds the working memory of the codecs, at most a few hundred KiB,
// allocated at first use. A Decoder serves one goroutine at a time; Close frees
// it. The zero value is ready to use.
//
// In every method, src may go on after the end of the stream (padding to a
// sector, the next cluster's bytes): what follows is not looked at. When a
// method fails, what dst holds is undefined.
type Decoder struct {
	backend // of libraries, chosen when building: Deflate, DeflatePrefix, Zlib, Zstd, close

	grains io.ReadCloser // a pooled zlib reader; nil until needed
}

// Close frees the working memory. The Decoder may be used again.
func (d *Decoder) Close() {
	d.backend.close()
	d.grains = nil
}

// grainHeader is the marker before a grain's zlib stream: the sector it is for
// (8 bytes) and the size of the stream (4 bytes), little-endian.
const grainHeader = 12

// VMDKGrain decodes a grain marker and the zlib stream after it (VMware Virtual
// Disk Format 5.0, "Stream-Optimized Compressed Sparse Extents").
func (d *Decoder) VMDKGrain(dst, src []byte) error {
	src, err := grainStream(src)
	if err != nil {
		return err
	}
	return d.Zlib(dst, src)
}

// VMDKLastGrain is VMDKGrain for a grain that the disk ends within, which may
// decode to more than the disk has left: len(dst) bytes are kept, and the rest, up
// to MaxGrain, only checked.
func (d *Decoder) VMDKLastGrain(dst, src []byte) error {
	src, err := grainStream(src)
	if err != nil {
		return err
	}
	if err := d.Zlib(dst, src); !errors.Is(err, errLong) {
		return err
	}
	return d.clippedGrain(dst, src)
}

// grainStream is the zlib stream of the grain that src begins with.
func grainStream(src []byte) ([]byte, error) {
	if len(src) < grainHeader {
		return nil, fmt.Errorf("%w: a grain of %d bytes has no room for its marker", ErrCorrupt, len(src))
	}
	size := int64(binary.LittleEndian.Uint32(src[8:]))
	src = src[grainHeader:]
	if size > int64(len(src)) {
		return nil, fmt.Errorf("%w: the grain marker says %d coded bytes, there are %d", ErrCorrupt, size, len(src))
	}
	return src[:size], nil
}

// clippedGrain decodes a zlib stream that is longer than dst. It is the last
// grain of a disk at most, so speed does not matter.
func (d *Decoder) clippedGrain(dst, src []byte) error {
	if d.grains == nil {
		r, err := zlib.NewReader(bytes.NewReader(src))
		if err != nil {
			return fmt.Errorf("%w: %v", ErrCorrupt, err)
		}
		d.grains = r
	} else if err := d.grains.(zlib.Resetter).Reset(bytes.NewReader(src), nil); err != nil {
		d.grains = nil
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	if _, err := io.ReadFull(d.grains, dst); err != nil {
		return fmt.Errorf("%w: zlib: %v", ErrCorrupt, err)
	}
	left := max(MaxGrain-int64(len(dst)), 0)
	n, err := io.Copy(io.Discard, io.LimitReader(d.grains, left+1))
	if err != nil {
		return fmt.Errorf("%w: zlib: %v", ErrCorrupt, err)
	}
	if n > left {
		return fmt.Errorf("%w: a grain of more than %d bytes", ErrCorrupt, MaxGrain)
	}
	return nil
}

// The two ways in which a stream that is otherwise sound has the wrong size.
var (
	errLong  = fmt.Errorf("%w: the stream decodes to more than its cluster holds", ErrCorrupt)
	errShort = fmt.Errorf("%w: the stream decodes to less than its cluster holds", ErrCorrupt)
)
