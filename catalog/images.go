package catalog

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/google/uuid"

	"glanced/catalog/fields"
	"glanced/catalog/rules"
)

// Create adds a queued image: what a user may set is taken from img, an id is
// made up where there is none. ErrInvalid, ErrExists (ids of deleted images are
// not used again), ErrQuota.
func (c *Catalog) Create(ctx context.Context, img Image) (Image, error) {
	fresh := Image{ID: img.ID, Status: Queued, Visibility: img.Visibility}
	copySettable(&fresh, img)
	if fresh.ID == "" {
		fresh.ID = uuid.NewString()
	}
	if fresh.Visibility == "" {
		fresh.Visibility = "shared"
	}
	if err := validate(&fresh, 0); err != nil {
		return Image{}, err
	}
	return c.records.Create(ctx, fresh)
}

// copySettable copies the fields that users may set.
func copySettable(to *Image, from Image) {
	from = from.Clone()
	for _, f := range fields.Every() {
		if f.Edited() {
			f.Copy(to, &from)
		}
	}
}

// Get is one image; ErrNotFound for a deleted one too.
func (c *Catalog) Get(ctx context.Context, id string) (Image, error) {
	return c.records.GetExisting(ctx, id)
}

// Page selects images, as many as take maxBytes in memory and one at least where there
// is one; more tells that there are more, after q.Limit too. ErrMarker, ErrInvalid (sort
// key or comparison, or more tags or properties than an image can have).
func (c *Catalog) Page(ctx context.Context, q Query, maxBytes int64) (images []Image, more bool, err error) {
	if err := checkQuery(q); err != nil {
		return nil, false, err
	}
	return c.records.Page(ctx, q, maxBytes)
}

// Walk yields all images that q selects, by their ids, some at a time: each is as it was
// when its turn came. Between two of them nothing of the database is held, so yield may
// take its time. q has neither Sort nor Marker nor Limit. An error is yielded once and
// ends it.
func (c *Catalog) Walk(ctx context.Context, q Query) iter.Seq2[Image, error] {
	if err := checkQuery(q); err != nil {
		return func(yield func(Image, error) bool) { yield(Image{}, err) }
	}
	return c.records.Walk(ctx, q)
}

// checkQuery refuses what no list can be asked for.
func checkQuery(q Query) error {
	if len(q.Tags) > fields.MaxTags {
		return invalid("tag", "%d tags are asked for, an image has at most %d", len(q.Tags), fields.MaxTags)
	}
	if len(q.Properties) > fields.MaxProperties {
		return invalid("properties", "%d properties are asked for, an image has at most %d", len(q.Properties), fields.MaxProperties)
	}
	for i, k := range q.Sort {
		if !slices.Contains(fields.SortKeys(), k.Key) {
			return invalid("sort_key", "%q is not one of %v", rules.Clip(k.Key), fields.SortKeys())
		}
		if slices.ContainsFunc(q.Sort[:i], func(o SortKey) bool { return o.Key == k.Key }) {
			return invalid("sort_key", "%q is given twice", k.Key)
		}
	}
	for _, t := range slices.Concat(q.CreatedAt, q.UpdatedAt) {
		if !slices.Contains([]string{"eq", "neq", "gt", "gte", "lt", "lte"}, t.Op) {
			return invalid("operator", "%q is not one of eq, neq, gt, gte, lt, lte", rules.Clip(t.Op))
		}
	}
	return nil
}

// Update lets change edit what a user may set; edits of other fields are
// dropped. change may be called while the database is locked: it must be quick
// and call nothing of the catalog. Its error is returned as it is. ErrFixed when
// a format is changed after the upload began. Whoever may no longer read the image
// afterwards, and has it open, is cut off when it returns.
func (c *Catalog) Update(ctx context.Context, id string, change func(*Image) error) (Image, error) {
	img, err := c.records.UpdateExisting(ctx, id, func(img *Image) error {
		edited := img.Clone()
		if err := change(&edited); err != nil {
			return err
		}
		if img.Status != Queued && fixedDiffer(img, &edited) {
			return fmt.Errorf("image %s is %s: %w", id, img.Status, ErrFixed)
		}
		before := metadataBytes(img)
		copySettable(img, edited)
		return validate(img, before)
	})
	if err == nil {
		c.withdraw(ctx, id)
	}
	return img, err
}

// fixedDiffer tells whether the two differ in a field that is fixed once there is data.
func fixedDiffer(a, b *Image) bool {
	return slices.ContainsFunc(fields.All(), func(f *fields.Field) bool { return f.Fixed && !f.Of(a).Equal(f.Of(b)) })
}

// Deactivate withdraws an active image: it is kept, but cannot be opened, and
// what is open is revoked. Without effect on a deactivated one.
func (c *Catalog) Deactivate(ctx context.Context, id string) error {
	return c.toggle(ctx, id, Active, Deactivated)
}

// Reactivate undoes Deactivate. Without effect on an active image.
func (c *Catalog) Reactivate(ctx context.Context, id string) error {
	return c.toggle(ctx, id, Deactivated, Active)
}

func (c *Catalog) toggle(ctx context.Context, id string, from, to Status) error {
	_, err := c.records.UpdateExisting(ctx, id, func(img *Image) error {
		if img.Status == to {
			return nil
		}
		if img.Status != from {
			return &StatusError{ID: id, Have: img.Status, Want: to}
		}
		return rules.Move(img, to)
	})
	if err == nil {
		c.withdraw(ctx, id)
	}
	return err
}
