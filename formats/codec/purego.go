//go:build !cgo || purego

package codec

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Libraries names what this build decodes with.
const Libraries = "klauspost/compress"

// maxWindow caps the window a zstd frame may ask for. qemu's frames ask for at
// most a cluster, 2 MiB; 8 MiB is what RFC 8878 (3.1.1.1.2) wants supported.
const maxWindow = 8 << 20

// backend holds readers that are reset for each cluster.
type backend struct {
	src    bytes.Reader
	flate  io.ReadCloser
	zlib   io.ReadCloser
	unzstd *zstd.Decoder
}

// Deflate decodes a raw deflate stream (RFC 1951).
func (b *backend) Deflate(dst, src []byte) error {
	if err := b.inflate(src); err != nil {
		return err
	}
	return exactly(dst, b.flate)
}

// DeflatePrefix decodes the first len(dst) bytes of a raw deflate stream and stops
// there: how the stream goes on is not checked. Its failure is no verdict, as
// with the other libraries: whoever gets one asks Deflate.
func (b *backend) DeflatePrefix(dst, src []byte) error {
	if err := b.inflate(src); err != nil {
		return err
	}
	return fill(dst, b.flate)
}

// inflate has b.flate read the stream that src begins with.
func (b *backend) inflate(src []byte) error {
	b.src.Reset(src)
	if b.flate == nil {
		b.flate = flate.NewReader(&b.src)
	} else if err := b.flate.(flate.Resetter).Reset(&b.src, nil); err != nil {
		return fmt.Errorf("%w: deflate: %v", ErrCorrupt, err)
	}
	return nil
}

// Zlib decodes a zlib stream (RFC 1950) and checks its checksum.
func (b *backend) Zlib(dst, src []byte) error {
	b.src.Reset(src)
	if b.zlib == nil {
		r, err := zlib.NewReader(&b.src)
		if err != nil {
			return fmt.Errorf("%w: zlib: %v", ErrCorrupt, err)
		}
		b.zlib = r
	} else if err := b.zlib.(zlib.Resetter).Reset(&b.src, nil); err != nil {
		b.zlib = nil
		return fmt.Errorf("%w: zlib: %v", ErrCorrupt, err)
	}
	return exactly(dst, b.zlib)
}

// fill fills dst from r.
func fill(dst []byte, r io.Reader) error {
	if _, err := io.ReadFull(r, dst); err != nil {
		// Where the coded bytes end is not where the stream does.
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return errShort
		}
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return nil
}

// exactly fills dst from r, which must end there.
func exactly(dst []byte, r io.Reader) error {
	if err := fill(dst, r); err != nil {
		return err
	}
	var more [1]byte
	switch n, err := r.Read(more[:]); {
	case n > 0:
		return errLong
	case err != nil && err != io.EOF:
		return fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	return nil
}

// Zstd decodes zstd frames (RFC 8878) until dst is full.
func (b *backend) Zstd(dst, src []byte) error {
	for len(dst) > 0 {
		if len(src) == 0 {
			return errShort
		}
		frame, err := frameLen(src)
		if err != nil {
			return err
		}
		n, err := b.zstdFrame(dst, src[:frame])
		if err != nil {
			return err
		}
		dst, src = dst[n:], src[frame:]
	}
	return nil
}

// zstdFrame decodes one frame, which must fit dst.
func (b *backend) zstdFrame(dst, frame []byte) (int, error) {
	b.src.Reset(frame)
	var err error
	if b.unzstd == nil {
		b.unzstd, err = zstd.NewReader(&b.src,
			zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(1<<30))
	} else {
		err = b.unzstd.Reset(&b.src)
	}
	if err != nil {
		return 0, fmt.Errorf("%w: zstd: %v", ErrCorrupt, err)
	}
	n, err := io.ReadFull(b.unzstd, dst)
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF && n > 0:
		return n, nil
	case err != nil:
		return 0, fmt.Errorf("%w: zstd: %v", ErrCorrupt, err)
	}
	var more [1]byte
	switch m, err := b.unzstd.Read(more[:]); {
	case m > 0:
		return 0, errLong
	case err != io.EOF:
		return 0, fmt.Errorf("%w: zstd: %v", ErrCorrupt, err)
	}
	return n, nil
}

// frameLen is how many bytes the frame at the start of src takes (RFC 8878,
// 3.1.1): bytes after it may be padding or the next cluster.
func frameLen(src []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(src); err != nil {
		return 0, fmt.Errorf("%w: zstd: %v", ErrCorrupt, err)
	}
	n := int64(h.HeaderSize)
	if h.Skippable {
		n += int64(h.SkippableSize)
	} else {
		for last := false; !last; {
			if n+3 > int64(len(src)) {
				return 0, errShort
			}
			// A block's header: last block (1 bit), type (2), size (21).
			block := uint32(src[n]) | uint32(src[n+1])<<8 | uint32(src[n+2])<<16
			n += 3
			last = block&1 != 0
			switch block >> 1 & 3 {
			case 1: // RLE: one byte, size times
				n++
			case 3: // reserved
				return 0, fmt.Errorf("%w: zstd: reserved block type", ErrCorrupt)
			default:
				n += int64(block >> 3)
			}
		}
		if h.HasCheckSum {
			n += 4
		}
	}
	if n > int64(len(src)) {
		return 0, errShort
	}
	return int(n), nil
}

func (b *backend) close() {
	if b.unzstd != nil {
		b.unzstd.Close()
	}
	*b = backend{}
}
