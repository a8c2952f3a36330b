package stores

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"

	"glanced/backends"
	"glanced/backends/stored"
	"glanced/catalog/records"
)

// Step is one thing that a check of a store tried.
type Step struct {
	Name string // write | read | delete | use all of it
	Err  error  // nil = it works
}

const (
	checkTime = 30 * time.Second // what a check takes at most
	checkLen  = 4 << 10          // bytes
)

// Check tries a store, and says step by step what works: it writes a small
// object, reads it and deletes it; of a read-only one, it reads from the first of images
// that lies there, and tries nothing where there is none. It stops at the first step that
// fails, but for the deletion of what was written. The object's key begins with
// glanced-check. A store that can work in part is asked whether all of it does.
// ErrUnknownStore, and the error that images yields.
func (s *Set) Check(ctx context.Context, id string, images func(context.Context) iter.Seq2[records.Image, error]) ([]Step, error) {
	entry, ok := s.Find(id)
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownStore, id)
	}
	late := fmt.Errorf("%w: no answer within %v", backends.ErrUnavailable, checkTime)
	ctx, cancel := context.WithTimeoutCause(ctx, checkTime, late)
	defer cancel()
	var steps []Step
	var err error
	if entry.ReadOnly {
		steps, err = checkReading(ctx, entry, images(ctx))
	} else {
		steps = checkWriting(ctx, entry.Store)
	}
	if part, ok := backends.As[backends.Degrader](entry.Store); ok && err == nil {
		if err := part.Degraded(); err != nil {
			steps = append(steps, Step{"use all of it", err})
		}
	}
	return steps, err
}

// checkWriting writes an object, reads it and deletes it.
func checkWriting(ctx context.Context, s backends.Store) []Step {
	content := make([]byte, checkLen)
	rand.Read(content)
	w, err := s.Begin(ctx, "glanced-check-"+uuid.NewString(), checkLen)
	if err != nil {
		return []Step{{"write", err}}
	}
	var steps []Step
	loc, err := writeAll(ctx, w, content)
	if steps = append(steps, Step{"write", err}); err == nil {
		err = readBack(ctx, s, loc, content)
		steps = append(steps, Step{"read", err})
	}
	if err == nil {
		err = s.Delete(ctx, loc)
		steps = append(steps, Step{"delete", err})
	}
	if err != nil {
		ctx, cancel := CleanupContext(ctx)
		defer cancel()
		if err := w.Abort(ctx); err != nil && steps[len(steps)-1].Name != "delete" {
			steps = append(steps, Step{"delete", err})
		}
	}
	return steps
}

func writeAll(ctx context.Context, w backends.Writer, content []byte) (backends.Location, error) {
	if _, err := w.Write(content); err != nil {
		return backends.Location{}, err
	}
	return w.Commit(ctx)
}

func readBack(ctx context.Context, s backends.Store, loc backends.Location, content []byte) error {
	b, err := s.Open(ctx, loc)
	if err != nil {
		return err
	}
	defer b.Close()
	got := make([]byte, len(content))
	if err := b.ReadAt(ctx, got, 0); err != nil {
		return err
	}
	if !bytes.Equal(got, content) {
		return errors.New("the store returned other bytes than were written")
	}
	return nil
}

// checkReading reads the first byte of an image that lies in a store.
func checkReading(ctx context.Context, entry Entry, images iter.Seq2[records.Image, error]) ([]Step, error) {
	for img, err := range images {
		if err != nil {
			return nil, err
		}
		for _, l := range img.Locations {
			if l.Store != entry.ID || img.Size == nil || *img.Size == 0 {
				continue
			}
			var b stored.Bytes
			if b, err = entry.Store.Open(ctx, Located(img, l)); err == nil {
				err = b.ReadAt(ctx, make([]byte, 1), 0)
				b.Close()
			}
			return []Step{{"read", err}}, nil
		}
	}
	return []Step{}, nil
}
