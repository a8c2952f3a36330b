// Package rules is what holds for image records whatever database keeps them: the
// moves of the status machine, quotas, the edge between a child and its parent, which
// images are gone, what counts as a change, and how a record is spelled. It stands on the transactions of
// package records, and knows nothing of SQL, bytes or protocols.
package rules

import (
	"context"
	"fmt"
	"math"
	"reflect"

	"glanced/catalog/records"
)

// Options of New.
type Options struct {
	DefaultQuota records.Quota // of projects without their own
	ChangeLog    int64         // entries of the log of changes to keep at least; 0 = 65536
}

// Records are the records of all images, by the rules. Every method is one
// transaction: durable when it returns nil, or without effect. Safe for concurrent use.
type Records struct {
	db      records.DB
	o       Options
	changed hub
}

// New is the records that db keeps; the caller closes db after the last call.
func New(db records.DB, o Options) *Records {
	if o.ChangeLog <= 0 {
		o.ChangeLog = 1 << 16
	}
	return &Records{db: db, o: o, changed: hub{next: make(chan struct{})}}
}

// Create adds an image, checking its owner's quotas; ErrExists, QuotaError.
func (r *Records) Create(ctx context.Context, img records.Image) (records.Image, error) {
	img = normal(img)
	err := r.db.Change(ctx, "create image "+img.ID, func(tx records.Tx) error {
		if err := tx.Insert(ctx, img); err != nil {
			return err
		}
		if err := r.count(ctx, tx, nil, img); err != nil {
			return err
		}
		return r.log(ctx, tx, records.Created, img)
	})
	if err != nil {
		return records.Image{}, err
	}
	r.Wake()
	return img, nil
}

// Get is any image, one with Status Deleted too; ErrNotFound if there never was one.
func (r *Records) Get(ctx context.Context, id string) (img records.Image, err error) {
	err = r.db.View(ctx, "get image "+id, func(tx records.Tx) (err error) {
		img, err = tx.Image(ctx, id)
		return err
	})
	return img, err
}

// List selects images; ErrMarker.
func (r *Records) List(ctx context.Context, q records.Query) ([]records.Image, error) {
	all, _, err := r.Page(ctx, q, math.MaxInt64)
	return all, err
}

// Page is the beginning of List; see records.Tx.
func (r *Records) Page(ctx context.Context, q records.Query, maxBytes int64) (images []records.Image, more bool, err error) {
	err = r.db.View(ctx, "list images", func(tx records.Tx) (err error) {
		images, more, err = tx.Page(ctx, q, maxBytes)
		return err
	})
	return images, more, err
}

// Counts is how many images there are in each status, deleted ones left out.
func (r *Records) Counts(ctx context.Context) (n map[records.Status]int64, err error) {
	err = r.db.View(ctx, "count images", func(tx records.Tx) (err error) {
		n, err = tx.Counts(ctx)
		return err
	})
	return n, err
}

// Stores is how many Locations there are in each store, by its id; those of deleted
// images too, whose bytes are still there.
func (r *Records) Stores(ctx context.Context) (n map[string]int64, err error) {
	err = r.db.View(ctx, "count locations", func(tx records.Tx) (err error) {
		n, err = tx.Stores(ctx)
		return err
	})
	return n, err
}

// Update reads, lets change edit a copy, and writes, where the rules allow it:
// a status moves as Moves says (StatusError), the owner's sums stay within its quotas
// where they grow (QuotaError), a Parent is set only where that image is active and
// has its hash (ErrParent), and no image becomes deleted that is the Parent of one
// that is not (ErrInUse). An error of change is returned as it is and nothing is
// written. UpdatedAt is set unless only the upload fields (Node, Reserved, Claims)
// changed, or what is known of a Location (Size, Version); those are not logged as a
// change either. change may be called more than once, each time with the record as it
// is then: it must set anew all that it leaves outside, be quick, and call nothing of
// Records.
func (r *Records) Update(ctx context.Context, id string, change func(*records.Image) error) (records.Image, error) {
	return r.update(ctx, id, nil, change)
}

func (r *Records) update(ctx context.Context, id string, under *Under, change func(*records.Image) error) (img records.Image, err error) {
	var refused error // by change
	logged := false
	err = r.db.Change(ctx, "update image "+id, func(tx records.Tx) error {
		refused = nil
		old, err := tx.Image(ctx, id)
		if err != nil {
			return err
		}
		img = old.Clone()
		// Who has lost a lease is told that first; who wants one, what the image is.
		if under != nil && under.Step != Take {
			if err := under.check(ctx, tx); err != nil {
				return err
			}
		}
		if refused = change(&img); refused != nil {
			return refused
		}
		img.ID = id
		img = normal(img)
		if under != nil && under.Step == Take {
			if err := under.check(ctx, tx); err != nil {
				return err
			}
		}
		logged, err = r.write(ctx, tx, old, &img)
		return err
	})
	switch {
	case refused != nil:
		return records.Image{}, refused
	case err != nil:
		return records.Image{}, err
	}
	if logged {
		r.Wake()
	}
	return img, nil
}

// write turns old into img, as Update says, and tells whether that is a change which is
// logged; it sets img's UpdatedAt.
func (r *Records) write(ctx context.Context, tx records.Tx, old records.Image, img *records.Image) (logged bool, err error) {
	if reflect.DeepEqual(*img, old) {
		return false, nil
	}
	logged = !reflect.DeepEqual(visible(*img), visible(old))
	if logged {
		img.UpdatedAt = now()
	}
	if err := checkMove(old, *img); err != nil {
		return logged, err
	}
	if err := checkParents(ctx, tx, old, *img); err != nil {
		return logged, err
	}
	if err := tx.Write(ctx, old, *img); err != nil {
		return logged, err
	}
	if err := r.count(ctx, tx, &old, *img); err != nil {
		return logged, err
	}
	switch {
	case !logged:
		return false, nil
	case img.Status == records.Deleted && old.Status != records.Deleted:
		return true, r.log(ctx, tx, records.Removed, *img)
	}
	return true, r.log(ctx, tx, records.Updated, *img)
}

// checkMove lets a status become only what Moves says.
func checkMove(old, img records.Image) error {
	if img.Status == old.Status {
		return nil
	}
	moved := old
	if err := Move(&moved, img.Status); err != nil {
		return fmt.Errorf("update image %s: %w", img.ID, err)
	}
	return nil
}
