package catalog

import (
	"context"
	"errors"
	"maps"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// aborted is an upload that has ended without an image.
type aborted struct {
	lease records.Lease // that it had
	left  []Claim       // what it has left in a store
}

// abort writes that an upload has ended without an image, and gives its lease back;
// gone tells whether the image was deleted meanwhile. ErrLeaseLost: another daemon has
// taken over, and nothing is written.
func (c *Catalog) abort(ctx context.Context, id string, a aborted) (gone bool, err error) {
	_, err = c.records.UpdateUnder(ctx, id, rules.Under{Lease: a.lease, Step: rules.Drop}, func(img *Image) error {
		gone = img.Status == Deleted
		img.Reserved, img.Claims = 0, a.left
		if len(a.left) == 0 {
			img.Node = ""
		}
		if img.Status != Saving {
			return nil
		}
		return rules.Move(img, c.failedUpload)
	})
	c.changes.wake()
	return gone, err
}

// abortLater keeps what abort could not write, for a database that is full, busy or away
// now. The image stays saving meanwhile; if this process ends before it is written, a
// sweep finds it.
func (c *Catalog) abortLater(id string, a aborted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted[id] = a
}

// abortAgain tries again to write what is kept.
func (c *Catalog) abortAgain(ctx context.Context) {
	c.mu.Lock()
	kept := maps.Clone(c.aborted)
	c.mu.Unlock()
	for id, a := range kept {
		if _, err := c.abort(ctx, id, a); err != nil && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrLeaseLost) {
			return // logged when it failed first
		}
		c.log.Info("wrote that an upload has failed", "image", id)
		c.mu.Lock()
		delete(c.aborted, id)
		c.mu.Unlock()
	}
}
