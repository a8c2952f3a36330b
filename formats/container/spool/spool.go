// Package spool keeps disk images that were decompressed: the files are those of
// backends/spool, the words those of formats and containers.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io"

	"glanced/backends/spool"
	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/container"
)

// FillMemory is container.FillMemory, for who decides how many fills run.
const FillMemory = container.FillMemory

// Dir is a folder of decompressed images. Safe for concurrent use; one Dir at a
// time may use a folder, the caller sees to it.
type Dir struct{ files *spool.Dir }

// New is spool.New: each of the fills may need FillMemory.
func New(dir string, maxBytes int64, fills int) (*Dir, error) {
	files, err := spool.New(dir, maxBytes, fills)
	if err != nil {
		return nil, err
	}
	return &Dir{files}, nil
}

// ShareBytes bounds what each project may have; see spool.Dir.ShareBytes.
func (d *Dir) ShareBytes(n int64) { d.files.ShareBytes(n) }

// For is a Spool whose one content, an image of project's, is kept under key; see
// spool.Dir.GetFor. It fails with container.ErrFull or formats.ErrLimit where there is no
// room.
func (d *Dir) For(project, key string) container.Spool {
	return func(ctx context.Context, fill func(context.Context, io.Writer) error) (stored.Bytes, error) {
		src, err := d.files.GetFor(ctx, project, key, fill)
		return src, inWords(err)
	}
}

// Remove forgets the image of key, if there is one; who has it open reads on. A fill
// under way is ended, and fails with formats.ErrClosed.
func (d *Dir) Remove(key string) error { return d.files.Remove(key) }

// Keys are those that there is an image for, in no order.
func (d *Dir) Keys() []string { return d.files.Keys() }

// inWords adds the sentinel that the contract of containers has for an error.
func inWords(err error) error {
	switch {
	case errors.Is(err, spool.ErrLimit):
		return fmt.Errorf("%w: %w, or upload the image decompressed", formats.ErrLimit, err)
	case errors.Is(err, spool.ErrFull):
		return fmt.Errorf("%w: %w", container.ErrFull, err)
	case errors.Is(err, spool.ErrRemoved):
		return fmt.Errorf("%w: %w", formats.ErrClosed, err)
	}
	return err
}

// Temporary is a Spool for one use; see spool.Temporary.
func Temporary(dir string) container.Spool {
	return func(ctx context.Context, fill func(context.Context, io.Writer) error) (stored.Bytes, error) {
		return spool.Temporary(ctx, dir, fill)
	}
}
