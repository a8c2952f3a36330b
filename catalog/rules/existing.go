package rules

import (
	"context"
	"fmt"
	"iter"

	"glanced/catalog/records"
)

// Gone tells whether there is no such image any more, to whoever asks: it was deleted,
// though what stands on it may still hold its bytes.
func Gone(img records.Image) bool {
	return img.Status == records.Deleted || img.Status == records.PendingDelete
}

// GetExisting is Get for an image that is not gone: ErrNotFound.
func (r *Records) GetExisting(ctx context.Context, id string) (records.Image, error) {
	img, err := r.Get(ctx, id)
	if err != nil {
		return records.Image{}, err
	}
	if Gone(img) {
		return records.Image{}, fmt.Errorf("image %s: %w", id, records.ErrNotFound)
	}
	return img, nil
}

// UpdateExisting is Update for an image that is not gone: ErrNotFound.
func (r *Records) UpdateExisting(ctx context.Context, id string, change func(*records.Image) error) (records.Image, error) {
	return r.Update(ctx, id, IfExisting(id, change))
}

// IfExisting is change for an image that is not gone; of one that is, it makes ErrNotFound.
func IfExisting(id string, change func(*records.Image) error) func(*records.Image) error {
	return func(img *records.Image) error {
		if Gone(*img) {
			return fmt.Errorf("image %s: %w", id, records.ErrNotFound)
		}
		return change(img)
	}
}

// walkBytes is what Walk holds of the records at a time.
const walkBytes = 128 << 10

// Walk yields all images that q selects, by their ids, some at a time: each is as it was
// when its turn came. Between two of them nothing of the database is held, so yield may
// take its time. q has neither Sort nor Marker nor Limit. An error is yielded once and
// ends it.
func (r *Records) Walk(ctx context.Context, q records.Query) iter.Seq2[records.Image, error] {
	q.Sort = []records.SortKey{{Key: "id"}}
	return func(yield func(records.Image, error) bool) {
		for {
			page, more, err := r.Page(ctx, q, walkBytes)
			if err != nil {
				yield(records.Image{}, err)
				return
			}
			for _, img := range page {
				if !yield(img, nil) {
					return
				}
			}
			if !more || len(page) == 0 {
				return
			}
			q.AfterID = page[len(page)-1].ID
		}
	}
}
