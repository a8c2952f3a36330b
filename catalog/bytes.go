package catalog

import (
	"context"
	"errors"
	"fmt"

	"glanced/backends"
	"glanced/backends/stored"
)

// openBytes opens an image's stored bytes, at the first location that opens.
func (c *Catalog) openBytes(ctx context.Context, img Image) (stored.Bytes, error) {
	var errs []error
	for _, l := range img.Locations {
		b, err := c.openLocation(ctx, img, l)
		if err == nil {
			return b, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrStore, errors.Join(errs...))
}

// openLocation opens one location of an image. One that has no version yet, as those
// that Glance or an earlier glanced recorded, is first looked at, and gets one.
func (c *Catalog) openLocation(ctx context.Context, img Image, l Location) (stored.Bytes, error) {
	entry, ok := c.configured(l.Store)
	if !ok {
		return nil, fmt.Errorf("%w: store %q is not in the configuration", backends.ErrUnavailable, l.Store)
	}
	loc := located(img, l)
	if loc.Version == "" {
		full, err := entry.Store.Stat(ctx, loc)
		if err != nil {
			return nil, err
		}
		if full.Version != "" {
			c.stamp(ctx, img.ID, l, full)
		}
		loc = full
	}
	return entry.Store.Open(ctx, loc)
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

// configured finds a store by its id.
func (c *Catalog) configured(id string) (StoreEntry, bool) {
	for _, s := range c.stores {
		if s.ID == id {
			return s, true
		}
	}
	return StoreEntry{}, false
}

// removeBytes deletes an image's stored bytes; those that are gone already are no
// error. Bytes that are not the recorded ones are not ours to delete.
func (c *Catalog) removeBytes(ctx context.Context, img Image) error {
	var errs []error
	for _, l := range img.Locations {
		entry, ok := c.configured(l.Store)
		if !ok {
			errs = append(errs, fmt.Errorf("%w: store %q is not in the configuration", backends.ErrUnavailable, l.Store))
			continue
		}
		if err := entry.Store.Delete(ctx, located(img, l)); err != nil && !errors.Is(err, backends.ErrNotFound) {
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
			errs = append(errs, fmt.Errorf("%w: store %q is not in the configuration", backends.ErrUnavailable, claim.Store))
			continue
		}
		errs = append(errs, entry.Store.Abandon(ctx, backends.Claim(claim.Claim)))
	}
	return errors.Join(errs...)
}
