package vhdx

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"glanced/backends/stored"
	"glanced/formats"
)

// The header section, "Header Section" (2.2): the first MiB of the file.
const (
	fileSignature   = "vhdxfile"
	headerSignature = "head"
	headerBytes     = 4 * kib
	headerSection   = 1 * mib // nothing else may lie before
)

// headersAt and regionTablesAt are the file offsets of the two copies of each.
func headersAt() [2]int64      { return [2]int64{64 * kib, 128 * kib} }
func regionTablesAt() [2]int64 { return [2]int64{192 * kib, 256 * kib} }

// span is a range of bytes of the file.
type span struct{ begin, end int64 }

func (s span) len() int64           { return s.end - s.begin }
func (s span) overlaps(o span) bool { return s.begin < o.end && o.begin < s.end }

// guid is a GUID as text, lower-case and without braces; "" is the one of zeros.
type guid = string

// parseGUID reads a GUID's 16 bytes: its first three numbers are little-endian.
func parseGUID(b []byte) guid {
	b = b[:16]
	if allZero(b) {
		return ""
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:])
}

func allZero(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != 0 })
}

// checksum is the CRC-32C of b with the four bytes at 4 taken as zeros, as every
// checksummed structure of the format has it.
func checksum(b []byte) uint32 {
	t := crc32.MakeTable(crc32.Castagnoli)
	c := crc32.Update(0, t, b[:4])
	c = crc32.Update(c, t, make([]byte, 4))
	return crc32.Update(c, t, b[8:])
}

// sealed says that b begins with signature and that its checksum is right.
func sealed(b []byte, signature string) bool {
	return string(b[:4]) == signature && binary.LittleEndian.Uint32(b[4:]) == checksum(b)
}

// header is what counts of the current header, "Headers" (2.2.2).
type header struct {
	sequence  uint64
	dataWrite guid // names the disk's content
	logID     guid // "" = there is nothing to play back
	log       span // where the log lies
}

// readHeader finds the header that counts: the newest whose checksum is right.
func readHeader(ctx context.Context, src stored.Bytes) (header, error) {
	head := make([]byte, len(fileSignature))
	if src.Size() >= int64(len(head)) {
		if err := src.ReadAt(ctx, head, 0); err != nil {
			return header{}, fmt.Errorf("read the vhdx file type identifier: %w", err)
		}
	}
	if !probe(head) {
		return header{}, fmt.Errorf("%w: no vhdx file type identifier at the beginning", formats.ErrFormat)
	}
	var best []byte
	for _, at := range headersAt() {
		b := make([]byte, headerBytes)
		if at > src.Size()-headerBytes {
			return header{}, fmt.Errorf("%w: the vhdx file ends, at %d bytes, before its headers do", formats.ErrCorrupt, src.Size())
		}
		if err := src.ReadAt(ctx, b, at); err != nil {
			return header{}, fmt.Errorf("read the vhdx header at %d: %w", at, err)
		}
		if !sealed(b, headerSignature) {
			continue
		}
		// Of two with the same number neither is current, unless they are the
		// same: Windows is known to write such.
		if best != nil && sequenceOf(b) == sequenceOf(best) && string(b) != string(best) {
			return header{}, fmt.Errorf("%w: two different vhdx headers with the sequence number %d", formats.ErrCorrupt, sequenceOf(b))
		}
		if best == nil || sequenceOf(b) > sequenceOf(best) {
			best = b
		}
	}
	if best == nil {
		return header{}, fmt.Errorf("%w: neither vhdx header has its signature and a right checksum", formats.ErrCorrupt)
	}
	return parseHeader(best, src.Size())
}

func sequenceOf(head []byte) uint64 { return binary.LittleEndian.Uint64(head[8:]) }

// parseHeader reads a header whose checksum is right; the log lies within
// fileSize bytes.
func parseHeader(b []byte, fileSize int64) (header, error) {
	le := binary.LittleEndian
	h := header{sequence: sequenceOf(b), dataWrite: parseGUID(b[32:]), logID: parseGUID(b[48:])}
	if v := le.Uint16(b[66:]); v != 1 {
		return h, fmt.Errorf("%w: vhdx version %d (1 is known)", formats.ErrUnsupported, v)
	}
	if v := le.Uint16(b[64:]); v != 0 && h.logID != "" {
		return h, fmt.Errorf("%w: a vhdx log of version %d that was not played back (0 is known); open and close the disk with what wrote it", formats.ErrUnsupported, v)
	}
	length, off := int64(le.Uint32(b[68:])), le.Uint64(b[72:])
	if length == 0 && h.logID == "" {
		return h, nil // no log at all
	}
	if length == 0 || length%mib != 0 || off%mib != 0 || off < headerSection || off > uint64(fileSize) || length > fileSize-int64(off) {
		return h, fmt.Errorf("%w: the vhdx log (%d bytes at %d) is not in whole MiB behind the headers and within the file (%d bytes)", formats.ErrCorrupt, length, off, fileSize)
	}
	h.log = span{int64(off), int64(off) + length}
	return h, nil
}
