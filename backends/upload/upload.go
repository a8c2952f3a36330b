// Package upload is the frame of an upload to a store behind a network: what every
// backends.Writer keeps to, whatever its server. How bytes are sent, and how an object
// is made of them, is the driver's.
package upload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"glanced/backends"
)

// ErrAborted is what a Writer says after Abort.
var ErrAborted = errors.New("the upload was aborted")

var errCommitted = errors.New("it is committed")

// Frame is the part of a backends.Writer that has no server: which calls may follow
// which, and how often. A driver's writer embeds it. As a Writer, it is for one
// goroutine at a time.
type Frame struct {
	Ctx  context.Context // Begin's, until the upload is committed or aborted
	Size int64           // announced, bytes; -1 = unknown
	N    int64           // written so far, bytes: the driver counts

	cancel  context.CancelCauseFunc
	explain func(error) error
	ended   bool               // by Commit or Abort: nothing more can be written
	err     error              // of an earlier call: there is only Abort
	done    *backends.Location // where Commit put it
}

// New is the frame of an upload of size bytes, -1 = unknown, which ends with ctx.
// explain says in an error which upload of which store it is about.
func New(ctx context.Context, size int64, explain func(error) error) Frame {
	f := Frame{Size: size, explain: explain}
	f.Ctx, f.cancel = context.WithCancelCause(ctx)
	return f
}

// Write has send take p, if it may: not after Commit, Abort, the end of Ctx or a Write
// that failed, and not beyond the size that was announced (backends.ErrLong).
func (f *Frame) Write(p []byte, send func([]byte) error) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	err := f.may(int64(len(p)))
	if err == nil {
		err = send(p)
	}
	if err != nil {
		if f.Ctx.Err() != nil {
			err = context.Cause(f.Ctx)
		}
		f.err = f.explain(err)
		return 0, f.err
	}
	return len(p), nil
}

func (f *Frame) may(n int64) error {
	switch {
	case f.Ctx.Err() != nil:
		return context.Cause(f.Ctx)
	case f.ended:
		return errCommitted
	case f.Size >= 0 && n > f.Size-f.N:
		return fmt.Errorf("%w: %d bytes were announced", backends.ErrLong, f.Size)
	}
	return nil
}

// Commit has publish make the object, if all of it was written (backends.ErrShort). It
// may be repeated: publish is not called again after it has succeeded.
func (f *Frame) Commit(ctx context.Context, publish func(context.Context) (backends.Location, error)) (backends.Location, error) {
	if f.done != nil {
		return *f.done, nil
	}
	if f.err != nil {
		return backends.Location{}, f.err
	}
	loc, err := f.commit(ctx, publish)
	if err != nil {
		return backends.Location{}, f.explain(err)
	}
	f.done = &loc
	f.cancel(nil)
	return loc, nil
}

func (f *Frame) commit(ctx context.Context, publish func(context.Context) (backends.Location, error)) (backends.Location, error) {
	if ctx.Err() != nil {
		return backends.Location{}, context.Cause(ctx)
	}
	if f.N < f.Size {
		return backends.Location{}, fmt.Errorf("%w: got %d of %d bytes", backends.ErrShort, f.N, f.Size)
	}
	f.ended = true
	return publish(ctx)
}

// Abort ends Ctx, and has every later call but another Abort fail. The driver then
// removes what there is of the upload.
func (f *Frame) Abort() {
	if f.err == nil {
		f.err = f.explain(ErrAborted)
	}
	f.done, f.ended = nil, true
	f.cancel(ErrAborted)
}

// Once is what lies under an upload's key after it was published there, once: mine is
// what is there now, if it is the upload's (backends.ErrNotFound: nothing is there;
// backends.ErrExists: another upload's), and publish puts it there. Where publish says
// occupied, another came first, or an earlier call whose answer was lost; mine tells
// which. What mine and publish do is one step: the caller has the lock on the key.
// publish is not cut off with its caller, but leaveTime later: a server may do what it
// was asked after nobody waits for its answer, and what aborts the upload would not find
// it yet.
func Once[T any](ctx context.Context, mine func(context.Context) (T, error), publish func(context.Context) error, occupied error) (T, error) {
	there, err := mine(ctx)
	if !errors.Is(err, backends.ErrNotFound) {
		return there, err
	}
	outlasting, done := outlast(ctx)
	defer done()
	if err := publish(outlasting); err != nil && !errors.Is(err, occupied) {
		return there, err
	}
	return mine(ctx)
}

// leaveTime is how long what publishes goes on for a caller who has left.
const leaveTime = 10 * time.Second

// outlast is a context that ends leaveTime after ctx, or with done.
func outlast(ctx context.Context) (outlasting context.Context, done func()) {
	outlasting, end := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		select {
		case <-time.After(leaveTime):
			end(context.Cause(ctx))
		case <-outlasting.Done():
		}
	})
	return outlasting, func() {
		stop()
		end(nil)
	}
}
