package swift

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"sync"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/stored"
)

// atOnce is how many segments one read asks for at a time.
const atOnce = 4

// Open implements backends.Store. The bytes' identity is made of the store's id, of where
// the object lies, and of its version.
func (s *Store) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	p, f, err := s.find(ctx, loc)
	if err != nil {
		return nil, s.wrap("open an object of", err)
	}
	where := p.account.host() + "\x00" + p.account.login.project + "\x00" + p.account.login.user + "\x00" + p.tenant + "\x00" + p.container + "/" + p.name
	o := &object{s: s, p: p, f: f, identity: stored.NewIdentity(s.cfg.ID, where, f.version)}
	var end int64
	for _, part := range f.parts {
		end += part.size
		o.ends = append(o.ends, end)
	}
	return o, nil
}

// object is an open object.
type object struct {
	s        *Store
	p        place
	f        found
	ends     []int64 // of the parts, from the beginning of the object
	identity stored.Identity
}

// Size implements stored.Bytes.
func (o *object) Size() int64 { return o.f.size }

// Identity implements stored.Bytes.
func (o *object) Identity() stored.Identity { return o.identity }

// Close implements stored.Bytes.
func (o *object) Close() error { return nil }

// piece is what one request asks for.
type piece struct {
	part part
	off  int64 // within the part
	p    []byte
}

// ReadAt implements stored.Bytes by one request for each part that has some of the bytes,
// a few at a time.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := stored.Inside(o, off, int64(len(p))); err != nil {
		return o.s.wrap("read from", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return o.s.wrap("read from", o.readAll(ctx, o.pieces(p, off)))
}

func (o *object) pieces(p []byte, off int64) (pieces []piece) {
	for i := sort.Search(len(o.ends), func(i int) bool { return o.ends[i] > off }); len(p) > 0; i++ {
		n := min(int64(len(p)), o.ends[i]-off)
		if n > 0 {
			pieces = append(pieces, piece{o.f.parts[i], off - (o.ends[i] - o.f.parts[i].size), p[:n]})
		}
		p, off = p[n:], off+n
	}
	return pieces
}

func (o *object) readAll(ctx context.Context, pieces []piece) error {
	if len(pieces) == 1 {
		return o.read(ctx, pieces[0])
	}
	group, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, one := range pieces {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if group.Err() != nil {
				return
			}
			if err := o.read(group, one); err != nil {
				cancel(err) // the first one is the cause
			}
		})
	}
	wg.Wait()
	if group.Err() != nil {
		return context.Cause(group)
	}
	return nil
}

func (o *object) read(ctx context.Context, r piece) error {
	n := int64(len(r.p))
	doing := fmt.Sprintf("read %d bytes at %d of %s", n, r.off, r.part.name)
	watch := newWatch(ctx, o.s.cfg.stall)
	defer watch.stop()
	answer, err := o.p.in(r.part.container, r.part.name).do(ctx, doing, watch, request{method: http.MethodGet, header: http.Header{
		"If-Match": {`"` + r.part.etag + `"`}, "Range": {fmt.Sprintf("bytes=%d-%d", r.off, r.off+n-1)}}})
	if errors.Is(err, errCondition) {
		return fmt.Errorf("%w (%w)", backends.ErrChanged, err)
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if err := r.check(answer); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if got, err := io.ReadFull(&moving{answer.Body, watch}, r.p); err != nil {
		return failed(ctx, watch.ctx, doing, fmt.Errorf("the answer ended after %d bytes: %w", got, err))
	}
	return nil
}

// check holds an answer against the question. A server or a proxy that does not heed
// the condition is caught by the ETag and the size; one that does not heed the range,
// by the range.
func (r piece) check(answer *http.Response) error {
	if etag := bareTag(answer.Header); etag != r.part.etag {
		return fmt.Errorf("%w: version %q was opened, there is %q", backends.ErrChanged, r.part.etag, overhttp.Clip(etag))
	}
	if answer.StatusCode != http.StatusPartialContent {
		return fmt.Errorf("%w: not a range was answered: %d", backends.ErrUnavailable, answer.StatusCode)
	}
	n := int64(len(r.p))
	if err := overhttp.CheckRange(answer.Header.Get("Content-Range"), r.off, n, r.part.size); err != nil {
		return err
	}
	if answer.ContentLength != n {
		return fmt.Errorf("%w: the answer announces %d bytes", backends.ErrUnavailable, answer.ContentLength)
	}
	return nil
}
