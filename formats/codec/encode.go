package codec

import "errors"

// Encoder makes the zlib streams of clusters. It holds working memory, up to
// about 1 MiB, allocated at first use. An Encoder serves one goroutine at a time;
// Close frees it. The zero value is ready to use.
//
// It is libdeflate, or klauspost/compress, by the same build tags as decoding.
// The choice was measured on 64 KiB pieces of programs, libraries and sources, one
// core of a busy machine; the size is what is left of 100 bytes:
//
//	                    MB/s   size
//	libdeflate 1         190   38.2
//	libdeflate 4         125   36.2
//	libdeflate 6          54   35.3
//	klauspost 3          171   39.3
//	klauspost 5          112   37.5
//	klauspost 6           97   37.1
//	zlib 6 (QEMU)         33   35.6
type Encoder struct {
	compressor // of a library, chosen when building
}

// Zlib appends src as a zlib stream (RFC 1950) to dst. dst and src must not overlap.
func (e *Encoder) Zlib(dst, src []byte) ([]byte, error) { return e.compressor.zlib(dst, src) }

// Close frees the working memory. The Encoder may be used again.
func (e *Encoder) Close() { e.compressor.close() }

var errNoRoom = errors.New("compress: the stream does not fit its bound")
