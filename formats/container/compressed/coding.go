package compressed

import (
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"glanced/formats"
	"glanced/formats/container"
)

// maxMemory caps what a stream may ask for to be decompressed, bytes: zstd's
// window, as `zstd -d` does by default, and xz's dictionary and all, where
// `xz -9` asks for 65 MiB. gzip and bzip2 need little.
const maxMemory = container.FillMemory

// coding is one way of compressing a stream.
type coding struct {
	name   string
	begins func(head []byte) bool
	// reader decompresses all of in: streams after each other are one. A stream
	// that is cut off is io.ErrUnexpectedEOF.
	reader func(in io.Reader) (io.ReadCloser, error)
}

var codings = []*coding{
	{"gzip", prefix("\x1f\x8b\x08"), ungzip},
	{"zstd", beginsZstd, unzstd},
	{"xz", prefix("\xfd7zXZ\x00"), unxz},
	{"bzip2", beginsBzip2, unbzip2},
}

// recognise is the coding of content that begins with head; nil: none.
func recognise(head []byte) *coding {
	for _, c := range codings {
		if c.begins(head) {
			return c
		}
	}
	return nil
}

func prefix(magic string) func([]byte) bool {
	return func(head []byte) bool { return bytes.HasPrefix(head, []byte(magic)) }
}

// nameIn is the name of the file inside, where the coding keeps one (gzip).
func (c *coding) nameIn(head []byte) string {
	if c.name != "gzip" {
		return ""
	}
	z, err := gzip.NewReader(bytes.NewReader(head))
	if err != nil || !utf8.ValidString(z.Name) {
		return ""
	}
	return z.Name
}

func ungzip(in io.Reader) (io.ReadCloser, error) { return gzip.NewReader(in) }

// zstdMagic begins a frame, and skippable a frame without content, as pzstd puts
// in front (RFC 8878, 3.1); the low 4 bits of the latter vary.
const (
	zstdMagic = 0xfd2fb528
	skippable = 0x184d2a50
)

// beginsZstd looks over skippable frames, which other codings have too.
func beginsZstd(head []byte) bool {
	for len(head) >= 4 {
		magic := binary.LittleEndian.Uint32(head)
		if magic == zstdMagic {
			return true
		}
		if magic&^0xf != skippable || len(head) < 8 {
			return false
		}
		n := uint64(binary.LittleEndian.Uint32(head[4:])) + 8
		if n > uint64(len(head)) {
			return false
		}
		head = head[n:]
	}
	return false
}

func unzstd(in io.Reader) (io.ReadCloser, error) {
	d, err := zstd.NewReader(in, zstd.WithDecoderMaxWindow(maxMemory))
	if err != nil {
		return nil, zstdError(err)
	}
	return &zstdReader{d: d}, nil
}

type zstdReader struct{ d *zstd.Decoder }

func (z *zstdReader) Read(p []byte) (int, error) {
	n, err := z.d.Read(p)
	return n, zstdError(err)
}

func (z *zstdReader) Close() error { z.d.Close(); return nil }

func zstdError(err error) error {
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return fmt.Errorf("%w: it asks for a window of more than %d MiB: compress it without --ultra --long", formats.ErrLimit, maxMemory>>20)
	case errors.Is(err, zstd.ErrUnknownDictionary):
		return fmt.Errorf("%w: it needs a dictionary: compress it without", formats.ErrUnsupported)
	}
	return err
}

// beginsBzip2 wants to see the magic of the first block, or of the end.
func beginsBzip2(head []byte) bool {
	if len(head) < 10 || !bytes.HasPrefix(head, []byte("BZh")) || head[3] < '1' || head[3] > '9' {
		return false
	}
	return string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"
}

func unbzip2(in io.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(in)), nil }
