package localfile

import (
	"bytes"
	"fmt"
	"io"
	"os"
)

// Block is the block size of the usual file systems, bytes: the least that a hole
// can be.
const Block = 4 << 10

// maxUnit is the largest unit of WriteSparse, bytes.
const maxUnit = 64 << 10

var zeros [maxUnit]byte

// WriteSparse writes p at off of a file that has only zeros there, and leaves out
// the zeros: aligned blocks of unit bytes, a power of two of at most 64 KiB. What
// is next to each other is one write.
func WriteSparse(f io.WriterAt, p []byte, off, unit int64) error {
	end := off + int64(len(p))
	for at := off; at < end; {
		from := at
		for at < end {
			next := min(at-at%unit+unit, end)
			if block := p[at-off : next-off]; bytes.Equal(block, zeros[:len(block)]) {
				break
			}
			at = next
		}
		if at > from {
			if _, err := f.WriteAt(p[from-off:at-off], from); err != nil {
				return err
			}
		}
		at = min(at-at%unit+unit, end) // past the zeros that ended the run, if they did
	}
	return nil
}

// SparseWriter writes a stream to an empty file, and leaves out blocks of zeros,
// whatever pieces the stream comes in. It is for one goroutine.
type SparseWriter struct {
	f     *os.File
	grow  func(n int64) error
	pos   int64 // of rest
	rest  [Block]byte
	begun int // bytes in rest, a block that is not full yet
}

// NewSparseWriter writes to f, which is empty. grow, where it is not nil, is asked
// before n bytes, whole blocks, are allocated in the file; its error ends the write.
func NewSparseWriter(f *os.File, grow func(n int64) error) *SparseWriter {
	return &SparseWriter{f: f, grow: grow}
}

// Write implements io.Writer.
func (w *SparseWriter) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		left := p[done:]
		if n := len(left) &^ (Block - 1); w.begun == 0 && n > 0 { // as they are, without a copy
			if err := w.put(left[:n]); err != nil {
				return done, err
			}
			w.pos += int64(n)
			done += n
			continue
		}
		n := copy(w.rest[w.begun:], left)
		w.begun += n
		done += n
		if w.begun == Block {
			if err := w.put(w.rest[:]); err != nil {
				return done, err
			}
			w.pos += Block
			w.begun = 0
		}
	}
	return len(p), nil
}

// Finish writes what is left, and gives the file its length.
func (w *SparseWriter) Finish() error {
	if err := w.put(w.rest[:w.begun]); err != nil {
		return err
	}
	if err := w.f.Truncate(w.pos + int64(w.begun)); err != nil {
		return fmt.Errorf("give %s its length: %w", w.f.Name(), err)
	}
	return nil
}

func (w *SparseWriter) put(p []byte) error { return WriteSparse(growing{w}, p, w.pos, Block) }

// growing is the file of a SparseWriter, which asks before it writes.
type growing struct{ *SparseWriter }

func (w growing) WriteAt(p []byte, off int64) (int, error) {
	if w.grow != nil {
		if err := w.grow((int64(len(p)) + Block - 1) &^ (Block - 1)); err != nil {
			return 0, err
		}
	}
	return w.f.WriteAt(p, off)
}
