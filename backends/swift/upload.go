package swift

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/retry"
	"glanced/backends/upload"
)

const (
	// smallSize is what is kept of an upload, so that an object of that size is sent in
	// one request that can be repeated, bytes.
	smallSize = 1 << 20
	// listTime is how long a listing may take to show what was written.
	listTime = 30 * time.Second
	// never is a pause longer than anybody repeats something.
	never = 24 * time.Hour
)

// writer is an upload under way: first all of it is in small, then it goes out as one
// object, or as segments one after the other.
type writer struct {
	upload.Frame
	s     *Store
	p     place
	claim claim

	small  []byte
	plain  *stream // one object, of which the last byte is sent by Commit
	last   []byte  // that byte
	failed error   // of plain: what was sent is lost

	segments []part
	segment  *stream // under way
	begun    int
}

// Begin implements backends.Store. Nothing is sent before the first bytes.
func (s *Store) Begin(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w, err := s.begin(ctx, key, size)
	if err != nil {
		return nil, s.wrap(fmt.Sprintf("begin to write %q into", overhttp.Clip(key)), err)
	}
	return w, nil
}

func (s *Store) begin(ctx context.Context, key string, size int64) (*writer, error) {
	if err := checkKey(key); err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrBadLocation, err)
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if size > maxSegments*int64(s.cfg.ChunkSize) {
		return nil, s.tooLarge()
	}
	if err := s.makeContainer(ctx); err != nil {
		return nil, err
	}
	w := &writer{s: s, p: place{account: s.own, container: s.cfg.Container, name: key}}
	w.claim = claim{s.cfg.Container, key, rand.Text()}
	_, _, err := w.p.ask(ctx, "look at "+key, request{method: http.MethodHead, query: "multipart-manifest=get"})
	switch {
	case err == nil:
		return nil, backends.ErrExists
	case !errors.Is(err, backends.ErrNotFound):
		return nil, err
	}
	w.Frame = upload.New(ctx, size, w.explain)
	return w, nil
}

func (s *Store) tooLarge() error {
	return fmt.Errorf("%w: an object has at most %d segments of %d bytes: raise large_object_chunk_size", backends.ErrFull, maxSegments, int64(s.cfg.ChunkSize))
}

// Claim implements backends.Writer.
func (w *writer) Claim() backends.Claim { return w.claim.text() }

// Write implements io.Writer.
func (w *writer) Write(p []byte) (int, error) {
	return w.Frame.Write(p, func(p []byte) error {
		err := w.write(p)
		if errors.Is(err, errCondition) {
			return backends.ErrExists
		}
		return err
	})
}

func (w *writer) write(p []byte) error {
	w.N += int64(len(p))
	if w.plain == nil && w.begun == 0 {
		if w.N < w.limit() {
			w.small = append(w.small, p...)
			return nil
		}
		p = append(w.small, p...)
		w.small = nil
	}
	if w.Size >= 0 && w.Size < int64(w.s.cfg.LargeObjectSize) {
		return w.writePlain(p)
	}
	return w.writeSegments(p)
}

// limit is the size from which on an object is sent while it is written.
func (w *writer) limit() int64 { return min(smallSize, int64(w.s.cfg.LargeObjectSize)) }

// writePlain sends all but the last byte that was announced: without it there is no
// object.
func (w *writer) writePlain(p []byte) (err error) {
	if w.plain == nil {
		if w.plain, err = newStream(w.Ctx, w.p, w.Size, w.header()); err != nil {
			return err
		}
	}
	if w.N == w.Size && len(p) > 0 {
		w.last = []byte{p[len(p)-1]}
		p = p[:len(p)-1]
	}
	return w.plain.write(p)
}

// header is that of the object under the key.
func (w *writer) header() http.Header {
	return http.Header{"If-None-Match": {"*"}, tokenHeader: {w.claim.token}, "Content-Type": {"application/octet-stream"}}
}

