package spool

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/localfile"
)

// block is the unit in which zeros become holes, bytes: that of most file systems.
const block = 4 << 10

var zeros [block]byte

// sparse writes a stream to an empty file, and leaves blocks of zeros out.
type sparse struct {
	ctx   context.Context // of the fill, which the writer does not outlive
	f     *os.File
	grow  func(n int64) error // called before n bytes are allocated; nil: no limit
	pos   int64               // of rest
	rest  [block]byte         // the begun block
	begun int
}

// Write implements io.Writer.
func (w *sparse) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	for done := 0; done < len(p); {
		left := p[done:]
		if w.begun == 0 && len(left) >= block { // as they are, without a copy
			n := len(left) &^ (block - 1)
			if err := w.blocks(left[:n]); err != nil {
				return done, err
			}
			done += n
			continue
		}
		n := copy(w.rest[w.begun:], left)
		w.begun += n
		done += n
		if w.begun == block {
			w.begun = 0
			if err := w.blocks(w.rest[:]); err != nil {
				return done, err
			}
		}
	}
	return len(p), nil
}

// blocks writes whole blocks at pos, those next to each other at once.
func (w *sparse) blocks(p []byte) error {
	for from := 0; from < len(p); {
		to := from
		for to < len(p) && !bytes.Equal(p[to:to+block], zeros[:]) {
			to += block
		}
		if to == from {
			from += block
			continue
		}
		if err := w.write(p[from:to], w.pos+int64(from)); err != nil {
			return err
		}
		from = to
	}
	w.pos += int64(len(p))
	return nil
}

func (w *sparse) write(p []byte, pos int64) error {
	if w.grow != nil {
		if err := w.grow((int64(len(p)) + block - 1) &^ (block - 1)); err != nil {
			return err
		}
	}
	if _, err := w.f.WriteAt(p, pos); err != nil {
		return fmt.Errorf("write the decompressed image: %w", err)
	}
	return nil
}

// finish writes what is left, and gives the file its length.
func (w *sparse) finish() error {
	if rest := w.rest[:w.begun]; !bytes.Equal(rest, zeros[:w.begun]) {
		if err := w.write(rest, w.pos); err != nil {
			return err
		}
	}
	if err := w.f.Truncate(w.pos + int64(w.begun)); err != nil {
		return fmt.Errorf("give the decompressed image its length: %w", err)
	}
	return nil
}

// Temporary is a Spool for one use: a file in dir (the system's temporary folder
// where it is "") that has no name, and is gone when its Source is closed or the
// process ends.
func Temporary(dir string) container.Spool {
	return func(ctx context.Context, fill func(context.Context, io.Writer) error) (formats.Source, error) {
		f, err := os.CreateTemp(dir, partial+"*")
		if err != nil {
			return nil, fmt.Errorf("make a temporary file: %w", err)
		}
		if err := os.Remove(f.Name()); err != nil {
			f.Close()
			return nil, fmt.Errorf("hide a temporary file: %w", err)
		}
		w := &sparse{ctx: ctx, f: f}
		err = fill(ctx, w)
		if err == nil {
			err = w.finish()
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		return localfile.New(f)
	}
}
