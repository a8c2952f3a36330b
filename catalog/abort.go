package catalog

import (
	"context"
	"errors"
	"maps"

	"glanced/catalog/rules"
)

// abort writes that an upload has ended without an image, and what it has left
// in a store; gone tells whether the image was deleted meanwhile.
func (c *Catalog) abort(ctx context.Context, id string, left []Claim) (gone bool, err error) {
	_, err = c.records.Update(ctx, id, func(img *Image) error {
		gone = img.Status == Deleted
		img.Reserved, img.Claims = 0, left
		if img.Status != Saving {
			return nil
		}
		if len(left) == 0 {
			img.Node = ""
		}
		return rules.Move(img, c.failedUpload)
	})
	c.changes.wake()
	return gone, err
}

// abortLater keeps what abort could not write, for a database that is full or
// busy now. The image stays saving meanwhile; if this process ends before it is
// written, the next start sweeps it.
func (c *Catalog) abortLater(id string, left []Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted[id] = left
}

// abortAgain tries again to write what is kept.
func (c *Catalog) abortAgain(ctx context.Context) {
	c.mu.Lock()
	kept := maps.Clone(c.aborted)
	c.mu.Unlock()
	for id, left := range kept {
		if _, err := c.abort(ctx, id, left); err != nil && !errors.Is(err, ErrNotFound) {
			return // logged when it failed first
		}
		c.log.Info("wrote that an upload has failed", "image", id)
		c.mu.Lock()
		delete(c.aborted, id)
		c.mu.Unlock()
	}
}
