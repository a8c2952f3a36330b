//go:build ceph

package rbd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends"
)

// claim is what a claim of this store says. The token is in the name that the image has
// until it is committed, and in its metadata.
type claim struct {
	pool, key string
	token     string
}

const (
	claimScheme = "rbd:1:" // what follows is written as the query of a URL is
	markKey     = "glanced-claim"
	tokenLen    = 26 // rand.Text has at least as many
)

// temporary is the name of the image while it is written.
func (c claim) temporary() string { return "glanced-upload-" + c.token }

func (c claim) text() backends.Claim {
	return backends.Claim(claimScheme + url.Values{"pool": {c.pool}, "key": {c.key}, "token": {c.token}}.Encode())
}

// mark is what the metadata of an image say that an upload made: its token, and the
// cluster's number for the client that wrote it.
func mark(token string, client uint64) string { return fmt.Sprintf("%s %d", token, client) }

// markOf reads an image's mark; token is "" where it has none.
func markOf(img *librbd.Image) (token string, client uint64, err error) {
	text, err := img.GetMetadata(markKey)
	if is(err, syscall.ENOENT) {
		return "", 0, nil
	} else if err != nil {
		return "", 0, explain("look at the image's metadata", err)
	}
	token, number, _ := strings.Cut(text, " ")
	client, _ = strconv.ParseUint(number, 10, 64)
	return token, client, nil
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
	c = claim{v.Get("pool"), v.Get("key"), v.Get("token")}
	if c.pool == "" || checkKey(c.key) != nil || checkKey(c.token) != nil || len(c.token) < tokenLen {
		return c, errors.New("the claim names no pool, key or token")
	}
	return c, nil
}

// Abandon implements backends.Store. An image that the client which wrote it still has
// open, because it died or because it is to write no more, is taken from it: that client
// is put on the cluster's blocklist. Where the user may not do that, the cluster forgets a
// client that died after half a minute, and until then this is ErrUnavailable.
func (s *Store) Abandon(ctx context.Context, text backends.Claim) error {
	return s.wrap("clean up after an upload to", s.abandon(ctx, text))
}

func (s *Store) abandon(ctx context.Context, text backends.Claim) error {
	c, err := parseClaim(text)
	if err != nil {
		return fmt.Errorf("%w: %w", backends.ErrBadLocation, err)
	}
	if c.pool != s.cfg.Pool {
		return fmt.Errorf("%w: the claim is of pool %q", backends.ErrBadLocation, c.pool)
	}
	if err := s.writable(); err != nil {
		return err
	}
	uploading.Lock()
	w := uploading.writers[c.token]
	uploading.Unlock()
	if w != nil {
		if err := w.end(ctx); err != nil {
			return err
		}
	}
	// The upload's own image first: so no call is under way that makes it.
	id, err := change(ctx, s, c.temporary(), func(ses *session) (string, error) { return idOf(ses, c.temporary()) })
	if err != nil {
		return err
	}
	_, err = change(ctx, s, c.key, func(ses *session) (struct{}, error) {
		mine := id != ""
		if !mine {
			if id, err = idOf(ses, c.key); err != nil || id == "" {
				return struct{}{}, err
			}
			if mine, err = marked(ses, id, c.token); err != nil || !mine {
				return struct{}{}, err
			}
		}
		return struct{}{}, removeUpload(ses, c, id)
	})
	if errors.Is(err, backends.ErrInUse) {
		return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	return err
}

// marked reports whether the image with an id was made by the upload of a token.
func marked(ses *session, id, token string) (bool, error) {
	img, err := librbd.OpenImageByIdReadOnly(ses.ioctx, id, librbd.NoSnapshot)
	if is(err, syscall.ENOENT) {
		return false, nil
	} else if err != nil {
		return false, explain("look at the image", err)
	}
	defer img.Close()
	made, _, err := markOf(img)
	return made == token, err
}

// removeUpload removes the image with an id, which is of this claim, and its names.
func removeUpload(ses *session, c claim, id string) error {
	name, err := nameOf(ses, id)
	if err != nil {
		return err
	}
	if name == "" {
		name = c.temporary()
	}
	if err := fence(ses, id); err != nil {
		return err
	}
	if err := removeSnapshots(ses, id); err != nil {
		return err
	}
	if err := removeImage(ses, name, id); err != nil && !is(err, syscall.ENOENT) {
		return err
	}
	for _, name := range []string{c.temporary(), c.key} {
		if err := tidy(ses, name, id); err != nil {
			return err
		}
	}
	return nil
}
