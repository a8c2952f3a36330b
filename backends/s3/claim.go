package s3

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"glanced/backends"
)

// claim is what a claim of this store says: the token that the object carries, and
// the id that the server gave to the upload in parts ("" = it is none).
type claim struct {
	bucket, key string // with the store's prefix
	token       string
	upload      string
}

// claimScheme begins a claim; what follows is written as the query of a URL is.
const claimScheme = "s3:1:"

func (c claim) text() backends.Claim {
	v := url.Values{"bucket": {c.bucket}, "key": {c.key}, "token": {c.token}}
	if c.upload != "" {
		v.Set("upload", c.upload)
	}
	return backends.Claim(claimScheme + v.Encode())
}

func parseClaim(text backends.Claim) (c claim, err error) {
	query, ok := strings.CutPrefix(string(text), claimScheme)
	if !ok {
		return c, errors.New("not a claim")
	}
	v, err := url.ParseQuery(query)
	if err != nil {
		return c, errors.New("not a claim")
	}
	c = claim{v.Get("bucket"), v.Get("key"), v.Get("token"), v.Get("upload")}
	if c.bucket == "" || c.key == "" || len(c.token) < tokenLen {
		return c, errors.New("the claim names no bucket, key or token")
	}
	return c, nil
}

// Abandon implements backends.Store. An upload that never got a part, and whose
// claim was lost with the process that began it, stays at the server: it holds no
// bytes, and cannot be told from one that somebody else just began. A lifecycle rule
// of the bucket (AbortIncompleteMultipartUpload) clears those.
func (s *Store) Abandon(ctx context.Context, text backends.Claim) error {
	return s.wrap("clean up after an upload to", s.abandon(ctx, text))
}

func (s *Store) abandon(ctx context.Context, text backends.Claim) error {
	c, err := parseClaim(text)
	if err != nil {
		return fmt.Errorf("%w: %w", backends.ErrBadLocation, err)
	}
	if c.bucket != s.cfg.Bucket {
		return fmt.Errorf("%w: the claim is of bucket %q", backends.ErrBadLocation, c.bucket)
	}
	if err := s.writable(); err != nil {
		return err
	}
	t := newTarget(s.client, s.at, c.bucket, c.key)
	unlock, err := changing.Lock(ctx, t.place)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.abortUpload(ctx, t, c.upload); err != nil {
		return err
	}
	h, err := s.look(ctx, t)
	switch {
	case errors.Is(err, backends.ErrNotFound):
		return nil
	case err != nil:
		return err
	case h.token != c.token:
		return nil // another upload's
	}
	if err = s.remove(ctx, t, h); errors.Is(err, backends.ErrChanged) || errors.Is(err, backends.ErrNotFound) {
		return nil
	}
	return err
}

// abortTries is how often an upload is aborted, at most, until it has no parts: one
// that was on its way may arrive after the first time.
const abortTries = 3

// abortUpload aborts an upload in parts. One that is not there is no error.
func (s *Store) abortUpload(ctx context.Context, t target, upload string) error {
	if upload == "" {
		return nil
	}
	for range abortTries {
		_, err := t.api.AbortMultipartUpload(ctx, &awss3.AbortMultipartUploadInput{Bucket: &t.bucket, Key: &t.key, UploadId: &upload})
		if err = explain(ctx, "abort the upload of "+t.key, err); err != nil && !gone(err) {
			return err
		}
		_, err = t.api.ListParts(ctx, &awss3.ListPartsInput{Bucket: &t.bucket, Key: &t.key, UploadId: &upload})
		if err = explain(ctx, "look for parts of "+t.key, err); gone(err) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: the upload of %s is still there after it was aborted", backends.ErrUnavailable, t.key)
}

func gone(err error) bool { return errors.Is(err, errNoUpload) || errors.Is(err, backends.ErrNotFound) }
