package file

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"

	"glanced/backends"
)

const (
	sampleLen = 4 << 10
	// wholeLen is up to which size a file is hashed whole: that costs no more than
	// the samples of a larger one.
	wholeLen = 64 << 10
)

// version is a fingerprint of a file's content: "1:", and the SHA-256 of its size
// and of samples of 4 KiB in hexadecimal. The samples lie at 0 (a format's header),
// at 64 KiB and at 1 MiB (where a disk's first partition has its superblock), at each
// eighth of the file, and at its end. A file of up to 64 KiB is hashed whole. So a
// version costs a dozen reads, however large the file is.
//
// It is of the content alone, so that it is the same after a backup and a restore,
// by whatever program. It tells apart what an operator might put in an image's place:
// a file cut off or grown, another image, a later state of a disk that was written to
// as a disk. It does not see bytes changed between the samples in a file that keeps
// its size: neither bits that rot, nor who wants it not to see them. The hash in the
// image's record is for these.
func version(f io.ReaderAt, size int64) (string, error) {
	h := sha256.New()
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], uint64(size))
	h.Write(number[:])
	buf := make([]byte, min(size, wholeLen))
	if size > wholeLen {
		buf = buf[:sampleLen]
	}
	for _, off := range samples(size) {
		if n, err := f.ReadAt(buf, off); n < len(buf) {
			if err == io.EOF {
				err = fmt.Errorf("%w: it was cut off", backends.ErrChanged)
			}
			return "", fmt.Errorf("read %d bytes at %d: %w", len(buf), off, err)
		}
		binary.BigEndian.PutUint64(number[:], uint64(off))
		h.Write(number[:])
		h.Write(buf)
	}
	return "1:" + hex.EncodeToString(h.Sum(nil)), nil
}

// samples are the offsets of a file's samples, in the order in which they are
// hashed.
func samples(size int64) []int64 {
	if size <= wholeLen {
		return []int64{0}
	}
	last := size - sampleLen
	offs := []int64{0, 64 << 10, 1 << 20}
	for i := range int64(7) {
		offs = append(offs, size/8*(i+1)&^(sampleLen-1))
	}
	offs = append(offs, last)
	for i := range offs {
		offs[i] = min(offs[i], last)
	}
	return offs
}
