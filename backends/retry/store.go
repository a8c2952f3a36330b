package retry

import (
	"context"

	"glanced/backends"
	"glanced/backends/stored"
)

// Store repeats those calls of s that may be repeated. Not Begin, whose lost answer
// leaves an upload that nobody knows of, and not Write: a driver that keeps what it
// has not delivered yet repeats that itself. Those have the ctx of their caller.
// An attempt to open or to look may take as long as the driver lets it, which may have
// to fetch all of an object that cannot be read in pieces.
func Store(s backends.Store, reads, changes Policy) backends.Store {
	opens := reads
	opens.Attempt = 0
	return store{s, reads, opens, changes}
}

type store struct {
	backends.Store
	reads, opens, changes Policy
}

// Unwrap is for backends.As.
func (s store) Unwrap() backends.Store { return s.Store }

func (s store) Begin(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w, err := s.Store.Begin(ctx, key, size)
	if err != nil {
		return nil, err
	}
	return writer{w, s.changes}, nil
}

func (s store) Abandon(ctx context.Context, claim backends.Claim) error {
	return s.changes.Do(ctx, func(ctx context.Context, _ int) error { return s.Store.Abandon(ctx, claim) })
}

func (s store) Stat(ctx context.Context, loc backends.Location) (full backends.Location, err error) {
	err = s.opens.Do(ctx, func(ctx context.Context, _ int) error {
		full, err = s.Store.Stat(ctx, loc)
		return err
	})
	return full, err
}

func (s store) Open(ctx context.Context, loc backends.Location) (b stored.Bytes, err error) {
	err = s.opens.Do(ctx, func(ctx context.Context, _ int) error {
		b, err = s.Store.Open(ctx, loc)
		return err
	})
	if err != nil {
		return nil, err
	}
	return Bytes(b, s.reads), nil
}

// Delete of an object whose first answer was lost is ErrNotFound: it cannot be told
// from one of an object that was never there.
func (s store) Delete(ctx context.Context, loc backends.Location) error {
	return s.changes.Do(ctx, func(ctx context.Context, _ int) error { return s.Store.Delete(ctx, loc) })
}

func (s store) Usage(ctx context.Context) (u backends.Usage, err error) {
	err = s.reads.Do(ctx, func(ctx context.Context, _ int) error {
		u, err = s.Store.Usage(ctx)
		return err
	})
	return u, err
}

type writer struct {
	backends.Writer
	policy Policy
}

func (w writer) Commit(ctx context.Context) (loc backends.Location, err error) {
	err = w.policy.Do(ctx, func(ctx context.Context, _ int) error {
		loc, err = w.Writer.Commit(ctx)
		return err
	})
	return loc, err
}

func (w writer) Abort(ctx context.Context) error {
	return w.policy.Do(ctx, func(ctx context.Context, _ int) error { return w.Writer.Abort(ctx) })
}

// Bytes repeats the reads of b. Its abilities are b's.
func Bytes(b stored.Bytes, p Policy) stored.Bytes { return repeated{b, p} }

type repeated struct {
	stored.Bytes
	policy Policy
}

func (r repeated) Unwrap() stored.Bytes { return r.Bytes }

func (r repeated) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.policy.Do(ctx, func(ctx context.Context, _ int) error { return r.Bytes.ReadAt(ctx, p, off) })
}
