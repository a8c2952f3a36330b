package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"glanced/backends/localfile"
	"glanced/backends/stored"
)

// fill makes the file of key, durable. Until it is whole it has a name that nobody
// looks for. ctx ends when nobody waits for the file any more, or it was removed.
func (d *Dir) fill(ctx context.Context, who, key string, from Fill) (err error) {
	place := who
	if place == "" {
		place = key // each for itself
	}
	leave, err := d.slots.Take(ctx, place)
	if err != nil {
		return err
	}
	defer leave()
	f, err := os.CreateTemp(d.dir, partial+"*")
	if err != nil {
		return fmt.Errorf("make a file in the spool: %w", err)
	}
	room := int64(0) // given to the file so far, bytes
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
			switch {
			case ctx.Err() != nil:
				err = context.Cause(ctx)
			case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
				err = fmt.Errorf("%w: %w", ErrFull, err)
			}
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.count(who, -room) // it is counted as a file now, or gone
	}()
	if err := write(ctx, f, from, func(n int64) error { return d.grow(who, &room, n) }); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("make the spooled file durable: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("look at the spooled file: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil { // no removal comes from here on, before the file is there
		return context.Cause(ctx)
	}
	if err := os.Rename(f.Name(), d.path(key)); err != nil {
		return fmt.Errorf("give the spooled file its name: %w", err)
	}
	if err := syncDir(d.dir); err != nil {
		return errors.Join(err, os.Remove(d.path(key)))
	}
	d.add(&file{key: key, who: who, bytes: allocated(st), used: time.Now()})
	return nil
}

// write has from write the file, and leaves holes for zeros. grow, where it is not
// nil, is asked for room.
func write(ctx context.Context, f *os.File, from Fill, grow func(int64) error) error {
	w := localfile.NewSparseWriter(f, grow)
	if err := from(ctx, heeding{ctx, w}); err != nil {
		return err
	}
	if err := w.Finish(); err != nil {
		return fmt.Errorf("write the spooled file: %w", err)
	}
	return nil
}

// heeding is a writer that takes nothing more when ctx has ended. It lives inside
// one call of write.
type heeding struct {
	ctx context.Context
	w   io.Writer
}

func (h heeding) Write(p []byte) (int, error) {
	if h.ctx.Err() != nil {
		return 0, context.Cause(h.ctx)
	}
	return h.w.Write(p)
}

// grow makes room for n more bytes of a fill, which has room already.
func (d *Dir) grow(who string, room *int64, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if *room+n > d.max {
		return fmt.Errorf("%w: it may hold %d bytes, and this has more; raise its limit", ErrLimit, d.max)
	}
	if d.share > 0 && who != "" && *room+n > d.share {
		return fmt.Errorf("%w: of a project it may hold %d bytes, and this has more; raise that limit", ErrLimit, d.share)
	}
	if !d.evictOf(who, n) {
		return fmt.Errorf("%w: of the %d bytes that a project may have, this one has %d in use; raise that limit, or try again later", ErrFull, d.share, d.by[who])
	}
	if !d.evict(n) {
		return fmt.Errorf("%w: of its %d bytes, %d are in use; raise its limit, or try again later", ErrFull, d.max, d.used)
	}
	d.count(who, n)
	*room += n
	return nil
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("make the spool durable: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("make the spool durable: %w", err)
	}
	return nil
}

// Temporary is what fill writes, as a file in dir (the system's temporary folder where
// it is "") that has no name, and is gone when it is closed or the process ends.
func Temporary(ctx context.Context, dir string, fill Fill) (stored.Bytes, error) {
	f, err := os.CreateTemp(dir, partial+"*")
	if err != nil {
		return nil, fmt.Errorf("make a temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("hide a temporary file: %w", err)
	}
	if err := write(ctx, f, fill, nil); err != nil {
		f.Close()
		return nil, err
	}
	return localfile.New(f, "")
}
