package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"glanced/backends/stored"
)

// The file of sums, beside an object's data: a header, then a record for each chunk,
// in order. It is written after the data, and nothing is ever flushed: after a power
// cut any mixture of old and new blocks may be on the disk. A record that is torn or
// that was written for another chunk does not fit its own check; one whose data did
// not make it does not fit the data. Both are a miss. And what fits is right, however
// old: the bytes of an identity never change.
//
// CRC32C, for it is meant for torn and rotten blocks, the hardware does it at the speed
// of memory, and a chunk is trusted by it only once, after a start: one damaged chunk
// in 4 billion would pass.

const (
	sumsMagic  = "glanced chunks 1"
	headerSize = 4096
	recordSize = 8
	// maxName bounds what a header tells of an object in words.
	maxName = 1024
	// maxChunks bounds an object, 128 TiB of the smallest chunks: they are counted in 32
	// bits.
	maxChunks = 1 << 31
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sumOf(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// header is what a file of sums begins with.
type header struct {
	chunk, size int64 // bytes
	id          stored.Identity
	place       string // Place of where it lay when it was first opened; "" = not known
}

// chunks is how many there are; 0: the header makes no sense.
func (h header) chunks() int64 {
	if CheckChunkSize(h.chunk) != nil || h.size <= 0 || h.size > h.chunk*maxChunks {
		return 0
	}
	return (h.size + h.chunk - 1) / h.chunk
}

// encode is the header as it is on disk.
func (h header) encode() []byte {
	b := make([]byte, headerSize)
	at := copy(b, sumsMagic)
	binary.LittleEndian.PutUint64(b[at:], uint64(h.chunk))
	binary.LittleEndian.PutUint64(b[at+8:], uint64(h.size))
	binary.LittleEndian.PutUint16(b[at+16:], uint16(len(h.id)))
	binary.LittleEndian.PutUint16(b[at+18:], uint16(len(h.place)))
	at += 20
	at += copy(b[at:], h.id)
	copy(b[at:], h.place)
	binary.LittleEndian.PutUint32(b[headerSize-4:], sumOf(b[:headerSize-4]))
	return b
}

// parseHeader takes what encode made, and nothing else.
func parseHeader(b []byte) (header, error) {
	if len(b) != headerSize || !bytes.HasPrefix(b, []byte(sumsMagic)) || binary.LittleEndian.Uint32(b[headerSize-4:]) != sumOf(b[:headerSize-4]) {
		return header{}, fmt.Errorf("it has no whole header")
	}
	at := len(sumsMagic)
	h := header{chunk: int64(binary.LittleEndian.Uint64(b[at:])), size: int64(binary.LittleEndian.Uint64(b[at+8:]))}
	id, place := int(binary.LittleEndian.Uint16(b[at+16:])), int(binary.LittleEndian.Uint16(b[at+18:]))
	at += 20
	if id == 0 || id > maxName || place > maxName {
		return header{}, fmt.Errorf("its header names nothing")
	}
	h.id = stored.Identity(b[at : at+id])
	h.place = string(b[at+id : at+id+place])
	if h.chunks() == 0 {
		return header{}, fmt.Errorf("its header tells of %d bytes in chunks of %d", h.size, h.chunk)
	}
	return h, nil
}

// recordAt is where the record of chunk i lies.
func recordAt(i uint32) int64 { return headerSize + recordSize*int64(i) }

// record is the checksum of chunk i of id, and a check of that and of whose it is. base is
// sumOf the identity.
func record(base, i, sum uint32) (b [recordSize]byte) {
	binary.LittleEndian.PutUint32(b[:], sum)
	binary.LittleEndian.PutUint32(b[4:], recordCheck(base, i, sum))
	return b
}

func recordCheck(base, i, sum uint32) uint32 {
	var of [8]byte
	binary.LittleEndian.PutUint32(of[:], i)
	binary.LittleEndian.PutUint32(of[4:], sum)
	return crc32.Update(base, castagnoli, of[:])
}

// parseRecords tells yield of the records in b, which begins with that of chunk
// first, that are whole.
func parseRecords(base, first uint32, b []byte, yield func(i, sum uint32)) {
	for ; len(b) >= recordSize; b = b[recordSize:] {
		sum, check := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		// A hole in the file is no record.
		if (sum != 0 || check != 0) && check == recordCheck(base, first, sum) {
			yield(first, sum)
		}
		first++
	}
}
