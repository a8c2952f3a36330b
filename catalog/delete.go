package catalog

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"glanced/catalog/records"
	"glanced/catalog/rules"
	"glanced/catalog/stores"
)

// Delete removes an image: its record first, then what is open is revoked, then
// the bytes go: at once, or where other daemons share the records, after they have had
// the time of a lease to let go of them. Bytes that cannot be removed then are removed later.
// Where other images stand on it, it is held: gone for everybody, and its bytes, which
// count against its owner's quota, stay until the last of them is deleted.
// ErrProtected, ErrNotFound, ErrStoreReadOnly. An upload under way ends with ErrGone.
func (c *Catalog) Delete(ctx context.Context, id string) error {
	var parent *Parent
	remove := func(to Status) func(*Image) error {
		return rules.IfExisting(id, func(img *Image) error {
			if img.Protected {
				return fmt.Errorf("image %s: %w", id, ErrProtected)
			}
			for _, l := range img.Locations {
				if entry, ok := c.stores.Find(l.Store); ok && entry.ReadOnly && !entry.Foreign {
					return fmt.Errorf("image %s cannot be deleted: its data lies in store %s: %w", id, l.Store, ErrStoreReadOnly)
				}
			}
			parent = img.Parent
			return rules.Retire(img, to)
		})
	}
	shared := c.leases.Others(ctx)
	img, err := c.toDeleted(ctx, id, shared, remove(Deleted))
	held := errors.Is(err, ErrInUse)
	if held {
		img, err = c.records.Update(ctx, id, remove(PendingDelete))
	}
	if err != nil {
		return err
	}
	c.withdraw(ctx, id)
	c.intake.Cancel(id)
	ctx, cancel := stores.CleanupContext(ctx)
	defer cancel()
	switch {
	case held:
		c.letGo(ctx, id) // the last child may have gone meanwhile
		return nil
	case parent != nil:
		defer c.letGo(ctx, parent.ID)
	}
	c.discard(ctx, img, shared)
	return nil
}

// toDeleted is an Update that deletes an image. Where other daemons share the records
// they have the time of a lease to let go of its bytes.
func (c *Catalog) toDeleted(ctx context.Context, id string, shared bool, change func(*Image) error) (Image, error) {
	if shared {
		return c.records.UpdateUnder(ctx, id, rules.Under{Lease: c.leases.New(records.BytesLease, id), Step: rules.Take, During: c.leases.During()}, change)
	}
	return c.records.Update(ctx, id, change)
}

// letGo deletes an image that was held, if nothing stands on it any more, and so on
// below it. What fails is done by a sweep.
func (c *Catalog) letGo(ctx context.Context, id string) {
	for id != "" {
		var below *Parent
		shared := c.leases.Others(ctx)
		img, err := c.toDeleted(ctx, id, shared, func(img *Image) error {
			if img.Status != PendingDelete {
				return errNotHeld
			}
			below = img.Parent
			return rules.Retire(img, Deleted)
		})
		if errors.Is(err, errNotHeld) || errors.Is(err, ErrInUse) || errors.Is(err, ErrNotFound) {
			return
		}
		if err != nil {
			c.log.Warn("a deleted image that nothing stands on any more is still held; trying again later", "image", id, "error", err)
			return
		}
		c.discard(ctx, img, shared)
		id = ""
		if below != nil {
			id = below.ID
		}
	}
}

// sweepHeld lets go of what is held by nothing: the last child went as its daemon died.
func (c *Catalog) sweepHeld(ctx context.Context) error {
	for img, err := range c.HeldImages(ctx) {
		if err != nil {
			return err
		}
		q := standingOn(img.ID)
		q.Limit = 1
		if holds, _, err := c.Page(ctx, q, 1); err != nil {
			return err
		} else if len(holds) == 0 {
			c.letGo(ctx, img.ID)
		}
	}
	return nil
}

// errNotHeld ends letGo's transaction.
var errNotHeld = errors.New("the image is not held")

// HeldImages yields the deleted images whose bytes are still there, because others stand
// on them: by their ids, without properties and tags. It is a Walk.
func (c *Catalog) HeldImages(ctx context.Context) iter.Seq2[Image, error] {
	return c.Walk(ctx, Query{Scope: Everything, Status: []Status{PendingDelete}, Brief: true})
}

// Children yields the images that stand on one, of any project, held ones too; see
// HeldImages.
func (c *Catalog) Children(ctx context.Context, id string) iter.Seq2[Image, error] {
	return c.Walk(ctx, standingOn(id))
}

func standingOn(id string) Query {
	return Query{Scope: Everything, Parent: id, Status: []Status{Active, Deactivated, PendingDelete}, Brief: true}
}

// discard removes a deleted image's bytes; shared: the sweep of any daemon does.
func (c *Catalog) discard(ctx context.Context, img Image, shared bool) {
	c.disks.Forget(img)
	if shared {
		return
	}
	if err := c.removeLocations(ctx, img); err != nil {
		c.log.Warn("a deleted image's data is still in its store; trying again later", "image", img.ID, "error", err)
	}
}

// removeLocations deletes a deleted image's bytes, then forgets where they were.
func (c *Catalog) removeLocations(ctx context.Context, img Image) error {
	if len(img.Locations) == 0 {
		return nil
	}
	if err := c.stores.Remove(ctx, img); err != nil {
		return err
	}
	_, err := c.records.Update(ctx, img.ID, func(i *Image) error {
		i.Locations = nil
		return nil
	})
	return err
}
