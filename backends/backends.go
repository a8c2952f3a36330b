// Package backends is the contract for places that keep image bytes: a Store
// takes a stream in under a key and hands it back as stored.Bytes that can be read
// at any offset. It knows nothing of images, formats or protocols.
//
// Vocabulary. Key: the name under which a caller stores bytes (glanced uses the
// image id). Location: what the catalog records of an object, and all a store needs
// to find the bytes again, and to know them again. Version: which state of the bytes
// under a location; a store makes it of what it has (a fingerprint, an ETag).
// Claim: what an upload under way holds in the store. The catalog records it
// before the first byte, so that whoever finds the record after a crash can remove
// what the upload left, and nothing else.
//
// An upload's life: Begin; Claim is put on record; Write, as often as needed;
// Commit, which makes the object durable and then visible. Whatever fails on the
// way: Abort, or after a crash Abandon with the claim from the record.
package backends

import (
	"context"
	"errors"
	"fmt"
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
	ErrDenied      = stored.ErrDenied      // its credentials are wrong, or lack a right
	ErrChanged     = stored.ErrChanged
	ErrForeign     = errors.New("the bytes belong to somebody else") // and stay where they are
	ErrInUse       = errors.New("the object is in use in the store") // by another object, or by who has it attached
	ErrBadLocation = errors.New("not a location of this store")
	ErrRange       = stored.ErrRange
	ErrShort       = errors.New("the body ended before its announced size")
	ErrLong        = errors.New("the body is longer than its announced size")
)

// Location says where one object lies, and which bytes it is of: the URL is in
// Glance's spelling for the kind of store (file:///dir/id, swift+https://…,
// rbd://…). It may hold credentials, so it is never logged and never shown without
// a policy check.
type Location struct {
	Store   string // id of the configured store
	URL     string
	Size    int64  // bytes; -1 = not recorded
	Version string // which state of the bytes; "" = not recorded
}

// Check is nil where the object that a store has at l, of this size and version,
// can be the recorded one. Elsewhere it is an ErrChanged that says what was
// expected. What is not recorded fits.
func (l Location) Check(size int64, version string) error {
	if l.Size >= 0 && l.Size != size {
		return fmt.Errorf("%w: %d bytes are recorded, there are %d", ErrChanged, l.Size, size)
	}
	if l.Version != "" && l.Version != version {
		return fmt.Errorf("%w: version %q is recorded, there is %q", ErrChanged, l.Version, version)
	}
	return nil
}

// Claim is all that a store needs to remove what one upload left there. It is
// opaque, printable text of a few hundred bytes, and holds no secrets. No two
// uploads have the same one, those of one key neither.
type Claim string

// Usage is what a store holds and could hold, in bytes; Total and Free are -1
// where the store cannot tell.
type Usage struct {
	Total, Free int64
}

// Store keeps objects. All methods are safe for concurrent use, also by several
// processes over one place.
type Store interface {
	// Begin begins an upload of an object of size bytes, -1 = unknown; the caller
	// ends the Writer. ctx bounds all of the writing. ErrExists, ErrReadOnly, ErrDenied,
	// ErrBadLocation (the key cannot be one), ErrFull (as far as it is known in
	// advance). What a Begin leaves whose claim was never recorded, because the
	// process died in between, is for the store itself to clear away.
	Begin(ctx context.Context, key string, size int64) (Writer, error)
	// Abandon removes, durably, what the upload of this claim left, committed or
	// not, and nothing else: a later object under the same key stays. Nothing there
	// is no error. It may be repeated, by another process, after a restart. The
	// upload's own Writer, should it still be in use, is to be aborted too: what it
	// writes after the Abandon may be there again. ErrBadLocation: not a claim of
	// this store.
	Abandon(ctx context.Context, claim Claim) error
	// Stat is loc, completed by the size and version that the object has now; the
	// version stays "" in a store that has none. ErrNotFound, ErrBadLocation, ErrDenied,
	// ErrChanged where loc records others.
	Stat(ctx context.Context, loc Location) (Location, error)
	// Open makes an object readable; the caller closes it. Errors as for Stat.
	Open(ctx context.Context, loc Location) (stored.Bytes, error)
	// Delete removes an object, durably. ErrNotFound, ErrInUse, ErrReadOnly, ErrDenied,
	// ErrBadLocation, and ErrChanged where loc records another size or version than
	// the object has: nothing is deleted then. A store of objects that others keep
	// says ErrForeign to each: the bytes stay, and the location can be forgotten. What
	// is open of it may go on reading or fail with ErrChanged or ErrNotFound, never
	// with other bytes.
	Delete(ctx context.Context, loc Location) error
	Usage(ctx context.Context) (Usage, error)
	Close() error
}

// Writer is one upload under way. It is for one goroutine, and ends with a Commit
// that succeeds or with Abort.
type Writer interface {
	// Write takes the next bytes. It fails with ErrLong beyond the announced size,
	// with the cause of ctx where Begin's has ended, with ErrFull, ErrUnavailable. After
	// an error there is only Abort.
	io.Writer
	// Claim is the same from Begin on. The caller records it before the first Write.
	Claim() Claim
	// Commit makes the object durable, then visible, and says where it is, its size
	// and its version. ErrShort below the announced size, ErrExists where another
	// upload of the key came first. After an error it may be called again, also
	// where the first call did its work and only its answer was lost; every call that
	// succeeds says the same.
	Commit(ctx context.Context) (Location, error)
	// Abort is Abandon of the Writer's own claim, also after Commit. It may be
	// repeated.
	Abort(ctx context.Context) error
}

// copyLen is how many bytes Copy reads before it writes.
const copyLen = 128 << 10

// Copy writes all of r to w and says how many bytes that was. Where size is not
// -1, a body of another length is ErrShort or ErrLong. It neither commits nor
// aborts.
func Copy(w Writer, r io.Reader, size int64) (int64, error) {
	buf := make([]byte, copyLen)
	var n int64
	for {
		got, err := fill(r, buf)
		if err != nil && err != io.EOF {
			return n, fmt.Errorf("read the body at byte %d: %w", n+int64(got), err)
		}
		if size >= 0 && n+int64(got) > size {
			return n, fmt.Errorf("%w: %d bytes were announced", ErrLong, size)
		}
		if got > 0 {
			if _, err := w.Write(buf[:got]); err != nil {
				return n, err
			}
			n += int64(got)
		}
		if err == io.EOF {
			break
		}
	}
	if n < size {
		return n, fmt.Errorf("%w: got %d of %d bytes", ErrShort, n, size)
	}
	return n, nil
}

// fill reads until buf is full, or r ends (io.EOF) or fails. It is not
// io.ReadFull because that one's io.ErrUnexpectedEOF means a good end, and an
// HTTP body's means that the client is gone.
func fill(r io.Reader, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
