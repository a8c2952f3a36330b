// Package stored is the contract for bytes at rest: an object in a store, a
// section of a tar, a decompressed file, a cache over any of them. Stores hand
// them out, disk formats are read from them, and neither knows of the other.
//
// What an implementation can do beyond reading is an ability: an interface of one
// method (FileRanger, WholeFiler, Extenter, Prefetcher, Verifier), found with As,
// also through wrappers. An ability may always answer "not here".
package stored

import (
	"context"
	"errors"
	"fmt"
)

// Sentinels of the contract. Implementations wrap them with what was tried.
var (
	ErrRange       = errors.New("range outside the stored bytes")
	ErrNotFound    = errors.New("no such object in the store")
	ErrChanged     = errors.New("the stored bytes are not the ones that were recorded")
	ErrUnavailable = errors.New("the store cannot be reached") // a retry may help
	ErrDenied      = errors.New("the store refuses access")
)

// Bytes are stored bytes, open for reading. Their number and what they are does
// not change while they are open. Safe for concurrent use.
type Bytes interface {
	// ReadAt fills p from off, or fails: with ErrRange outside of the bytes, with
	// ErrChanged, ErrNotFound, ErrDenied or ErrUnavailable where the store says so. It returns
	// early when ctx ends, with its cause.
	ReadAt(ctx context.Context, p []byte, off int64) error
	Size() int64 // bytes
	Identity() Identity
	Close() error
}

// Inside is nil where [off, off+n) lies within b, and an ErrRange elsewhere.
func Inside(b Bytes, off, n int64) error {
	if size := b.Size(); off < 0 || n < 0 || off > size-n {
		return fmt.Errorf("%w: %d bytes at %d of %d", ErrRange, n, off, size)
	}
	return nil
}

// As finds an ability in b, or in what b wraps: a wrapper that neither moves nor
// changes bytes has a method Unwrap() Bytes. One that moves them (Section) has
// the abilities itself.
func As[T any](b Bytes) (ability T, ok bool) {
	for b != nil {
		if ability, ok = b.(T); ok {
			return ability, true
		}
		w, wraps := b.(interface{ Unwrap() Bytes })
		if !wraps {
			break
		}
		b = w.Unwrap()
	}
	return ability, false
}

// FileRanger is the ability of bytes that lie in a local file, all or some of
// them.
type FileRanger interface {
	// FileRange is where in a local file the bytes from off on lie, n of them or
	// as many as lie there in one piece now; ok is false where not even the first
	// does. It waits for nothing. The range is to be released.
	FileRange(off, n int64) (r FileRange, ok bool)
}

// WholeFiler is the ability of bytes that are one local file, from its first byte
// to its last, all of it there.
type WholeFiler interface {
	// WholeFile is that file; ok is false where it is not one, or not complete. It
	// waits for nothing. The range is to be released.
	WholeFile() (r FileRange, ok bool)
}

// Extenter is the ability of bytes that know their own holes.
type Extenter interface {
	// Extents yields consecutive runs that together cover [off, off+n), until
	// yield returns false. A hole reads as zeros; anything may be told as no hole.
	Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error
}

// Prefetcher is the ability of bytes that are dear to come by: it is told of a
// range that will be read soon. It waits for nothing and may do nothing.
type Prefetcher interface {
	Prefetch(off, n int64)
}

// Verifier is the ability of bytes that somebody may change underneath while they
// are open, as an operator can a file.
type Verifier interface {
	// Verify is nil where the bytes still seem to be those that were opened, and
	// ErrChanged where not. It costs little where nothing was touched.
	Verify(ctx context.Context) error
}
