package fs

import (
	"context"
	"errors"
	"sync"
	"time"

	"glanced/catalog"
)

const (
	loadBytes = 128 << 10 // of records read at once when the tree is built

	// catchUpLimit bounds how long a listing or a failed lookup waits for the
	// changes that were made before it.
	catchUpLimit = time.Second

	// retryFollowing is the pause after the catalog failed.
	retryFollowing = time.Second
)

// follower keeps the index and the record cache at the catalog's state, and
// tells the notifier what the kernel is to forget. It waits for nothing but the
// catalog, so FUSE requests may wait for it.
type follower struct {
	t     *tree
	notes *notifier

	mu      sync.Mutex
	seq     catalog.Seq   // the last change taken in
	missed  catalog.Seq   // the last change that was waited for in vain
	advance chan struct{} // closed when seq rises, then replaced
}

func newFollower(t *tree) *follower {
	return &follower{t: t, notes: newNotifier(t), advance: make(chan struct{})}
}

// load reads all images into the index: before the mount, and again when the
// catalog's log of changes does not reach back to what was taken in last.
func (f *follower) load(ctx context.Context) error {
	seq, err := f.t.catalog.LastSeq(ctx) // first: what changes during the reading is read again
	if err != nil {
		return err
	}
	known := f.t.index.ids()
	found := make(map[string]bool)
	err = f.loadPages(ctx, found)
	if errors.Is(err, catalog.ErrMarker) { // the last image of a page was deleted
		err = f.loadRest(ctx, found)
	}
	if err != nil {
		return err
	}
	for _, id := range known {
		if found[id] {
			err = f.apply(ctx, id)
		} else {
			f.gone(id)
		}
		if err != nil {
			return err
		}
	}
	f.reached(seq)
	return nil
}

// every selects all images; the index needs little of each.
var every = catalog.Query{Scope: catalog.Everything, Brief: true}

// loadPages reads them from old to new, so that listings run in that order.
func (f *follower) loadPages(ctx context.Context, found map[string]bool) error {
	q := every
	q.Sort = []catalog.SortKey{{Key: "created_at"}, {Key: "id"}}
	for {
		page, more, err := f.t.catalog.Page(ctx, q, loadBytes)
		if err != nil {
			return err
		}
		for i := range page {
			f.loaded(&page[i], found)
		}
		if !more || len(page) == 0 {
			return nil
		}
		q.Marker = page[len(page)-1].ID
	}
}

// loadRest reads those that are not found yet, in an order that no deletion disturbs.
func (f *follower) loadRest(ctx context.Context, found map[string]bool) error {
	for img, err := range f.t.catalog.Walk(ctx, every) {
		if err != nil {
			return err
		}
		f.loaded(&img, found)
	}
	return nil
}

// loaded takes in an image that was read.
func (f *follower) loaded(img *catalog.Image, found map[string]bool) {
	found[img.ID] = true
	if _, known := f.t.index.image(img.ID); known {
		return
	}
	s := f.t.index.put(img)
	if f.reachedSeq() > 0 { // before, there is no kernel to tell
		f.notes.add(note{id: img.ID, shift: s})
	}
}

// run follows the catalog until ctx ends.
func (f *follower) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return
		}
		f.t.log.Warn("fuse: cannot follow the catalog, trying again", "error", err)
		select {
		case <-time.After(retryFollowing):
		case <-ctx.Done():
		}
	}
}

// follow takes changes in until the catalog fails; nil when it is to be called
// again at once.
func (f *follower) follow(ctx context.Context) error {
	for change, err := range f.t.catalog.Watch(ctx, f.reachedSeq()) {
		if errors.Is(err, catalog.ErrTrimmed) {
			return f.load(ctx)
		}
		if err == nil {
			err = f.apply(ctx, change.ID)
		}
		if err != nil {
			return err
		}
		f.reached(change.Seq)
	}
	return errors.New("the catalog's changes ended")
}

// apply takes in the present state of an image that changed. The change itself
// may be old; a newer one then follows and finds nothing to do.
func (f *follower) apply(ctx context.Context, id string) error {
	f.t.records.drop(id)
	img, err := f.t.catalog.Get(ctx, id)
	switch {
	case errors.Is(err, catalog.ErrNotFound):
		f.gone(id)
	case err != nil:
		return err
	default:
		s := f.t.index.put(&img)
		f.notes.add(note{id: id, shift: s, content: content(&record{img: img})})
	}
	return nil
}

func (f *follower) gone(id string) {
	f.t.records.drop(id)
	f.notes.add(note{id: id, shift: f.t.index.remove(id)})
}

func (f *follower) reachedSeq() catalog.Seq {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

func (f *follower) reached(seq catalog.Seq) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if seq > f.seq {
		f.seq = seq
		close(f.advance)
		f.advance = make(chan struct{})
	}
}

// catchUp waits until what the catalog held when it was called is in the index,
// for at most catchUpLimit. Another daemon's change takes longer to come through;
// it is waited for once, not by every lookup until it comes.
func (f *follower) catchUp(ctx context.Context) {
	seq, err := f.t.catalog.LastSeq(ctx)
	if err != nil {
		return // the index is what there is
	}
	reached, advance := f.has(seq)
	if reached {
		return
	}
	limit := time.NewTimer(catchUpLimit)
	defer limit.Stop()
	for !reached {
		select {
		case <-advance:
			reached, advance = f.has(seq)
		case <-limit.C:
			f.mu.Lock()
			f.missed = max(f.missed, seq)
			f.mu.Unlock()
			return
		case <-ctx.Done():
			return
		}
	}
}

// has tells whether a change need not be waited for; advance is closed when the
// answer may be another one.
func (f *follower) has(seq catalog.Seq) (yes bool, advance <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return max(f.seq, f.missed) >= seq, f.advance
}
