// Package backends is the contract for places that keep image bytes: a Store
// takes a stream in under a key and hands it back as stored.Bytes that can be read
// at any offset. It knows nothing of images, formats or protocols.
//
// Vocabulary: a key is the name under which a caller stores bytes (glanced uses
// the image id); a Location is what the catalog records, and all a store needs
// to find the bytes again.
package backends

import (
	"context"
	"errors"
	"io"

	"glanced/backends/stored"
)

// Sentinels of the contract. Implementations wrap them with what was tried, so
// that errors.Is tells the kind and the text tells the story.
var (
	ErrNotFound    = stored.ErrNotFound
	ErrExists      = errors.New("the store already holds an object under this key")
	ErrFull        = errors.New("the store is full")
	ErrReadOnly    = errors.New("the store cannot be written")
	ErrUnavailable = stored.ErrUnavailable // a retry may help
	ErrChanged     = stored.ErrChanged
	ErrBadLocation = errors.New("not a location of this store")
	ErrRange       = stored.ErrRange
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
	// Open makes an object readable; the caller closes it.
	Open(ctx context.Context, loc Location) (stored.Bytes, error)
	// Delete removes an object; ErrNotFound when there is none. What is open of it
	// may go on reading or fail with ErrChanged or ErrNotFound, never with other bytes.
	Delete(ctx context.Context, loc Location) error
	Usage(ctx context.Context) (Usage, error)
	Close() error
}

// Locator is the ability of a Store to say where a key would lie without asking
// it. Sweeping after a crash needs it: the location of a Put that never returned.
type Locator interface {
	Locate(key string) Location
}

// As finds an ability in s or in what s wraps (through an Unwrap() Store).
func As[T any](s Store) (ability T, ok bool) {
	for s != nil {
		if ability, ok = s.(T); ok {
			return ability, true
		}
		w, wraps := s.(interface{ Unwrap() Store })
		if !wraps {
			break
		}
		s = w.Unwrap()
	}
	return ability, false
}
