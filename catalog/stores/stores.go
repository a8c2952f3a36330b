// Package stores is the configured stores: which there are, and what is done to bytes in
// them by the records of images and of uploads. It opens no images, and decides nothing
// about them.
package stores

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"glanced/backends"
)

// Sentinels; they come wrapped, with the store and what was tried.
var (
	ErrStore         = errors.New("the store failed")
	ErrStoreFull     = errors.New("the store has no room for the image")
	ErrUnknownStore  = errors.New("no such store")
	ErrStoreReadOnly = errors.New("the store is configured as read-only")
	ErrStoreDenied   = errors.New("the store cannot be written")
)

// Entry is one configured store.
type Entry struct {
	ID, Type, Description string
	Store                 backends.Store
	Default, ReadOnly     bool // ReadOnly: no uploads, and images that lie there are not deleted
	Foreign               bool // others keep its objects: no uploads, locations can be registered, and deletions leave the bytes
	Weight                int  // of several locations of an image, that in the store of the greatest weight is read first
}

// Set is the list of stores that is in force. Safe for concurrent use.
type Set struct{ entries atomic.Pointer[[]Entry] }

// NewSet is the Set of these stores, of which exactly one is the default one. What they
// are made of is not closed.
func NewSet(entries []Entry) (*Set, error) {
	s := &Set{}
	if err := s.Replace(entries); err != nil {
		return nil, err
	}
	return s, nil
}

// Replace puts another list in force, of which exactly one is the default one. Who has an
// Entry of the old list may use its store on. Nothing changes where the list is wrong.
func (s *Set) Replace(entries []Entry) error {
	if err := checkEntries(entries); err != nil {
		return err
	}
	entries = slices.Clone(entries)
	s.entries.Store(&entries)
	return nil
}

func checkEntries(entries []Entry) error {
	defaults := 0
	for i, e := range entries {
		if e.Store == nil || e.ID == "" {
			return fmt.Errorf("store %d has no id, or was not opened", i)
		}
		if slices.ContainsFunc(entries[:i], func(o Entry) bool { return o.ID == e.ID }) {
			return fmt.Errorf("two stores are called %q", e.ID)
		}
		if e.Default {
			defaults++
		}
	}
	if defaults != 1 {
		return fmt.Errorf("%d of %d stores are the default one; exactly one must be", defaults, len(entries))
	}
	return nil
}

// All lists the stores, in their order.
func (s *Set) All() []Entry { return slices.Clone(*s.entries.Load()) }

// Choose finds a store that a client has asked for; "" is the default one.
// ErrUnknownStore.
func (s *Set) Choose(id string) (Entry, error) {
	for _, e := range *s.entries.Load() {
		if e.ID == id || id == "" && e.Default {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("%w: %q", ErrUnknownStore, id)
}

// Find finds a store by its id.
func (s *Set) Find(id string) (Entry, bool) {
	for _, e := range *s.entries.Load() {
		if e.ID == id {
			return e, true
		}
	}
	return Entry{}, false
}

// NotConfigured is why bytes in an unknown store cannot be had: with another
// configuration they can.
func NotConfigured(id string) error {
	return fmt.Errorf("%w: store %q is not in the configuration", backends.ErrUnavailable, id)
}

// cleanupTime is how long work goes on for a caller that has hung up.
const cleanupTime = 30 * time.Second

// CleanupContext is for work that must happen even when ctx has ended, as removing what
// lies in a store.
func CleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
}
