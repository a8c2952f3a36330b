package s3

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/upload"
)

// tokenLen is the length of rand.Text.
const tokenLen = 26

// maxFiles is how many parts of one upload are in files at a time: one is sent while
// the next is filled.
const maxFiles = 2

// writer is an upload under way. Parts are sent while the next ones are written; what
// fits into one part goes out by one PUT at Commit.
type writer struct {
	upload.Frame
	s     *Store
	wire  context.Context // of requests that are under way, which outlive Ctx by abortGrace
	cut   context.CancelCauseFunc
	t     target
	key   string // without the prefix
	claim claim

	filling *part
	parts   int32 // sent, or on their way
	held    int64 // memory of the parts that are not delivered yet, bytes
	files   int
	sending int
	results chan result
	failed  []*part
	tags    []types.CompletedPart
}

// result is what became of a part that was sent.
type result struct {
	p    *part
	etag string
	err  error
}

// Begin implements backends.Store. An object that may not fit into one part is made
// known to the server, so that the claim names the upload.
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
	if size > maxObject {
		return nil, fmt.Errorf("%w: an object has at most 5 TiB", backends.ErrFull)
	}
	w := &writer{s: s, t: s.own(key), key: key, results: make(chan result, maxMemory/minPart)}
	w.claim = claim{bucket: w.t.bucket, key: w.t.key, token: rand.Text()}
	if err := s.makeBucket(ctx); err != nil {
		return nil, err
	}
	if _, err := s.look(ctx, w.t); err == nil {
		return nil, backends.ErrExists
	} else if !errors.Is(err, backends.ErrNotFound) {
		return nil, err
	}
	if size < 0 || size > int64(s.cfg.PartSize) {
		out, err := s.client.CreateMultipartUpload(ctx, &awss3.CreateMultipartUploadInput{Bucket: &w.t.bucket, Key: &w.t.key, Metadata: w.metadata()})
		if err != nil {
			return nil, explain(ctx, "begin an upload in parts", err)
		}
		if w.claim.upload = aws.ToString(out.UploadId); w.claim.upload == "" {
			return nil, fmt.Errorf("%w: the server names no upload", backends.ErrUnavailable)
		}
	}
	w.Frame = upload.New(ctx, size, w.explain)
	w.wire, w.cut = context.WithCancelCause(context.WithoutCancel(ctx))
	return w, nil
}

func (w *writer) metadata() map[string]string { return map[string]string{tokenKey: w.claim.token} }

// makeBucket makes the bucket if it is to be made and is not there.
func (s *Store) makeBucket(ctx context.Context) error {
	s.mu.Lock()
	made := s.made
	s.mu.Unlock()
	if !s.cfg.CreateBucket || made {
		return nil
	}
	_, err := s.client.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: &s.cfg.Bucket})
	if err = explain(ctx, "look at the bucket", err); errors.Is(err, backends.ErrNotFound) {
		in := &awss3.CreateBucketInput{Bucket: &s.cfg.Bucket}
		if s.cfg.Region != "us-east-1" { // which must not be said (CreateBucket, "LocationConstraint")
			in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(s.cfg.Region)}
		}
		_, err = s.client.CreateBucket(ctx, in)
		if mine := (*types.BucketAlreadyOwnedByYou)(nil); errors.As(err, &mine) {
			err = nil
		}
		err = explain(ctx, "make the bucket", err)
	}
	if err == nil {
		s.mu.Lock()
		s.made = true
		s.mu.Unlock()
	}
	return err
}

// Claim implements backends.Writer.
func (w *writer) Claim() backends.Claim { return w.claim.text() }

// Write implements io.Writer. It waits where parts are written faster than they are
// delivered.
func (w *writer) Write(p []byte) (int, error) { return w.Frame.Write(p, w.write) }

func (w *writer) write(p []byte) error {
	if int64(len(p)) > maxObject-w.N {
		return fmt.Errorf("%w: an object has at most 5 TiB", backends.ErrFull)
	}
	for len(p) > 0 {
		if w.filling != nil && w.filling.full() {
			w.send(w.filling)
			w.filling = nil
		}
		if w.filling == nil {
			if err := w.next(); err != nil {
				return err
			}
		}
		n, err := w.filling.write(p)
		if err != nil {
			return err
		}
		p = p[n:]
		w.N += int64(n)
	}
	return nil
}

// next begins a part: in memory where there is room for it, as soon as there is; in a
// file where it is too large for that, or others have the memory.
func (w *writer) next() error {
	most := partLen(int64(w.s.cfg.PartSize), w.Size, w.N)
	if w.s.cfg.parts != nil {
		most = w.s.cfg.parts(int(w.parts)+1, w.N)
	}
	if w.Size >= 0 {
		most = min(most, w.Size-w.N)
	}
	p := &part{number: w.parts + 1, most: most}
	for {
		if most <= maxMemory-w.held && w.s.memory.take(most) {
			w.held += most
			break
		}
		if (w.sending == 0 || most > maxMemory) && w.files < maxFiles {
			var err error
			if p.file, err = newFile(w.s.cfg.UploadSpool); err != nil {
				return err
			}
			w.files++
			break
		}
		if err := w.collect(w.Ctx); err != nil {
			return err
		}
	}
	w.parts++
	w.filling = p
	return nil
}

// send sends a part, and keeps it until it is delivered.
func (w *writer) send(p *part) {
	w.sending++
	go func() {
		r := result{p: p}
		r.err = w.s.sending.Do(w.Ctx, func(context.Context, int) error {
			out, err := w.s.client.UploadPart(w.wire, &awss3.UploadPartInput{Bucket: &w.t.bucket, Key: &w.t.key, UploadId: &w.claim.upload,
				PartNumber: &p.number, ContentLength: &p.n, Body: p.body()})
			if err != nil {
				return explain(w.wire, fmt.Sprintf("send part %d", p.number), err)
			}
			r.etag = aws.ToString(out.ETag)
			return nil
		})
		w.results <- r
	}()
}