func (w *writer) writeSegments(p []byte) (err error) {
	for len(p) > 0 {
		if w.segment == nil {
			if w.begun == maxSegments {
				return w.s.tooLarge()
			}
			to := w.p.in(w.p.container, w.claim.segment(w.begun+1))
			if w.segment, err = newStream(w.Ctx, to, -1, http.Header{"Content-Type": {"application/octet-stream"}}); err != nil {
				return err
			}
			w.begun++
		}
		n := min(int64(len(p)), int64(w.s.cfg.ChunkSize)-w.segment.n)
		if err := w.segment.write(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		if w.segment.n == int64(w.s.cfg.ChunkSize) {
			if err := w.endSegment(w.Ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// endSegment has the server keep the segment under way. Where its answer is lost, the
// segment is looked at.
func (w *writer) endSegment(ctx context.Context) error {
	if w.segment == nil {
		return nil
	}
	if err := w.segment.finish(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !w.segment.stored(ctx) {
			return lost(err)
		}
	}
	w.segments = append(w.segments, part{w.segment.p.container, w.segment.p.name, w.segment.n, w.segment.tag()})
	w.segment = nil
	return nil
}

// lost is err of bytes that are not kept: no other attempt at the same can succeed.
func lost(err error) error {
	return retry.After(fmt.Errorf("%w; it has to be sent again from its beginning", err), never)
}

// Commit implements backends.Writer.
func (w *writer) Commit(ctx context.Context) (backends.Location, error) {
	return w.Frame.Commit(ctx, w.commit)
}

func (w *writer) commit(ctx context.Context) (backends.Location, error) {
	none := backends.Location{}
	if err := w.endSegment(ctx); err != nil {
		return none, err
	}
	if len(w.segments) > 0 {
		if err := w.awaitListing(ctx); err != nil {
			return none, err
		}
	}
	unlock, err := changing.Lock(ctx, w.p.lockName())
	if err != nil {
		return none, err
	}
	defer unlock()
	f, err := upload.Once(ctx, w.mine, w.publish, errCondition)
	if err != nil {
		return none, err
	}
	w.small = nil
	return w.s.locate(w.p.name, f), nil
}

// awaitListing waits until the listing shows the segments, which Swift brings up to date
// some time after it has them.
func (w *writer) awaitListing(ctx context.Context) error {
	end := time.Now().Add(w.s.cfg.listWait)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		listed, err := list(ctx, w.p.in(w.p.container, ""), w.claim.prefix())
		if err != nil {
			return err
		}
		if digest(listed) == digest(w.segments) {
			return nil
		}
		if time.Until(end) < pause {
			return fmt.Errorf("%w: after %v the listing of the container does not show all segments as they were written", backends.ErrUnavailable, w.s.cfg.listWait)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// publish makes the object under the key.
func (w *writer) publish(ctx context.Context) error {
	if w.plain != nil {
		return w.publishPlain(ctx)
	}
	header, body := w.header(), w.small
	if len(w.segments) > 0 {
		header.Set("X-Object-Manifest", manifestOf(w.claim.container, w.claim.prefix()))
		body = nil
	}
	sum := md5.Sum(body)
	header.Set("Etag", hex.EncodeToString(sum[:]))
	_, _, err := w.p.ask(ctx, "write "+w.p.name, request{method: http.MethodPut, header: header, body: body})
	return err
}

func (w *writer) publishPlain(ctx context.Context) error {
	if w.failed != nil {
		return w.failed
	}
	err := w.plain.write(w.last)
	w.last = nil
	if err == nil {
		err = w.plain.finish(ctx)
	}
	if err == nil || errors.Is(err, errCondition) || ctx.Err() != nil {
		return err
	}
	if w.plain.stored(ctx) { // only the answer was lost
		return nil
	}
	w.failed = lost(err)
	return w.failed
}

// mine is the object under the upload's key, if it is the upload's. That of another one
// is ErrExists.
func (w *writer) mine(ctx context.Context) (found, error) {
	f, err := look(ctx, w.p)
	switch {
	case err != nil:
		return f, err
	case f.token != w.claim.token:
		return f, backends.ErrExists
	case w.plain != nil && f.version != w.plain.tag():
		return f, fmt.Errorf("the server stored other bytes than were sent")
	case f.size != w.N || len(w.segments) > 0 && digest(f.segments) != digest(w.segments):
		return f, fmt.Errorf("%w: the server shows %d of %d bytes, or other segments", backends.ErrUnavailable, f.size, w.N)
	}
	return f, nil
}

// Abort implements backends.Writer.
func (w *writer) Abort(ctx context.Context) error {
	w.Frame.Abort()
	w.small = nil
	for _, st := range []*stream{w.plain, w.segment} {
		if st != nil {
			st.cut()
		}
	}
	return w.s.wrap("clean up after an upload to", w.s.abandon(ctx, w.Claim(), w.begun))
}

func (w *writer) explain(err error) error {
	return w.s.wrap(fmt.Sprintf("write %q into", w.p.name), err)
}
