//go:build cgo && !purego

package compressed

/*
#cgo pkg-config: liblzma
#cgo noescape glanced_unxz
#cgo nocallback glanced_unxz
#include <lzma.h>
#include <stdlib.h>

// LZMA_CONCATENATED takes streams after each other, and padding between them, as
// one, and reports what follows them. The decoder is the single-threaded one:
// the other has been overrun by hostile input (CVE-2025-31115, xz 5.3.3 to 5.8.0).
static lzma_ret glanced_unxz_begin(lzma_stream *s, uint64_t memory)
{
	lzma_stream fresh = LZMA_STREAM_INIT;
	*s = fresh;
	return lzma_stream_decoder(s, memory, LZMA_CONCATENATED);
}

// The buffers' addresses are not kept between calls, as cgo demands.
static lzma_ret glanced_unxz(lzma_stream *s, const uint8_t *in, size_t *in_len,
		uint8_t *out, size_t *out_len, int last)
{
	lzma_ret ret;

	s->next_in = in, s->avail_in = *in_len;
	s->next_out = out, s->avail_out = *out_len;
	ret = lzma_code(s, last ? LZMA_FINISH : LZMA_RUN);
	*in_len = s->avail_in, *out_len = s->avail_out;
	s->next_in = NULL, s->next_out = NULL;
	return ret;
}
*/
import "C"

import (
	"errors"
	"fmt"
	"io"
	"unsafe"

	"glanced/formats"
)

// xzReader decompresses xz with liblzma, which measured twice as fast as the
// pure Go decoder ulikunitz/xz, and is the safer one: it keeps a hash of the
// index and not the index, knows all filters, caps its memory, and never takes a
// stream that ends after a block for a whole one.
type xzReader struct {
	in     io.Reader
	stream *C.lzma_stream // C memory: liblzma's state points back at it
	buf    []byte
	left   []byte // of buf
	last   bool   // in has ended
	err    error
}

func unxz(in io.Reader) (io.ReadCloser, error) {
	z := &xzReader{in: in, stream: (*C.lzma_stream)(C.malloc(C.sizeof_lzma_stream)), buf: make([]byte, 256<<10)}
	if ret := C.glanced_unxz_begin(z.stream, maxMemory); ret != C.LZMA_OK {
		z.Close()
		return nil, xzError(ret)
	}
	return z, nil
}

// Read implements io.Reader.
func (z *xzReader) Read(p []byte) (int, error) {
	for len(p) > 0 && z.err == nil {
		if len(z.left) == 0 && !z.last {
			n, err := z.in.Read(z.buf)
			z.left = z.buf[:n]
			if err != nil && err != io.EOF {
				z.err = err
				break
			}
			z.last = err == io.EOF
		}
		in, out := C.size_t(len(z.left)), C.size_t(len(p))
		ret := C.glanced_unxz(z.stream, (*C.uint8_t)(unsafe.SliceData(z.left)), &in, (*C.uint8_t)(unsafe.SliceData(p)), &out, C.int(boolInt(z.last)))
		z.left = z.left[len(z.left)-int(in):]
		z.err = xzError(ret)
		if n := len(p) - int(out); n > 0 {
			return n, nil
		}
	}
	return 0, z.err
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// xzError is what liblzma's result means; nil: go on.
func xzError(ret C.lzma_ret) error {
	switch ret {
	case C.LZMA_OK:
		return nil
	case C.LZMA_STREAM_END:
		return io.EOF
	case C.LZMA_BUF_ERROR: // all of the input was taken, and it is not the end
		return io.ErrUnexpectedEOF
	case C.LZMA_MEMLIMIT_ERROR:
		return fmt.Errorf("%w: it asks for more than %d MiB of memory: compress it with a smaller dictionary", formats.ErrLimit, maxMemory>>20)
	case C.LZMA_OPTIONS_ERROR:
		return fmt.Errorf("%w: it uses a filter or an option that is not known", formats.ErrUnsupported)
	case C.LZMA_MEM_ERROR:
		return fmt.Errorf("%w: the machine has not the memory that it asks for", formats.ErrLimit)
	case C.LZMA_FORMAT_ERROR, C.LZMA_DATA_ERROR:
		return errors.New("it does not decode, or does not match its checksums")
	}
	return fmt.Errorf("liblzma fails with %d", int(ret))
}

// Close frees liblzma's memory.
func (z *xzReader) Close() error {
	if z.stream != nil {
		C.lzma_end(z.stream)
		C.free(unsafe.Pointer(z.stream))
		z.stream, z.err = nil, formats.ErrClosed
	}
	return nil
}