// collect waits for one of the parts that are being sent.
func (w *writer) collect(ctx context.Context) error {
	select {
	case r := <-w.results:
		w.sending--
		if r.err != nil {
			w.failed = append(w.failed, r.p)
			return r.err
		}
		w.drop(r.p, true)
		w.tags = append(w.tags, types.CompletedPart{ETag: &r.etag, PartNumber: &r.p.number})
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// drop gives back what a part holds.
func (w *writer) drop(p *part, delivered bool) {
	if p.file != nil {
		w.files--
	} else {
		w.held -= p.most
		w.s.memory.give(p.most)
	}
	p.release(delivered)
}

// Commit implements backends.Writer. Parts that were not delivered are sent again.
func (w *writer) Commit(ctx context.Context) (backends.Location, error) {
	return w.Frame.Commit(ctx, w.commit)
}

func (w *writer) commit(ctx context.Context) (backends.Location, error) {
	none := backends.Location{}
	small := w.parts == 0 || w.parts == 1 && w.filling != nil
	if !small {
		if err := w.deliver(ctx); err != nil {
			return none, err
		}
	}
	h, err := w.publish(ctx, small)
	if err != nil {
		return none, err
	}
	if small {
		// Only now: the claim holds until nothing is left of the upload in parts.
		if err := w.s.abortUpload(ctx, w.t, w.claim.upload); err != nil {
			return none, err
		}
	}
	if w.filling != nil {
		w.drop(w.filling, true)
		w.filling = nil
	}
	w.cut(nil)
	return w.s.locate(w.key, h), nil
}

// deliver sends what is not sent yet, and waits for it all.
func (w *writer) deliver(ctx context.Context) error {
	again := w.failed
	w.failed = nil
	if w.filling != nil {
		again = append(again, w.filling)
		w.filling = nil
	}
	for _, p := range again {
		w.send(p)
	}
	var errs []error
	for w.sending > 0 {
		err := w.collect(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// publish makes the object, unless there is one under its key, and is what the server
// then says of it. Of an earlier call that did its work, it finds that.
func (w *writer) publish(ctx context.Context, small bool) (head, error) {
	unlock, err := changing.Lock(ctx, w.t.place)
	if err != nil {
		return head{}, err
	}
	defer unlock()
	return upload.Once(ctx, w.mine, func(ctx context.Context) error {
		if small {
			return w.put(ctx)
		}
		return w.complete(ctx)
	}, errCondition)
}

// mine is the head of the object under the upload's key, if it is the upload's. That
// of another one is ErrExists.
func (w *writer) mine(ctx context.Context) (head, error) {
	h, err := w.s.look(ctx, w.t)
	switch {
	case err != nil:
		return h, err
	case h.token != w.claim.token:
		return h, backends.ErrExists
	case h.size != w.N:
		return h, fmt.Errorf("the server stored %d of %d bytes", h.size, w.N)
	}
	return h, nil
}

// put makes an object of what fits into one part.
func (w *writer) put(ctx context.Context) error {
	p := w.filling
	if p == nil {
		p = &part{}
	}
	_, err := w.s.client.PutObject(ctx, &awss3.PutObjectInput{Bucket: &w.t.bucket, Key: &w.t.key, IfNoneMatch: aws.String("*"),
		ContentLength: &p.n, Body: p.body(), Metadata: w.metadata()})
	return explain(ctx, "write "+w.t.key, err)
}

// complete makes an object of the parts.
func (w *writer) complete(ctx context.Context) error {
	slices.SortFunc(w.tags, func(a, b types.CompletedPart) int { return int(*a.PartNumber - *b.PartNumber) })
	_, err := w.s.slow.CompleteMultipartUpload(ctx, &awss3.CompleteMultipartUploadInput{Bucket: &w.t.bucket, Key: &w.t.key, UploadId: &w.claim.upload,
		IfNoneMatch: aws.String("*"), MultipartUpload: &types.CompletedMultipartUpload{Parts: w.tags}})
	err = explain(ctx, "put "+w.t.key+" together", err)
	if !errors.Is(err, errNoUpload) {
		return err
	}
	// Completed by an earlier call, or aborted.
	if _, there := w.mine(ctx); !errors.Is(there, backends.ErrNotFound) {
		return there
	}
	return fmt.Errorf("%w: the upload was abandoned: %w", backends.ErrNotFound, err)
}

// abortGrace is how long Abort waits for parts that are on their way. A server may
// take one in whose request was cut off, though the upload was aborted meanwhile.
const abortGrace = 5 * time.Second

// Abort implements backends.Writer.
func (w *writer) Abort(ctx context.Context) error {
	w.Frame.Abort()
	grace := time.AfterFunc(abortGrace, func() { w.cut(upload.ErrAborted) })
	for ; w.sending > 0; w.sending-- {
		r := <-w.results
		w.failed = append(w.failed, r.p)
	}
	grace.Stop()
	w.cut(upload.ErrAborted)
	if w.filling != nil {
		w.failed = append(w.failed, w.filling)
	}
	for _, p := range w.failed {
		w.drop(p, false)
	}
	w.failed, w.filling = nil, nil
	return w.s.Abandon(ctx, w.Claim())
}

func (w *writer) explain(err error) error {
	return w.s.wrap(fmt.Sprintf("write %q into", w.key), err)
}
