package catalog

import (
	"context"
	"time"

	"glanced/catalog/records"
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
		if err := c.intake.Sweep(ctx, img); err != nil {
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
			if err := c.intake.Sweep(ctx, img); err != nil {
				return err
			}
		}
	}
	return c.sweepHeld(ctx)
}

// sweepBytes removes the bytes of a deleted image, unless others still have the time to
// let go of them, or are removing them.
func (c *Catalog) sweepBytes(ctx context.Context, img Image) error {
	_, err := c.leases.While(ctx, records.BytesLease, img.ID, func(records.Lease) error {
		if err := c.removeLocations(ctx, img); err != nil {
			c.log.Warn("a deleted image's data is still in its store", "image", img.ID, "error", err)
		}
		return nil
	})
	return err
}

// tidy sweeps until ctx ends, twice within the time of a lease. It is apart from what
// renews leases, as a store may be slow.
func (c *Catalog) tidy(ctx context.Context) {
	tick := time.NewTicker(c.leases.During() / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := c.sweep(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("cannot clean up after uploads and deletions; trying again", "error", err)
		}
	}
}
