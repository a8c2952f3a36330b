package backendtest

import (
	"context"

	"glanced/backends"
	"glanced/backends/stored"
)

// Op is a call of Store, of a Writer, or of what a Store opened.
type Op string

const (
	OpBegin   Op = "begin"
	OpWrite   Op = "write" // each Write
	OpCommit  Op = "commit"
	OpAbandon Op = "abandon" // Abort too
	OpStat    Op = "stat"
	OpOpen    Op = "open"
	OpDelete  Op = "delete"
	OpRead    Op = "read" // each ReadAt of what is open
)

// Faulty is a Store whose calls fail when Fail or Lose say so; a nil error lets the
// call through, as a nil func does. They may block, to hold a call up, and are called
// concurrently. The abilities of its bytes are hidden, so that every byte passes by
// ReadAt.
type Faulty struct {
	backends.Store
	Fail func(op Op) error // before the call does anything
	Lose func(op Op) error // after it did its work: only its answer is lost
}

// do runs a call between Fail and Lose.
func (f Faulty) do(op Op, call func() error) error {
	if f.Fail != nil {
		if err := f.Fail(op); err != nil {
			return err
		}
	}
	err := call()
	if err == nil && f.Lose != nil {
		err = f.Lose(op)
	}
	return err
}

// Begin implements backends.Store. One whose answer is lost is aborted, for nobody
// else has its claim.
func (f Faulty) Begin(ctx context.Context, key string, size int64) (backends.Writer, error) {
	var w backends.Writer
	err := f.do(OpBegin, func() (err error) {
		w, err = f.Store.Begin(ctx, key, size)
		return err
	})
	if err != nil {
		if w != nil {
			w.Abort(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	return &faultyWriter{Writer: w, f: f}, nil
}

// Abandon implements backends.Store.
func (f Faulty) Abandon(ctx context.Context, claim backends.Claim) error {
	return f.do(OpAbandon, func() error { return f.Store.Abandon(ctx, claim) })
}

// Stat implements backends.Store.
func (f Faulty) Stat(ctx context.Context, loc backends.Location) (full backends.Location, err error) {
	err = f.do(OpStat, func() error {
		full, err = f.Store.Stat(ctx, loc)
		return err
	})
	return full, err
}

// Open implements backends.Store.
func (f Faulty) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	var b stored.Bytes
	err := f.do(OpOpen, func() (err error) {
		b, err = f.Store.Open(ctx, loc)
		return err
	})
	if err != nil {
		if b != nil {
			b.Close()
		}
		return nil, err
	}
	return faultyBytes{b, f}, nil
}

// Delete implements backends.Store.
func (f Faulty) Delete(ctx context.Context, loc backends.Location) error {
	return f.do(OpDelete, func() error { return f.Store.Delete(ctx, loc) })
}

type faultyWriter struct {
	backends.Writer
	f   Faulty
	err error // of a Write
}

func (w *faultyWriter) Write(p []byte) (n int, err error) {
	if w.err != nil {
		return 0, w.err
	}
	w.err = w.f.do(OpWrite, func() error {
		n, err = w.Writer.Write(p)
		return err
	})
	return n, w.err
}

func (w *faultyWriter) Commit(ctx context.Context) (loc backends.Location, err error) {
	if w.err != nil {
		return loc, w.err
	}
	err = w.f.do(OpCommit, func() error {
		loc, err = w.Writer.Commit(ctx)
		return err
	})
	return loc, err
}

func (w *faultyWriter) Abort(ctx context.Context) error {
	return w.f.do(OpAbandon, func() error { return w.Writer.Abort(ctx) })
}

type faultyBytes struct {
	stored.Bytes
	f Faulty
}

func (b faultyBytes) ReadAt(ctx context.Context, p []byte, off int64) error {
	return b.f.do(OpRead, func() error { return b.Bytes.ReadAt(ctx, p, off) })
}
