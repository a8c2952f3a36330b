// Package backends is the contract for places that keep image bytes: a Store
// takes a stream in under a key and hands it back as a Blob that can be read at
// any offset. It knows nothing of images, formats or protocols.
//
// Vocabulary: a key is the name under which a caller stores bytes (glanced uses
// the image id); a Location is what the catalog records, and all a store needs
// to find the bytes again.
package backends

import (
	"context"
	"errors"
	"io"
	"os"
)

// Sentinels of the contract. Implementations wrap them with what was tried, so
// that errors.Is tells the kind and the text tells the story.
var (
	ErrNotFound    = errors.New("no such object in the store")
	ErrExists      = errors.New("the store already holds an object under this key")
	ErrFull        = errors.New("the store is full")
	ErrReadOnly    = errors.New("the store cannot be written")
	ErrUnavailable = errors.New("the store cannot be reached") // a retry may help
	ErrChanged     = errors.New("the stored bytes changed while they were open")
	ErrBadLocation = errors.New("not a location of this store")
	ErrRange       = errors.New("range outside the object")
	ErrShort       = errors.New("the body ended before its announced size")
	ErrLong        = errors.New("the body is longer than its announced size")
)

// Location says where one object lies: the URL in Glance's spelling for the
// kind of store (file:///dir/id, swift+https://…, rbd://…). It may hold
// credentials, so it is never logged and never shown without a policy check.
type Location struct {
	Store string // id of the configured store
	URL   string
}

// Usage is what a store holds and could hold, in bytes; Total and Free are -1
// where the store cannot tell.
type Usage struct {
	Total, Free int64
}

// Store keeps objects. All methods are safe for concurrent use.
type Store interface {
	// Put stores all of r under key: all or nothing, and durable when it
	// returns. size is the number of bytes r must yield, -1 if unknown; a body
	// shorter or longer than size fails with ErrShort or ErrLong. When it fails,
	// or r fails, nothing is left behind. An existing key fails with ErrExists.
	Put(ctx context.Context, key string, r io.Reader, size int64) (Location, error)
	// Open makes an object readable; the caller closes the Blob.
	Open(ctx context.Context, loc Location) (Blob, error)
	// Delete removes an object; ErrNotFound when there is none. Open blobs of it
	// may go on reading or fail with ErrChanged or ErrNotFound, never with other bytes.
	Delete(ctx context.Context, loc Location) error
	Usage(ctx context.Context) (Usage, error)
	Close() error
}

// Blob is one stored object, open for reading. It has the shape of a
// formats.Source.
type Blob interface {
	// ReadAt fills p from off or fails; a range outside the object is ErrRange.
	// Safe for concurrent use. It returns early when ctx ends.
	ReadAt(ctx context.Context, p []byte, off int64) error
	Size() int64 // bytes
	// Version names this state of the bytes (inode and mtime, ETag, snapshot);
	// cached bytes are valid only together with it.
	Version() string
	Close() error
}

// Locator is the ability of a Store to say where a key would lie without asking
// it. Sweeping after a crash needs it: the location of a Put that never returned.
type Locator interface {
	Locate(key string) Location
}

// FileRanger is the ability of a Blob whose bytes lie in a local file that does
// not change: f holds bytes [off, off+n) of the blob at pos. f stays owned by
// the blob and valid until its Close.
type FileRanger interface {
	FileRange(off, n int64) (f *os.File, pos int64, ok bool)
}

// Extenter is the ability of a Blob that knows its own holes: yield is called
// with consecutive runs that together cover [off, off+n).
type Extenter interface {
	Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error
}

// As finds an ability in v or in what v wraps (through an Unwrap() method that
// returns the wrapped Blob or Store).
func As[T any](v any) (T, bool) {
	for v != nil {
		if t, ok := v.(T); ok {
			return t, true
		}
		switch u := v.(type) {
		case interface{ Unwrap() Blob }:
			v = u.Unwrap()
		case interface{ Unwrap() Store }:
			v = u.Unwrap()
		default:
			v = nil
		}
	}
	var none T
	return none, false
}
