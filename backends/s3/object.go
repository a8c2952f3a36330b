package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/stored"
)

// tokenKey is the key of the metadata that says by which claim an object was written.
const tokenKey = "glanced-claim"

// head is what a server says of an object.
type head struct {
	size  int64
	etag  string // without quotes
	token string // "" = not written by this package
}

// look asks for an object's head. A bucket that is not there is ErrUnavailable and
// not ErrNotFound: the answer to HEAD does not tell the two apart, and what is not
// found is forgotten.
func (s *Store) look(ctx context.Context, t target) (head, error) {
	out, err := t.api.HeadObject(ctx, &awss3.HeadObjectInput{Bucket: &t.bucket, Key: &t.key})
	if err = explain(ctx, "look at "+t.key, err); errors.Is(err, backends.ErrNotFound) {
		if _, gone := t.api.HeadBucket(ctx, &awss3.HeadBucketInput{Bucket: &t.bucket}); gone != nil {
			if gone = explain(ctx, "look at the bucket", gone); errors.Is(gone, backends.ErrNotFound) {
				return head{}, fmt.Errorf("%w: %s", backends.ErrUnavailable, advice["NoSuchBucket"])
			}
			return head{}, gone
		}
	}
	if err != nil {
		return head{}, err
	}
	h := head{aws.ToInt64(out.ContentLength), bareTag(out.ETag), out.Metadata[tokenKey]}
	if h.etag == "" || out.ContentLength == nil {
		return head{}, fmt.Errorf("%w: %s: the server tells no ETag, or no size", backends.ErrUnavailable, t.key)
	}
	return h, nil
}

func bareTag(etag *string) string { return strings.Trim(aws.ToString(etag), `"`) }

func quoted(etag string) *string { return aws.String(`"` + etag + `"`) }

// find looks at the object of a location, and checks that it is what the location
// records.
func (s *Store) find(ctx context.Context, loc backends.Location) (target, head, error) {
	t, err := s.target(loc)
	if err != nil {
		return t, head{}, err
	}
	if ctx.Err() != nil {
		return t, head{}, context.Cause(ctx)
	}
	h, err := s.look(ctx, t)
	if err == nil {
		err = loc.Check(h.size, h.etag)
	}
	return t, h, err
}

// Stat implements backends.Store. The version is the object's ETag.
func (s *Store) Stat(ctx context.Context, loc backends.Location) (backends.Location, error) {
	_, h, err := s.find(ctx, loc)
	if err != nil {
		return backends.Location{}, s.wrap("look at an object of", err)
	}
	loc.Size, loc.Version = h.size, h.etag
	return loc, nil
}

// Open implements backends.Store. The bytes' identity is made of the store's id, where
// the object lies, and its ETag.
func (s *Store) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	t, h, err := s.find(ctx, loc)
	if err != nil {
		return nil, s.wrap("open an object of", err)
	}
	return &object{s, t, h, stored.NewIdentity(s.cfg.ID, t.place, h.etag)}, nil
}

// Delete implements backends.Store.
func (s *Store) Delete(ctx context.Context, loc backends.Location) error {
	return s.wrap("delete an object of", s.delete(ctx, loc))
}

func (s *Store) delete(ctx context.Context, loc backends.Location) error {
	if err := s.writable(); err != nil {
		return err
	}
	t, err := s.target(loc)
	if err != nil {
		return err
	}
	unlock, err := changing.Lock(ctx, t.place)
	if err != nil {
		return err
	}
	defer unlock()
	_, h, err := s.find(ctx, loc)
	if err != nil {
		return err
	}
	return s.remove(ctx, t, h)
}

// remove deletes the object that was looked at, under the lock on its place. The
// condition is for what other processes do; a server may not know it.
func (s *Store) remove(ctx context.Context, t target, h head) error {
	_, err := t.api.DeleteObject(ctx, &awss3.DeleteObjectInput{Bucket: &t.bucket, Key: &t.key, IfMatch: quoted(h.etag)})
	if err = explain(ctx, "delete "+t.key, err); errors.Is(err, errCondition) {
		return fmt.Errorf("%w: it was overwritten just now", backends.ErrChanged)
	}
	return err
}

// object is an open object.
type object struct {
	s        *Store
	t        target
	h        head
	identity stored.Identity
}

// Size implements stored.Bytes.
func (o *object) Size() int64 { return o.h.size }

// Identity implements stored.Bytes.
func (o *object) Identity() stored.Identity { return o.identity }

// Close implements stored.Bytes.
func (o *object) Close() error { return nil }

// ReadAt implements stored.Bytes by one request.
func (o *object) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := stored.Inside(o, off, int64(len(p))); err != nil {
		return o.s.wrap("read from", err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if len(p) == 0 {
		return nil
	}
	if err := o.read(ctx, p, off); err != nil {
		return o.s.wrap("read from", err)
	}
	return nil
}

func (o *object) read(ctx context.Context, p []byte, off int64) error {
	doing := fmt.Sprintf("read %d bytes at %d of %s", len(p), off, o.t.key)
	out, err := o.t.api.GetObject(ctx, &awss3.GetObjectInput{
		Bucket: &o.t.bucket, Key: &o.t.key, IfMatch: quoted(o.h.etag),
		Range: aws.String(fmt.Sprintf("bytes=%d-%d", off, off+int64(len(p))-1)),
	})
	if err = explain(ctx, doing, err); err != nil {
		if errors.Is(err, errCondition) {
			return fmt.Errorf("%w (%w)", backends.ErrChanged, err)
		}
		return err
	}
	defer out.Body.Close()
	if err := o.check(out, off, int64(len(p))); err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if n, err := io.ReadFull(out.Body, p); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %w", doing, context.Cause(ctx))
		}
		return fmt.Errorf("%s: %w: the answer ended after %d bytes: %s", doing, backends.ErrUnavailable, n, bare(err))
	}
	return nil
}

// check holds an answer against the question. A server or a proxy that does not heed
// the condition is caught by the ETag and the size; one that does not heed the range,
// by the range.
func (o *object) check(out *awss3.GetObjectOutput, off, n int64) error {
	if etag := bareTag(out.ETag); etag != o.h.etag {
		return fmt.Errorf("%w: version %q was opened, there is %q", backends.ErrChanged, o.h.etag, etag)
	}
	if err := overhttp.CheckRange(aws.ToString(out.ContentRange), off, n, o.h.size); err != nil {
		return err
	}
	if out.ContentLength == nil || *out.ContentLength != n {
		return fmt.Errorf("%w: the answer announces %d bytes", backends.ErrUnavailable, aws.ToInt64(out.ContentLength))
	}
	return nil
}
