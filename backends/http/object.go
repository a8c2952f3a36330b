package http

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/stored"
)

// found is what a server says of an object before its bytes are read.
type found struct {
	url        *url.URL
	size       int64  // bytes; -1 = not known
	etag       string // strong; "" = none
	ranges     bool   // it is served in ranges
	validators string // see validators
}

// inPlace tells whether an object can be read where it is.
func (f found) inPlace() bool { return f.etag != "" && (f.ranges || f.size == 0) }

// Stat implements backends.Store. An object that cannot be read in place is fetched
// for it.
func (s *Store) Stat(ctx context.Context, loc backends.Location) (backends.Location, error) {
	b, version, err := s.open(ctx, loc)
	if err != nil {
		return backends.Location{}, fmt.Errorf("look at an object of http store %s: %w", s.id, err)
	}
	defer b.Close()
	loc.Size, loc.Version = b.Size(), version
	return loc, nil
}

// Open implements backends.Store. The bytes' identity is made of the store's id, the
// URL less its user and password, and the version.
func (s *Store) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	b, _, err := s.open(ctx, loc)
	if err != nil {
		return nil, fmt.Errorf("open an object of http store %s: %w", s.id, err)
	}
	return b, nil
}

func (s *Store) open(ctx context.Context, loc backends.Location) (stored.Bytes, string, error) {
	u, err := s.parse(loc)
	if err != nil {
		return nil, "", err
	}
	f, err := s.look(ctx, u)
	if err != nil {
		return nil, "", err
	}
	switch {
	case !f.inPlace() && f.etag != "" && f.etag == loc.Version:
		return nil, "", fmt.Errorf("%w: %s: the server no longer serves ranges of it", backends.ErrUnavailable, shown(u))
	case !f.inPlace() && !strings.HasPrefix(loc.Version, `"`), strings.HasPrefix(loc.Version, digest):
		// What was spooled when it was recorded is compared by its content, though it
		// could be read in place by now.
		return s.openSpooled(ctx, f, loc)
	}
	if err := loc.Check(f.size, f.etag); err != nil {
		return nil, "", fmt.Errorf("%s: %w", shown(u), err)
	}
	return &object{s: s, url: u, size: f.size, etag: f.etag, id: stored.NewIdentity(s.id, place(u), f.etag)}, f.etag, nil
}

// look asks for the first byte of an object, as there are servers that refuse HEAD,
// and others whose answer to it is not what a GET would say.
func (s *Store) look(ctx context.Context, u *url.URL) (found, error) {
	a, err := s.get(ctx, u, http.Header{"Range": {"bytes=0-0"}})
	if err != nil {
		return found{}, err
	}
	if a.StatusCode == http.StatusRequestedRangeNotSatisfiable { // an empty object has no first byte
		a.drain()
		a.Close()
		if a, err = s.get(ctx, u, nil); err != nil {
			return found{}, err
		}
	}
	defer a.Close()
	f := found{url: u, size: a.ContentLength}
	switch a.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		r, ok := overhttp.ParseContentRange(a.Header.Get("Content-Range"))
		if !ok || r.Start != 0 || r.End != 0 {
			return found{}, fmt.Errorf("%w: %s: asked for the first byte, the server sent %q", backends.ErrUnavailable, shown(u), overhttp.Clip(a.Header.Get("Content-Range")))
		}
		var first [1]byte
		if err := a.exactly(first[:]); err != nil {
			return found{}, fmt.Errorf("%s: %w", shown(u), err)
		}
		f.size, f.ranges = r.Total, r.Total > 0
	default:
		a.drain()
		return found{}, fmt.Errorf("%s: %w", shown(u), a.refusal())
	}
	if encoding(a.Header) == "" {
		f.etag = strongETag(a.Header)
	}
	f.validators = validators(a.Header)
	return f, nil
}

// object is an object that is read where it is.
type object struct {
	s    *Store
	url  *url.URL
	size int64
	etag string
	id   stored.Identity
}

var _ stored.Bytes = (*object)(nil)

func (o *object) Size() int64               { return o.size }
func (o *object) Identity() stored.Identity { return o.id }
func (o *object) Close() error              { return nil }

// ReadAt implements stored.Bytes: one GET of the range.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := stored.Inside(o, off, int64(len(p))); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	last := off + int64(len(p)) - 1
	a, err := o.s.get(ctx, o.url, http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", off, last)}, "If-Match": {o.etag}})
	if err != nil {
		return err
	}
	defer a.Close()
	err = o.check(a, off, last)
	if err == nil {
		err = a.exactly(p)
	}
	if err != nil {
		return fmt.Errorf("%s, bytes %d to %d: %w", shown(o.url), off, last, err)
	}
	return nil
}

// check sees that an answer is the range that was asked for, of the object that was
// opened.
func (o *object) check(a *answer, off, last int64) error {
	if a.StatusCode != http.StatusPartialContent && a.StatusCode != http.StatusOK {
		a.drain()
		return a.refusal()
	}
	if tag := strongETag(a.Header); tag != o.etag {
		return fmt.Errorf("%w: version %q was opened, there is %q", backends.ErrChanged, o.etag, tag)
	}
	if a.StatusCode == http.StatusOK {
		return fmt.Errorf("%w: the server sends the whole object, and no longer a range", backends.ErrUnavailable)
	}
	if err := overhttp.CheckRange(a.Header.Get("Content-Range"), off, last-off+1, o.size); err != nil {
		return err
	}
	if e := encoding(a.Header); e != "" {
		return fmt.Errorf("%w: the server sent the bytes encoded (%q)", backends.ErrUnavailable, overhttp.Clip(e))
	}
	return nil
}
