package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"glanced/catalog/access"
	"glanced/catalog/disks"
	"glanced/catalog/records"
)

const (
	hashers       = 2             // images hashed at a time
	hashPiece     = 1 << 20       // bytes read at a time for it
	hashPause     = time.Minute   // before a second try; before each one after it, twice as long
	longHashPause = 1 * time.Hour // the longest
)

// hashing is the queue of images whose data is hashed in the background: those that
// were registered where they lie.
type hashing struct {
	pause time.Duration
	more  chan struct{} // holds one while somebody may find an image in the queue

	mu    sync.Mutex
	queue []string       // ids
	tries map[string]int // of all that are queued, under way, or wait for another try: those that failed
}

func (h *hashing) init(pause time.Duration) {
	h.pause, h.more, h.tries = pause, make(chan struct{}, 1), map[string]int{}
	if h.pause == 0 {
		h.pause = hashPause
	}
}

// add queues an image, unless it is known already.
func (h *hashing) add(id string) {
	h.mu.Lock()
	_, known := h.tries[id]
	if !known {
		h.tries[id] = 0
	}
	h.mu.Unlock()
	if !known {
		h.push(id)
	}
}

func (h *hashing) push(id string) {
	h.mu.Lock()
	h.queue = append(h.queue, id)
	h.mu.Unlock()
	h.signal()
}

func (h *hashing) signal() {
	select {
	case h.more <- struct{}{}:
	default:
	}
}

// next waits for an image; ok is false when ctx has ended.
func (h *hashing) next(ctx context.Context) (id string, ok bool) {
	for {
		select {
		case <-h.more:
		case <-ctx.Done():
			return "", false
		}
		h.mu.Lock()
		if len(h.queue) > 0 {
			id, h.queue, ok = h.queue[0], h.queue[1:], true
		}
		left := len(h.queue) > 0
		h.mu.Unlock()
		if left {
			h.signal()
		}
		if ok {
			return id, true
		}
	}
}

// done forgets an image.
func (h *hashing) done(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tries, id)
}

// later queues an image again after a pause.
func (h *hashing) later(id string) time.Duration {
	h.mu.Lock()
	pause := min(h.pause<<min(h.tries[id], 6), longHashPause)
	h.tries[id]++
	h.mu.Unlock()
	h.after(pause, id)
	return pause
}

// after queues an image again.
func (h *hashing) after(pause time.Duration, id string) {
	time.AfterFunc(pause, func() { h.push(id) })
}

// Resume queues what an earlier run has not hashed to its end.
func (in *Intake) Resume(ctx context.Context) error {
	for img, err := range in.records.Walk(ctx, records.Query{Scope: records.Everything, Status: []records.Status{records.Active, records.Deactivated}, Unhashed: true, Brief: true}) {
		if err != nil {
			return err
		}
		in.hashing.add(img.ID)
	}
	return nil
}

// Run hashes in the background what was registered, until ctx ends.
func (in *Intake) Run(ctx context.Context) {
	var all sync.WaitGroup
	for range hashers {
		all.Go(func() { in.hashOn(ctx) })
	}
	all.Wait()
}

// hashOn hashes one image after the other until ctx ends. Of several daemons one hashes
// an image, and the others look again when it may have ended.
func (in *Intake) hashOn(ctx context.Context) {
	for {
		id, ok := in.hashing.next(ctx)
		if !ok {
			return
		}
		ran, err := in.leases.While(ctx, records.HashLease, id, func(records.Lease) error { return in.hash(ctx, id) })
		switch {
		case ctx.Err() != nil:
			return // the next run goes on
		case err == nil && ran:
			in.hashing.done(id)
		case err == nil:
			in.hashing.after(in.leases.During(), id)
		default:
			in.log.Warn("cannot hash an image's data; trying again", "image", id, "after", in.hashing.later(id), "error", err)
		}
	}
}

// hash reads all of an image's data and records its hashes. An image that has them,
// or is no longer there, needs none. The data is read as a client would: a deletion
// ends it, and of other bytes than the recorded ones nothing is taken.
func (in *Intake) hash(ctx context.Context, id string) error {
	// Another daemon may have done it: that is known without opening the data.
	if img, err := in.records.GetExisting(ctx, id); errors.Is(err, records.ErrNotFound) || err == nil && img.HashValue != nil {
		return nil
	}
	h, err := in.disks.Open(ctx, access.System(), id, disks.View{Stored: true, Deactivated: true})
	if errors.Is(err, records.ErrNotFound) || errors.Is(err, disks.ErrNoData) {
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	img := h.Image()
	if img.HashValue != nil {
		return nil
	}
	sums, err := in.hashAll(ctx, h)
	if errors.Is(err, disks.ErrRevoked) {
		if _, err := in.records.GetExisting(ctx, id); errors.Is(err, records.ErrNotFound) {
			return nil
		}
	}
	if err != nil {
		return err
	}
	_, err = in.records.UpdateExisting(ctx, id, func(now *records.Image) error {
		if now.HashValue != nil {
			return nil
		}
		if !slices.EqualFunc(now.Locations, img.Locations, func(a, b records.Location) bool { return a.Store == b.Store && a.URL == b.URL }) {
			return fmt.Errorf("image %s was given another location while it was hashed", id)
		}
		sums.record(now)
		return nil
	})
	if errors.Is(err, records.ErrNotFound) {
		return nil
	}
	if err == nil {
		in.log.Info("hashed an image's data", "image", id, "bytes", h.Size())
	}
	return err
}

// hashAll reads all of h.
func (in *Intake) hashAll(ctx context.Context, h *disks.Handle) (*sums, error) {
	made := newHashes(in.memory)
	defer made.close()
	p := make([]byte, hashPiece)
	for off := int64(0); off < h.Size(); off += int64(len(p)) {
		p = p[:min(hashPiece, h.Size()-off)]
		if err := h.ReadAt(ctx, p, off); err != nil {
			return nil, fmt.Errorf("at byte %d: %w", off, err)
		}
		made.write(p)
	}
	sums := made.sums()
	return &sums, nil
}
