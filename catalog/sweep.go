package catalog

import (
	"context"
	"errors"
	"strings"
	"time"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// leaseKept is for how long a lease that has lapsed is still its holder's, if nobody
// takes it.
const leaseKept = time.Hour

// sweep cleans up after uploads and deletions that their daemons have not brought to
// their end, this one in an earlier life or another one: whose lease has lapsed, or who
// never had one.
func (c *Catalog) sweep(ctx context.Context) error {
	if err := c.records.ClearLeases(ctx, leaseKept); err != nil {
		c.log.Warn("cannot clear the leases of daemons that are gone; trying again later", "error", err)
	}
	// Uploads cut off: the bytes first, so that a crash in here changes nothing.
	for img, err := range c.Walk(ctx, Query{Scope: Everything, Status: []Status{Saving}}) {
		if err != nil {
			return err
		}
		if err := c.sweepUpload(ctx, img); err != nil {
			return err
		}
	}
	// Bytes that could not be removed when their image was deleted or its upload failed.
	for img, err := range c.Walk(ctx, Query{Scope: Everything, Holding: true,
		Status: []Status{Deleted, Queued, Killed}}) {
		if err != nil {
			return err
		}
		if img.Status == Deleted {
			if err := c.sweepBytes(ctx, img); err != nil {
				return err
			}
		}
		if len(img.Claims) > 0 {
			if err := c.sweepUpload(ctx, img); err != nil {
				return err
			}
		}
	}
	return c.sweepHeld(ctx)
}

// sweepBytes removes the bytes of a deleted image, unless others still have the time to
// let go of them, or are removing them.
func (c *Catalog) sweepBytes(ctx context.Context, img Image) error {
	_, err := c.underLease(ctx, records.BytesLease, img.ID, func(records.Lease) error {
		if err := c.removeLocations(ctx, img); err != nil {
			c.log.Warn("a deleted image's data is still in its store", "image", img.ID, "error", err)
		}
		return nil
	})
	return err
}

// sweepSpool removes what no image decompresses to: of uploads that were cut off
// after it was kept, and of images deleted since.
func (c *Catalog) sweepSpool(ctx context.Context) error {
	if c.spool == nil {
		return nil
	}
	for _, key := range c.spool.Keys() {
		id, _, _ := strings.Cut(key, ".")
		img, err := c.records.Get(ctx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil && img.Status != Deleted && c.spoolKey(img) == key {
			continue
		}
		if err := c.spool.Remove(key); err != nil {
			c.log.Warn("what a container decompressed to is still in the spool", "key", key, "error", err)
		}
	}
	return nil
}

// sweepUpload removes what an upload has left, and queues its image again. A store that
// does not answer is no reason not to start: what it may hold stays in the record, for
// the next upload or the next sweep.
func (c *Catalog) sweepUpload(ctx context.Context, img Image) error {
	if c.uploading(img.ID) {
		return nil // here: it finds out by itself whether it still has its lease
	}
	_, err := c.underLease(ctx, records.UploadLease, img.ID, func(l records.Lease) error {
		img, err := c.records.Get(ctx, img.ID) // as it is, now that nobody else changes it
		if err != nil || img.Status != Saving && len(img.Claims) == 0 {
			return err
		}
		left := img.Claims
		if err := c.abandon(ctx, left); err != nil {
			c.log.Warn("data of an upload that was cut off is still in its store", "image", img.ID, "error", err)
		} else if img.Status != Saving || img.Node == c.node {
			left = nil
		} // Another daemon may wake and go on writing: the next sweep, or upload, looks again.
		to, err := c.swept(ctx, l, left)
		if err == nil && (img.Status == Saving || len(left) == 0) {
			c.log.Info("cleaned up after an upload that was cut off", "image", img.ID, "node", img.Node, "status", to)
		}
		return err
	})
	return err
}

// swept writes that an upload was cleaned up after, but for what is left, and gives the
// lease back.
func (c *Catalog) swept(ctx context.Context, l records.Lease, left []Claim) (Status, error) {
	img, err := c.records.UpdateUnder(ctx, l.ID, rules.Under{Lease: l, Step: rules.Drop}, func(img *Image) error {
		img.Reserved, img.Claims = 0, left
		if len(left) == 0 {
			img.Node = ""
		}
		if img.Status != Saving {
			return nil
		}
		return rules.Move(img, Queued)
	})
	if err == nil {
		c.changes.wake()
	}
	return img.Status, err
}
