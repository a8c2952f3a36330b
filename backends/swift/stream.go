package swift

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"

	"glanced/backends"
	"glanced/backends/upload"
)

// stream is one object that is sent while it is written. It is the server's when finish
// has succeeded; a stream that is cut leaves nothing.
type stream struct {
	p      place
	watch  *watch
	pipe   *io.PipeWriter
	sum    hash.Hash
	n      int64
	answer chan answer // of one
	got    *answer     // nil = not yet
}

type answer struct {
	etag string
	err  error
}

// newStream begins to send an object of size bytes, -1 = unknown. Its answer is not
// waited for before finish.
func newStream(ctx context.Context, p place, size int64, header http.Header) (*stream, error) {
	at, err := p.fresh(ctx)
	if err != nil {
		return nil, err
	}
	out, in := io.Pipe()
	st := &stream{p: p, watch: newWatch(ctx, p.account.s.cfg.stall), pipe: in, sum: md5.New(), answer: make(chan answer, 1)}
	st.watch.rest()
	req, err := http.NewRequestWithContext(st.watch.ctx, http.MethodPut, p.url(at, ""), out)
	if err != nil {
		st.watch.stop()
		return nil, fmt.Errorf("%w: it has no URL", backends.ErrBadLocation)
	}
	req.ContentLength = size
	req.Header = header.Clone()
	go func() {
		var a answer
		a.etag, a.err = st.send(ctx, req, at)
		out.CloseWithError(errors.New("it is answered")) // who writes on shall not wait
		st.answer <- a
	}()
	return st, nil
}

func (st *stream) send(ctx context.Context, req *http.Request, at session) (etag string, err error) {
	doing := "write " + st.p.name
	a := st.p.account
	got, err := a.send(a.s.sending, req, at)
	if err != nil {
		return "", failed(ctx, st.watch.ctx, doing, err)
	}
	if got.StatusCode == http.StatusUnauthorized { // the next upload gets another one
		got.Body.Close()
		a.mu.Lock()
		if a.last.token == at.token {
			a.last = session{}
		}
		a.mu.Unlock()
		return "", fmt.Errorf("%s: %w: the token has ended", doing, backends.ErrUnavailable)
	}
	if got.StatusCode != http.StatusCreated && got.StatusCode != http.StatusAccepted {
		return "", refused(doing, got)
	}
	defer got.Body.Close()
	return bareTag(got.Header), nil
}

// write sends p, in pieces of which each is a sign of life.
func (st *stream) write(p []byte) error {
	defer st.watch.rest()
	for len(p) > 0 {
		st.watch.moved()
		n, err := st.pipe.Write(p[:min(len(p), 64<<10)])
		st.sum.Write(p[:n])
		st.n += int64(n)
		if err != nil {
			if err := st.wait(context.Background()); err != nil {
				return err
			}
			return fmt.Errorf("write %s: %w: the server did not wait for all of it", st.p.name, backends.ErrUnavailable)
		}
		p = p[n:]
	}
	return nil
}

// finish ends the object and is nil when the server has all of it. It may be called again
// after ctx has ended.
func (st *stream) finish(ctx context.Context) error {
	st.watch.moved()
	st.pipe.Close()
	if err := st.wait(ctx); err != nil {
		return err
	}
	if st.got.etag != st.tag() {
		return fmt.Errorf("write %s: %w: the server stored other bytes than were sent", st.p.name, backends.ErrUnavailable)
	}
	return nil
}

// tag is the ETag of what was written.
func (st *stream) tag() string { return hex.EncodeToString(st.sum.Sum(nil)) }

func (st *stream) wait(ctx context.Context) error {
	if st.got == nil {
		select {
		case a := <-st.answer:
			st.got = &a
			st.watch.stop()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return st.got.err
}

// cut ends the connection in the middle, and returns when nothing more is sent.
func (st *stream) cut() {
	st.pipe.CloseWithError(upload.ErrAborted)
	st.watch.stop()
	st.wait(context.Background())
}

// stored tells whether the server has all of it in spite of what it answered.
func (st *stream) stored(ctx context.Context) bool {
	h, _, err := st.p.ask(ctx, "look at "+st.p.name, request{method: http.MethodHead})
	if err != nil {
		return false
	}
	size, err := strconv.ParseInt(h.Get("Content-Length"), 10, 64)
	return err == nil && size == st.n && bareTag(h) == st.tag()
}
