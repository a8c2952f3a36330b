package stores

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"glanced/backends"
	"glanced/catalog/records"
)

// Located is a recorded location of img as its store knows it. Where its size is not
// recorded, it is the image's.
func Located(img records.Image, l records.Location) backends.Location {
	loc := backends.Location{Store: l.Store, URL: l.URL, Size: l.Size, Version: l.Version}
	if loc.Size < 0 && img.Size != nil {
		loc.Size = *img.Size
	}
	return loc
}

// Preferred is an image's locations in the order in which they are tried: by the
// weight of their stores, the greatest first, then as recorded.
func (s *Set) Preferred(all []records.Location) []records.Location {
	weight := func(l records.Location) int {
		entry, _ := s.Find(l.Store)
		return entry.Weight
	}
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b records.Location) int { return cmp.Compare(weight(b), weight(a)) })
	return all
}

// Remove deletes an image's stored bytes; those that are gone already are no
// error, nor those that belong to somebody else and stay. Bytes that are not the recorded
// ones are not ours to delete.
func (s *Set) Remove(ctx context.Context, img records.Image) error {
	var errs []error
	for _, l := range img.Locations {
		entry, ok := s.Find(l.Store)
		if !ok {
			errs = append(errs, NotConfigured(l.Store))
			continue
		}
		if err := entry.Store.Delete(ctx, Located(img, l)); err != nil && !errors.Is(err, backends.ErrNotFound) && !errors.Is(err, backends.ErrForeign) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Abandon removes what uploads have left.
func (s *Set) Abandon(ctx context.Context, claims []records.Claim) error {
	var errs []error
	for _, claim := range claims {
		entry, ok := s.Find(claim.Store)
		if !ok {
			errs = append(errs, NotConfigured(claim.Store))
			continue
		}
		errs = append(errs, entry.Store.Abandon(ctx, backends.Claim(claim.Claim)))
	}
	return errors.Join(errs...)
}
