package catalog

import (
	"context"
	"errors"
	"slices"
	"strings"

	"glanced/catalog/rules"
)

// sweep cleans up after a run of this node that ended without doing so itself.
// Other nodes' uploads are theirs.
func (c *Catalog) sweep(ctx context.Context) error {
	// Uploads cut off: the bytes first, so that a crash in here changes nothing.
	saving, err := c.records.List(ctx, Query{Scope: Everything, Status: []Status{Saving}})
	if err != nil {
		return err
	}
	for _, img := range saving {
		if img.Node == c.node {
			if err := c.sweepUpload(ctx, img, Queued); err != nil {
				return err
			}
		}
	}
	// Bytes that could not be removed when their image was deleted or its upload failed.
	holding, err := c.records.List(ctx, Query{Scope: Everything, Holding: true,
		Status: []Status{Deleted, Queued, Killed}})
	if err != nil {
		return err
	}
	for _, img := range holding {
		if img.Status == Deleted {
			if err := c.removeLocations(ctx, img); err != nil {
				c.log.Warn("a deleted image's data is still in its store", "image", img.ID, "error", err)
			}
		}
		if img.Node == c.node && len(img.Claims) > 0 {
			if err := c.sweepUpload(ctx, img, img.Status); err != nil {
				return err
			}
		}
	}
	return c.sweepSpool(ctx)
}

// sweepSpool removes what no image decompresses to: of uploads that were cut off
// after it was kept, and of images deleted since.
func (c *Catalog) sweepSpool(ctx context.Context) error {
	if c.spool == nil {
		return nil
	}
	for _, key := range c.spool.Keys() {
		id, _, _ := strings.Cut(key, ".")
		img, err := c.Get(ctx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && c.spoolKey(img) == key {
			continue
		}
		if err := c.spool.Remove(key); err != nil {
			c.log.Warn("what a container decompressed to is still in the spool", "key", key, "error", err)
		}
	}
	return nil
}

// sweepUpload removes what an upload has left and gives its image the status to.
// A store that does not answer is no reason not to start: what it may hold stays
// in the record, for the next upload or the next sweep.
func (c *Catalog) sweepUpload(ctx context.Context, img Image, to Status) error {
	left := slices.Clone(img.Claims)
	if err := c.abandon(ctx, left); err != nil {
		c.log.Warn("data of an upload that was cut off is still in its store", "image", img.ID, "error", err)
	} else {
		left = nil
	}
	_, err := c.records.Update(ctx, img.ID, func(img *Image) error {
		img.Reserved, img.Claims = 0, left
		if len(left) == 0 {
			img.Node = ""
		}
		if img.Status == to {
			return nil
		}
		return rules.Move(img, to)
	})
	if err == nil {
		c.log.Info("cleaned up after an upload that was cut off", "image", img.ID, "status", to)
	}
	return err
}
