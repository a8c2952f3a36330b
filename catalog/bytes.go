package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"glanced/backends"
	"glanced/backends/replicas"
	"glanced/backends/stored"
)

// openBytes opens an image's stored bytes. Where they lie at several locations, a
// read that fails at one goes on at the next. A location without a version may hold
// any bytes of the image's size, so it is none to go on at: it is opened only where no
// other location can be, and all is read from there.
func (c *Catalog) openBytes(ctx context.Context, img Image) (stored.Bytes, error) {
	var sure, unsure []Location
	for _, l := range c.preferred(img.Locations) {
		if l.Version != "" {
			sure = append(sure, l)
		} else {
			unsure = append(unsure, l)
		}
	}
	b, err := c.openReplicas(ctx, img, sure)
	if err != nil && len(unsure) > 0 {
		c.log.Warn("an image's data cannot be read from its stores; trying those of which the version of the data is not on record", "image", img.ID, "error", err)
	}
	for _, l := range unsure {
		if b != nil {
			break
		}
		var failed error
		if b, failed = c.openLocation(ctx, img, l); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	if b == nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	return b, nil
}

// openReplicas opens the bytes that lie at several locations, as one; of none, it opens
// nothing.
func (c *Catalog) openReplicas(ctx context.Context, img Image, all []Location) (stored.Bytes, error) {
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return c.openLocation(ctx, img, all[0])
	}
	var openers []replicas.Opener
	for _, l := range all {
		openers = append(openers, func(ctx context.Context) (stored.Bytes, error) { return c.openLocation(ctx, img, l) })
	}
	return replicas.Open(ctx, openers, func(i int, err error) {
		c.log.Warn("an image's data cannot be read from one of its stores; trying its others", "image", img.ID, "store", all[i].Store, "error", err)
	})
}

// preferred is an image's locations in the order in which they are tried: by the
// weight of their stores, the greatest first, then as recorded.
func (c *Catalog) preferred(all []Location) []Location {
	weight := func(l Location) int {
		entry, _ := c.configured(l.Store)
		return entry.Weight
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Location) int { return cmp.Compare(weight(b), weight(a)) })
	return all
}

// openLocation opens one location of an image. One that has no version yet, as those
// that Glance or an earlier glanced recorded, is first looked at, and gets one.
func (c *Catalog) openLocation(ctx context.Context, img Image, l Location) (stored.Bytes, error) {
	entry, ok := c.configured(l.Store)
	if !ok {
		return nil, notConfigured(l.Store)
	}
	p := place{c: c, image: img.ID, loc: located(img, l)}
	if p.loc.Version == "" {
		full, err := entry.Store.Stat(ctx, p.loc)
		if err != nil {
			return nil, p.failed(err)
		}
		if full.Version != "" {
			c.stamp(ctx, img.ID, l, full)
		}
		p.loc = full
	}
	b, err := entry.Store.Open(ctx, p.loc)
	if err != nil {
		return nil, p.failed(err)
	}
	c.changed.forget(p)
	return placed{b, p}, nil
}

// located is a recorded location as its store knows it. Where its size is not
// recorded, it is the image's.
func located(img Image, l Location) backends.Location {
	loc := backends.Location{Store: l.Store, URL: l.URL, Size: l.Size, Version: l.Version}
	if loc.Size < 0 && img.Size != nil {
		loc.Size = *img.Size
	}
	return loc
}

// stamp records the size and version of a location that had none. It is done as well
// as can be: what is not recorded now is at the next open.
func (c *Catalog) stamp(ctx context.Context, id string, l Location, full backends.Location) {
	_, err := c.records.Update(ctx, id, func(img *Image) error {
		for i := range img.Locations {
			if have := &img.Locations[i]; have.Store == l.Store && have.URL == l.URL && have.Version == "" {
				have.Size, have.Version = full.Size, full.Version
			}
		}
		return nil
	})
	if err != nil {
		c.log.Warn("cannot record the version of an image's data; trying again when it is next opened", "image", id, "store", l.Store, "error", err)
	}
}

// notConfigured is why bytes in an unknown store cannot be had: with another
// configuration they can.
func notConfigured(id string) error {
	return fmt.Errorf("%w: store %q is not in the configuration", backends.ErrUnavailable, id)
}

// unknownStores logs which stores hold images and are not configured.
func (c *Catalog) unknownStores(ctx context.Context) error {
	counts, err := c.records.Stores(ctx)
	if err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		if _, ok := c.configured(id); !ok {
			c.log.Error("images lie in a store that is not in the configuration: what lies nowhere else cannot be read", "store", id, "locations", counts[id])
		}
	}
	return nil
}

// removeBytes deletes an image's stored bytes; those that are gone already are no
// error, nor those that belong to somebody else and stay. Bytes that are not the recorded ones are not ours to delete.
func (c *Catalog) removeBytes(ctx context.Context, img Image) error {
	var errs []error
	for _, l := range img.Locations {
		entry, ok := c.configured(l.Store)
		if !ok {
			errs = append(errs, notConfigured(l.Store))
			continue
		}
		if err := entry.Store.Delete(ctx, located(img, l)); err != nil && !errors.Is(err, backends.ErrNotFound) && !errors.Is(err, backends.ErrForeign) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// abandon removes what uploads have left.
func (c *Catalog) abandon(ctx context.Context, claims []Claim) error {
	var errs []error
	for _, claim := range claims {
		entry, ok := c.configured(claim.Store)
		if !ok {
			errs = append(errs, notConfigured(claim.Store))
			continue
		}
		errs = append(errs, entry.Store.Abandon(ctx, backends.Claim(claim.Claim)))
	}
	return errors.Join(errs...)
}
