package disks

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"glanced/backends"
	"glanced/backends/stored"
)

// place is one location of one image, as it was opened.
type place struct {
	o     *Opener
	image string // id
	loc   backends.Location
}

// failed names the image in an error, and logs once if its bytes are no longer the
// recorded ones. Somebody has to look at that: no retry helps.
func (p place) failed(err error) error {
	if errors.Is(err, backends.ErrChanged) && p.o.changed.note(p) {
		p.o.log.Error("the data in the store is not what the image's record says, and is not served: restore it, or delete the image",
			"image", p.image, "store", p.loc.Store, "expected_size", p.loc.Size, "expected_version", p.loc.Version, "error", err)
	}
	return fmt.Errorf("image %s in store %s: %w", p.image, p.loc.Store, err)
}

// placed are an image's bytes at one place.
type placed struct {
	stored.Bytes
	place place
}

var _ stored.Verifier = placed{}

// Unwrap is for stored.As.
func (b placed) Unwrap() stored.Bytes { return b.Bytes }

// ReadAt implements stored.Bytes.
func (b placed) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := b.Bytes.ReadAt(ctx, p, off); err != nil {
		return b.place.failed(err)
	}
	return nil
}

// Verify implements stored.Verifier.
func (b placed) Verify(ctx context.Context) error {
	v, ok := stored.As[stored.Verifier](b.Bytes)
	if !ok {
		return nil
	}
	if err := v.Verify(ctx); err != nil {
		return b.place.failed(err)
	}
	return nil
}

// changed are the places where other bytes were found than were recorded, so that
// each is told of once, until the bytes are back.
type changed struct {
	mu     sync.Mutex
	places map[changedPlace]struct{}
}

type changedPlace struct{ image, store, url string }

func (p place) key() changedPlace { return changedPlace{p.image, p.loc.Store, p.loc.URL} }

// note enters a place; news tells that it was not there.
func (c *changed) note(p place) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, known := c.places[p.key()]
	c.places[p.key()] = struct{}{}
	return !known
}

func (c *changed) forget(p place) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.places, p.key())
}

// forgetImage forgets all places of an image.
func (c *changed) forgetImage(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.places {
		if k.image == id {
			delete(c.places, k)
		}
	}
}
