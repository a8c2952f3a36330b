//go:build cgo && !purego

package codec

/*
#cgo pkg-config: libdeflate libisal libzstd
#cgo noescape glanced_inflate
#cgo nocallback glanced_inflate
#cgo noescape glanced_inflate_prefix
#cgo nocallback glanced_inflate_prefix
#cgo noescape glanced_unzstd
#cgo nocallback glanced_unzstd
#include <stdlib.h>
#include <isa-l/igzip_lib.h>
#include <libdeflate.h>
#include <zstd.h>

// A null actual_out_nbytes asks for exactly dst_len bytes.
static int glanced_inflate(struct libdeflate_decompressor *d, int zlib,
		const void *src, size_t src_len, void *dst, size_t dst_len)
{
	size_t used;
	return zlib
		? libdeflate_zlib_decompress_ex(d, src, src_len, dst, dst_len, &used, 0)
		: libdeflate_deflate_decompress_ex(d, src, src_len, dst, dst_len, &used, 0);
}

enum { PREFIX_OK, PREFIX_BAD, PREFIX_SHORT };

// ISA-L says how many bytes it has written when it runs out of room for more,
// which is how this is meant to end.
static int glanced_inflate_prefix(struct inflate_state *s,
		const void *src, size_t src_len, void *dst, size_t dst_len)
{
	if (src_len > UINT32_MAX || dst_len > UINT32_MAX)
		return PREFIX_BAD;
	isal_inflate_init(s);
	s->next_in = (uint8_t *)src, s->avail_in = src_len;
	s->next_out = dst, s->avail_out = dst_len;
	if (isal_inflate_stateless(s) < 0)
		return PREFIX_BAD;
	return s->total_out == dst_len ? PREFIX_OK : PREFIX_SHORT;
}

enum { UNZSTD_OK, UNZSTD_BAD, UNZSTD_SHORT };

// Frames are decoded into dst until it is full: writing into it directly needs
// no window memory, whatever window size a frame asks for.
static int glanced_unzstd(ZSTD_DCtx *d,
		const char *src, size_t src_len, char *dst, size_t dst_len)
{
	while (dst_len > 0) {
		size_t frame, n;

		if (src_len == 0)
			return UNZSTD_SHORT;
		frame = ZSTD_findFrameCompressedSize(src, src_len);
		if (ZSTD_isError(frame))
			return UNZSTD_BAD;
		n = ZSTD_decompressDCtx(d, dst, dst_len, src, frame);
		if (ZSTD_isError(n))
			return UNZSTD_BAD;
		src += frame, src_len -= frame;
		dst += n, dst_len -= n;
	}
	return UNZSTD_OK;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"unsafe"
)

// Libraries names what this build decodes with.
const Libraries = "libdeflate, ISA-L, libzstd"

// backend holds the contexts of the C libraries.
type backend struct {
	inflater *C.struct_libdeflate_decompressor
	prefixer *C.struct_inflate_state
	unzstd   *C.ZSTD_DCtx
}

// Deflate decodes a raw deflate stream (RFC 1951).
func (b *backend) Deflate(dst, src []byte) error { return b.inflate(dst, src, 0) }

// Zlib decodes a zlib stream (RFC 1950) and checks its checksum.
func (b *backend) Zlib(dst, src []byte) error { return b.inflate(dst, src, 1) }

func (b *backend) inflate(dst, src []byte, zlib C.int) error {
	if b.inflater == nil {
		if b.inflater = C.libdeflate_alloc_decompressor(); b.inflater == nil {
			return errors.New("libdeflate: out of memory")
		}
	}
	switch r := C.glanced_inflate(b.inflater, zlib,
		unsafe.Pointer(unsafe.SliceData(src)), C.size_t(len(src)),
		unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst))); r {
	case C.LIBDEFLATE_SUCCESS:
		return nil
	case C.LIBDEFLATE_SHORT_OUTPUT:
		return errShort
	case C.LIBDEFLATE_INSUFFICIENT_SPACE:
		return errLong
	default:
		return fmt.Errorf("%w: not a deflate stream", ErrCorrupt)
	}
}

// DeflatePrefix decodes the first len(dst) bytes of a raw deflate stream and stops
// there: how the stream goes on is not checked. It is fast, and its failure is no
// verdict: it fails with ErrCorrupt for a few streams that Deflate decodes (ISA-L
// wants complete Huffman codes, and where it runs out of room within literals it
// takes the match after them to begin too early), but gives no wrong bytes.
func (b *backend) DeflatePrefix(dst, src []byte) error {
	if b.prefixer == nil { // C memory comes from malloc, which cgo never has fail
		b.prefixer = (*C.struct_inflate_state)(C.malloc(C.sizeof_struct_inflate_state))
	}
	switch C.glanced_inflate_prefix(b.prefixer,
		unsafe.Pointer(unsafe.SliceData(src)), C.size_t(len(src)),
		unsafe.Pointer(unsafe.SliceData(dst)), C.size_t(len(dst))) {
	case C.PREFIX_OK:
		return nil
	case C.PREFIX_SHORT:
		return errShort
	default:
		return fmt.Errorf("%w: not a deflate stream", ErrCorrupt)
	}
}

// Zstd decodes zstd frames (RFC 8878) until dst is full.
func (b *backend) Zstd(dst, src []byte) error {
	if b.unzstd == nil {
		if b.unzstd = C.ZSTD_createDCtx(); b.unzstd == nil {
			return errors.New("libzstd: out of memory")
		}
	}
	switch C.glanced_unzstd(b.unzstd,
		(*C.char)(unsafe.Pointer(unsafe.SliceData(src))), C.size_t(len(src)),
		(*C.char)(unsafe.Pointer(unsafe.SliceData(dst))), C.size_t(len(dst))) {
	case C.UNZSTD_OK:
		return nil
	case C.UNZSTD_SHORT:
		return errShort
	default:
		return fmt.Errorf("%w: not zstd frames of %d bytes together", ErrCorrupt, len(dst))
	}
}

func (b *backend) close() {
	C.libdeflate_free_decompressor(b.inflater)
	C.free(unsafe.Pointer(b.prefixer))
	C.ZSTD_freeDCtx(b.unzstd)
	*b = backend{}
}
