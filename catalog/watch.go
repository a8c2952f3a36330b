package catalog

import (
	"context"
	"errors"
	"iter"
	"time"

	"glanced/catalog/records"
	"glanced/catalog/stores"
)

const (
	pollEvery  = time.Second // for changes that other daemons make
	changeStep = 256         // log entries read at once
)

// LastSeq is the number of the newest change.
func (c *Catalog) LastSeq(ctx context.Context) (Seq, error) { return c.records.LastSeq(ctx) }

// Watch yields every change after since, of this and other daemons, oldest
// first, and waits for more until ctx or the catalog ends. Own changes come at
// once, those of others within a second. An error is yielded once and ends it;
// ErrTrimmed means that the log no longer reaches back to since: take LastSeq,
// Walk anew, and Watch from there.
func (c *Catalog) Watch(ctx context.Context, since Seq) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		for {
			more := c.records.Changed()
			all, err := c.records.Changes(ctx, since, changeStep)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(Change{}, err)
				return
			}
			for _, ch := range all {
				since = ch.Seq
				if !yield(ch, nil) {
					return
				}
			}
			if len(all) == changeStep {
				continue
			}
			select {
			case <-more:
			case <-ctx.Done():
				return
			case <-c.done:
				return
			}
		}
	}
}

// follow polls the log of changes until ctx ends: it wakes the watchers and
// revokes what another daemon has taken the right to. What could not be written of failed
// uploads is tried again now and then.
func (c *Catalog) follow(ctx context.Context, since Seq) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		more := c.records.Changed()
		next, err := c.catchUp(ctx, since)
		if err != nil && ctx.Err() == nil {
			c.log.Error("cannot read the log of changes; trying again", "error", err)
		}
		if next != since {
			since = next
			// Their own wait may have been taken before a change of another daemon.
			c.records.Wake()
			continue
		}
		select {
		case <-more:
		case <-tick.C:
			c.intake.AbortAgain(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// catchUp revokes by the changes after since, and returns the last one's number.
func (c *Catalog) catchUp(ctx context.Context, since Seq) (Seq, error) {
	all, err := c.records.Changes(ctx, since, changeStep)
	if errors.Is(err, records.ErrTrimmed) {
		last, err := c.records.LastSeq(ctx)
		if err != nil {
			return since, err
		}
		if err := errors.Join(c.disks.RecheckAll(ctx), c.disks.SweepSpool(ctx)); err != nil {
			return since, err
		}
		return last, nil
	}
	if err != nil {
		return since, err
	}
	for _, ch := range all {
		if ch.Kind == Removed {
			c.intake.Cancel(ch.ID)
		}
		if err := c.disks.Recheck(ctx, ch.ID); err != nil {
			return since, err
		}
		if ch.Kind == Removed {
			if err := c.forget(ctx, ch.ID); err != nil {
				return since, err
			}
		}
		since = ch.Seq
	}
	return since, nil
}

// forget has what this daemon keeps of an image forgotten, which another one may have
// deleted.
func (c *Catalog) forget(ctx context.Context, id string) error {
	img, err := c.records.Get(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound):
		img.ID = id
	case err != nil:
		return err
	}
	c.disks.Forget(img)
	return nil
}

// withdraw is disks' Recheck for who has just changed image id. Where the records cannot be
// read, follow does it later.
func (c *Catalog) withdraw(ctx context.Context, id string) {
	ctx, cancel := stores.CleanupContext(ctx)
	defer cancel()
	if err := c.disks.Recheck(ctx, id); err != nil {
		c.log.Warn("whether an image's readers may read on cannot be told now", "image", id, "error", err)
	}
}
