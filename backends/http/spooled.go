package http

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/overhttp"
	"glanced/backends/spool"
	"glanced/backends/stored"
)

// digest begins the version of an object that was spooled; no ETag begins so.
const digest = "sha256:"

// once begins the key of a copy that nobody will find again.
const once = "once-"

// openSpooled opens the copy of an object in the spool, fetching it if need be. A
// copy is found again by what the server says of the object, and is believed where
// it is the recorded one; else the object is fetched once more before it is said to
// have changed.
func (s *Store) openSpooled(ctx context.Context, f found, loc backends.Location) (stored.Bytes, string, error) {
	if loc.Size >= 0 && f.size >= 0 && loc.Size != f.size {
		return nil, "", fmt.Errorf("%s: %w", shown(f.url), loc.Check(f.size, loc.Version))
	}
	for try := 1; ; try++ {
		b, version, fetched, err := s.spooled(ctx, f)
		if err != nil {
			return nil, "", fmt.Errorf("%s: %w", shown(f.url), inWords(err))
		}
		err = loc.Check(b.Size(), version)
		if err == nil {
			return b, version, nil
		}
		b.Close()
		if fetched || try > 1 {
			return nil, "", fmt.Errorf("%s: %w", shown(f.url), err)
		}
		if err := s.spool.Remove(key(f)); err != nil {
			return nil, "", err
		}
	}
}

// inWords adds the sentinel that the contract has for an error of the spool.
func inWords(err error) error {
	switch {
	case errors.Is(err, spool.ErrLimit), errors.Is(err, spool.ErrFull):
		return fmt.Errorf("%w: the server serves it only as a whole, and it has no room here: %w", backends.ErrFull, err)
	case errors.Is(err, spool.ErrRemoved): // by who found that it was not the recorded one
		return fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	return err
}

// spooled opens the copy, and tells its version and whether it was fetched just now.
func (s *Store) spooled(ctx context.Context, f found) (b stored.Bytes, version string, fetched bool, err error) {
	k := key(f)
	if f.validators == "" {
		// Nothing tells the object's states apart, so each opening fetches it anew. Who
		// comes while it is fetched shares it.
		k, err = s.fetching.Do(ctx, place(f.url), func(ctx context.Context) (string, error) {
			k := once + rand.Text()
			b, err := s.spool.Get(ctx, k, s.fetch(f, k))
			if err != nil {
				return "", err
			}
			return k, b.Close()
		})
		if err != nil {
			return nil, "", false, err
		}
		fetched = true
	}
	file, err := s.spool.Get(ctx, k, func(ctx context.Context, w io.Writer) error {
		fetched = true
		return s.fetch(f, k)(ctx, w)
	})
	if err != nil {
		return nil, "", false, err
	}
	if version, err = s.sums.of(ctx, k, file); err != nil {
		file.Close()
		return nil, "", false, err
	}
	copied := &copied{Bytes: file, id: stored.NewIdentity(s.id, place(f.url), version)}
	if f.validators == "" {
		// Nobody will find it again. Who has it open reads on.
		copied.forget = func() error { return s.spool.Remove(k) }
	}
	return copied, version, fetched, nil
}

// key names the copy of one state of an object.
func key(f found) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s", place(f.url), f.size, f.validators))
	return "object-" + hex.EncodeToString(sum[:])
}

// fetch is a Fill with the whole object, and notes its version.
func (s *Store) fetch(f found, k string) spool.Fill {
	return func(ctx context.Context, w io.Writer) error {
		if err := s.room(f.size); err != nil {
			return err
		}
		a, err := s.get(ctx, f.url, nil)
		if err != nil {
			return err
		}
		defer a.Close()
		switch {
		case a.StatusCode != http.StatusOK:
			a.drain()
			return a.refusal()
		case encoding(a.Header) != "":
			return fmt.Errorf("%w: the server sent the bytes encoded (%q)", backends.ErrUnavailable, overhttp.Clip(encoding(a.Header)))
		case f.validators != "" && validators(a.Header) != f.validators, f.size >= 0 && a.ContentLength >= 0 && a.ContentLength != f.size:
			return fmt.Errorf("%w: the object was changed between two requests", backends.ErrUnavailable)
		case a.ContentLength < 0 && !slices.Equal(a.TransferEncoding, []string{"chunked"}):
			return fmt.Errorf("%w: the server does not say where the object ends: a connection that breaks would be its end", backends.ErrUnavailable)
		}
		h := sha256.New()
		n, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(a, s.most+1))
		if err == nil && n > s.most {
			err = fmt.Errorf("%w: more than %d bytes", spool.ErrLimit, s.most)
		}
		if err == nil {
			s.sums.note(k, h, s.spool.Keys())
		}
		return err
	}
}

// room sees before a fetch whether an object of size bytes, -1 = unknown, would fit.
func (s *Store) room(size int64) error {
	if size > s.most {
		return fmt.Errorf("%w: %d bytes, at most %d; raise spool_limit", spool.ErrLimit, size, s.most)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(s.spool.Path(), &st); err != nil {
		return fmt.Errorf("ask for the free space of the spool: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; size > free {
		return fmt.Errorf("%w: %d bytes, %d are free on its disk", spool.ErrFull, size, free)
	}
	return nil
}

// copied is the copy of an object in the spool.
type copied struct {
	stored.Bytes
	id     stored.Identity
	forget func() error // nil: it is kept for the next opening
}

// Unwrap is for stored.As: a copy has the abilities of a file.
func (c *copied) Unwrap() stored.Bytes { return c.Bytes }

// Identity implements stored.Bytes.
func (c *copied) Identity() stored.Identity { return c.id }

// Close implements stored.Bytes.
func (c *copied) Close() error {
	err := c.Bytes.Close()
	if c.forget != nil {
		err = errors.Join(err, c.forget())
	}
	return err
}

// sums are the versions of what is in the spool, by key.
type sums struct {
	mu    sync.Mutex
	known map[string]string
}

// note keeps the version of a copy, and forgets those that are not among keys any more.
func (s *sums) note(key string, h hash.Hash, keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := map[string]string{key: digest + hex.EncodeToString(h.Sum(nil))}
	for _, k := range keys {
		if v, ok := s.known[k]; ok && k != key {
			kept[k] = v
		}
	}
	s.known = kept
}

// of is the version of a copy, found out by reading it where it is one of an earlier
// run.
func (s *sums) of(ctx context.Context, key string, b stored.Bytes) (string, error) {
	s.mu.Lock()
	version, ok := s.known[key]
	s.mu.Unlock()
	if ok {
		return version, nil
	}
	h := sha256.New()
	p := make([]byte, 1<<20)
	for off := int64(0); off < b.Size(); off += int64(len(p)) {
		p = p[:min(int64(len(p)), b.Size()-off)]
		if err := b.ReadAt(ctx, p, off); err != nil {
			return "", fmt.Errorf("read a spooled object: %w", err)
		}
		h.Write(p)
	}
	version = digest + hex.EncodeToString(h.Sum(nil))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.known = map[string]string{}
	}
	s.known[key] = version
	return version, nil
}
