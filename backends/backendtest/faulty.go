package backendtest

import (
	"context"
	"io"

	"glanced/backends"
	"glanced/backends/stored"
)

// Op is a call of Store, or of what it opened, that Faulty can make fail.
type Op string

const (
	OpPut    Op = "put"    // after the body was read and stored; the object is removed again
	OpOpen   Op = "open"   // before
	OpDelete Op = "delete" // before
	OpRead   Op = "read"   // before each ReadAt of what is open
)

// Faulty is a Store whose calls fail when Fail says so: a nil error lets the call
// through. It may block, to hold a call up. Locator is found through Unwrap;
// the abilities of its bytes are hidden, so that every byte passes by ReadAt.
type Faulty struct {
	backends.Store
	Fail func(op Op) error // called concurrently
}

// Unwrap is for backends.As.
func (f Faulty) Unwrap() backends.Store { return f.Store }

// Put implements backends.Store.
func (f Faulty) Put(ctx context.Context, key string, r io.Reader, size int64) (backends.Location, error) {
	loc, err := f.Store.Put(ctx, key, r, size)
	if err != nil {
		return loc, err
	}
	if err := f.Fail(OpPut); err != nil {
		f.Store.Delete(context.WithoutCancel(ctx), loc)
		return backends.Location{}, err
	}
	return loc, nil
}

// Open implements backends.Store.
func (f Faulty) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	if err := f.Fail(OpOpen); err != nil {
		return nil, err
	}
	b, err := f.Store.Open(ctx, loc)
	if err != nil {
		return nil, err
	}
	return faultyBlob{b, f.Fail}, nil
}

// Delete implements backends.Store.
func (f Faulty) Delete(ctx context.Context, loc backends.Location) error {
	if err := f.Fail(OpDelete); err != nil {
		return err
	}
	return f.Store.Delete(ctx, loc)
}

type faultyBlob struct {
	stored.Bytes
	fail func(Op) error
}

func (b faultyBlob) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := b.fail(OpRead); err != nil {
		return err
	}
	return b.Bytes.ReadAt(ctx, p, off)
}
