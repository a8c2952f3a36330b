package spool

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"glanced/formats"
	"glanced/formats/container"
)

// filling is a fill under way. waiting, over and bytes are Dir.mu's.
type filling struct {
	ctx     context.Context // of all who wait together
	cancel  context.CancelCauseFunc
	waiting int   // who wants what it makes, with who runs it
	over    bool  // all have left, or the key was removed: nobody may join
	bytes   int64 // that it was given room for
	done    chan struct{}
	err     error // once done is closed
}

// begin notes a fill. d.mu is held.
func (d *Dir) begin(ctx context.Context, key string) *filling {
	under := &filling{waiting: 1, done: make(chan struct{})}
	under.ctx, under.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	d.fills[key] = under
	return under
}

// run fills the file of key in the caller's goroutine, and opens it. The caller's
// ctx counts as one waiter's only: while others wait, the fill goes on.
func (d *Dir) run(ctx context.Context, key string, under *filling, fill func(context.Context, io.Writer) error) (formats.Source, error) {
	defer context.AfterFunc(ctx, func() { d.leave(under) })()
	bytes, err := d.fill(under, key, fill)

	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(under.done)
	defer under.cancel(nil)
	delete(d.fills, key)
	d.used -= under.bytes
	under.over = true
	if err == nil && under.ctx.Err() != nil { // removed just now
		os.Remove(d.path(key))
		err = context.Cause(under.ctx)
	}
	if under.err = err; err != nil {
		return nil, err
	}
	f := &file{key: key, bytes: bytes, used: time.Now()}
	d.add(f)
	return d.open(f)
}

// fill makes the file of key, durable, and is how many bytes are allocated for
// it. Until it is whole it has a name that nobody looks for.
func (d *Dir) fill(under *filling, key string, fill func(context.Context, io.Writer) error) (_ int64, err error) {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-under.ctx.Done():
		return 0, context.Cause(under.ctx)
	}
	f, err := os.CreateTemp(d.dir, partial+"*")
	if err != nil {
		return 0, fmt.Errorf("make a file in the spool: %w", err)
	}
	defer f.Close()
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
		if err != nil && under.ctx.Err() != nil {
			err = context.Cause(under.ctx)
		}
	}()
	w := &sparse{ctx: under.ctx, f: f, grow: func(n int64) error { return d.grow(under, n) }}
	if err := fill(under.ctx, w); err != nil {
		return 0, err
	}
	if err := w.finish(); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, fmt.Errorf("make the spooled image durable: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("look at the spooled image: %w", err)
	}
	if err := os.Rename(f.Name(), d.path(key)); err != nil {
		return 0, fmt.Errorf("give the spooled image its name: %w", err)
	}
	if err := syncDir(d.dir); err != nil {
		os.Remove(d.path(key))
		return 0, err
	}
	return allocated(st), nil
}

// grow makes room for n more bytes of a fill.
func (d *Dir) grow(under *filling, n int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if under.bytes+n > d.max {
		return fmt.Errorf("%w: the spool of decompressed images holds %d bytes, and this one has more; raise its limit, or upload the image decompressed", formats.ErrLimit, d.max)
	}
	if !d.evict(n) {
		return fmt.Errorf("%w: of the %d bytes of the spool, %d are in use; raise its limit, or try again later", container.ErrFull, d.max, d.used)
	}
	d.used += n
	under.bytes += n
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

// wait waits for a fill that another runs: until it is done well, or, when it was
// not joined, at all.
func (d *Dir) wait(ctx context.Context, under *filling, joined bool) error {
	if joined {
		defer d.leave(under)
	}
	select {
	case <-under.done:
		if joined {
			return under.err
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// leave takes one waiter off; the last one ends the fill.
func (d *Dir) leave(under *filling) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if under.waiting--; under.waiting == 0 {
		under.over = true
		under.cancel(errAbandoned)
	}
}
