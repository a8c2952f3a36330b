package nbd

import (
	"encoding/binary"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// putSimple writes a simple reply ("Simple reply message").
func putSimple(b []byte, handle uint64, errno uint32) {
	binary.BigEndian.PutUint32(b, protocol.TRANSMISSION_MAGIC_REPLY)
	binary.BigEndian.PutUint32(b[4:], errno)
	binary.BigEndian.PutUint64(b[8:], handle)
}

// putChunk writes the head of a chunk ("Structured reply chunk message") with n
// bytes of payload.
func putChunk(b []byte, flags, kind uint16, handle uint64, n int) {
	binary.BigEndian.PutUint32(b, chunkMagic)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], handle)
	binary.BigEndian.PutUint32(b[16:], uint32(n))
}

// putData writes the head of an OFFSET_DATA chunk with n bytes of data to follow.
func putData(b []byte, flags uint16, handle uint64, off, n int64) {
	putChunk(b, flags, chunkOffsetData, handle, int(n)+8)
	binary.BigEndian.PutUint64(b[chunkSize:], uint64(off))
}

// putHole writes a whole OFFSET_HOLE chunk.
func putHole(b []byte, flags uint16, handle uint64, off, n int64) {
	putChunk(b, flags, chunkOffsetHole, handle, 12)
	binary.BigEndian.PutUint64(b[chunkSize:], uint64(off))
	binary.BigEndian.PutUint32(b[chunkSize+8:], uint32(n))
}

// errorReply is a whole error reply: with a text, and the guest offset at if it is not
// nil, where chunks were negotiated ("Structured reply types", NBD_REPLY_TYPE_ERROR).
func errorReply(structured bool, handle uint64, errno uint32, text string, at *int64) []byte {
	if !structured {
		b := make([]byte, simpleSize)
		putSimple(b, handle, errno)
		return b
	}
	kind, n := chunkError, 4+2+len(text)
	if at != nil {
		kind, n = chunkErrorOffset, n+8
	}
	b := make([]byte, chunkSize, chunkSize+n)
	putChunk(b, chunkDone, kind, handle, n)
	b = binary.BigEndian.AppendUint32(b, errno)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	b = append(b, text...)
	if at != nil {
		b = binary.BigEndian.AppendUint64(b, uint64(*at))
	}
	return b
}
