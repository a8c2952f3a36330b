package catalog_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/catalog/access"
)

// hungStore opens nothing before it is told to, or its context ends.
type hungStore struct {
	backends.Store
	opening chan struct{} // one for each Open
	proceed chan struct{}
	ended   chan error // why an Open was ended
}

func (s *hungStore) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	s.opening <- struct{}{}
	select {
	case <-s.proceed:
		return s.Store.Open(ctx, loc)
	case <-ctx.Done():
		s.ended <- context.Cause(ctx)
		return nil, context.Cause(ctx)
	}
}

// An opening, which may decompress for long, goes on while one client waits for it, and
// ends with the last one. Who comes after that opens anew.
func TestAnOpeningEndsWithTheLastWhoWaitsForIt(t *testing.T) {
	s := &hungStore{opening: make(chan struct{}, 10), proceed: make(chan struct{}), ended: make(chan error, 10)}
	w := newWorld(t, func(c *catalog.Config) {
		s.Store = c.Stores[0].Store
	})
	img := w.queued(t, "raw", "bare")
	if err := w.Upload(t.Context(), img.ID, strings.NewReader("data"), catalog.UploadOptions{Size: 4}); err != nil {
		t.Fatal(err)
	}
	w.Catalog.Close()
	w.cfg.Stores[0].Store = s
	again, err := catalog.New(t.Context(), w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()

	open := func(ctx context.Context) chan error {
		done := make(chan error, 1)
		go func() {
			h, err := again.Open(ctx, access.System(), img.ID, catalog.View{})
			if err == nil {
				h.Close()
			}
			done <- err
		}()
		return done
	}
	first, leave := context.WithCancel(t.Context())
	second, leaveToo := context.WithCancel(t.Context())
	one := open(first)
	<-s.opening
	two := open(second)
	time.Sleep(50 * time.Millisecond) // the second has joined by now, or begins an opening of its own below
	leave()
	if err := <-one; !errors.Is(err, context.Canceled) {
		t.Errorf("the first who left: %v", err)
	}
	select {
	case err := <-s.ended:
		t.Errorf("the opening ended (%v) while another waited for it", err)
	case <-time.After(50 * time.Millisecond):
	}
	leaveToo()
	if err := <-two; !errors.Is(err, context.Canceled) {
		t.Errorf("the second: %v", err)
	}
	<-s.ended // else this test hangs
	three := open(t.Context())
	<-s.opening
	close(s.proceed)
	if err := <-three; err != nil {
		t.Errorf("who came after it was given up: %v", err)
	}
}
