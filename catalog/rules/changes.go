package rules

import (
	"context"
	"slices"
	"time"

	"glanced/catalog/records"
)

// trimEvery is how many changes pass between two cuts of the log.
const trimEvery = 256

// log adds one entry to the log of changes, and now and then cuts it. It comes last in
// a transaction: from here to its end others wait with theirs.
func (r *Records) log(ctx context.Context, tx records.Tx, kind records.ChangeKind, img records.Image) error {
	seq, err := tx.Append(ctx, records.Change{Kind: kind, ID: img.ID, Status: img.Status})
	if err != nil || seq%trimEvery != 0 {
		return err
	}
	return tx.Trim(ctx, seq-records.Seq(r.o.ChangeLog))
}

// Changes returns up to limit log entries after since, oldest first. The log is
// bounded: ErrTrimmed when entries after since are gone already.
func (r *Records) Changes(ctx context.Context, since records.Seq, limit int) (all []records.Change, err error) {
	err = r.db.View(ctx, "read the log of changes", func(tx records.Tx) (err error) {
		all, err = tx.Changes(ctx, since, limit)
		// Numbers have no gaps.
		if err == nil && len(all) > 0 && all[0].Seq != since+1 {
			err = records.ErrTrimmed
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// LastSeq is the number of the newest change.
func (r *Records) LastSeq(ctx context.Context) (seq records.Seq, err error) {
	err = r.db.View(ctx, "read the log of changes", func(tx records.Tx) (err error) {
		seq, err = tx.LastSeq(ctx)
		return err
	})
	return seq, err
}

// visible is img without what changes unseen: the upload fields, and what is known
// of its locations.
func visible(img records.Image) records.Image {
	img.Node, img.Reserved, img.Claims = "", 0, nil
	img.Locations = slices.Clone(img.Locations)
	for i := range img.Locations {
		img.Locations[i].Size, img.Locations[i].Version = 0, ""
	}
	return img
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// normal is img as it reads back: times in UTC microseconds, tags sorted and
// unique, no nil map, no empty slices.
func normal(img records.Image) records.Image {
	img = img.Clone()
	if img.CreatedAt.IsZero() {
		img.CreatedAt = now()
	}
	if img.UpdatedAt.IsZero() {
		img.UpdatedAt = img.CreatedAt
	}
	img.CreatedAt = img.CreatedAt.UTC().Truncate(time.Microsecond)
	img.UpdatedAt = img.UpdatedAt.UTC().Truncate(time.Microsecond)
	slices.Sort(img.Tags)
	img.Tags = slices.Compact(img.Tags)
	if len(img.Tags) == 0 {
		img.Tags = nil
	}
	if len(img.Snapshots) == 0 {
		img.Snapshots = nil
	}
	if img.Properties == nil {
		img.Properties = map[string]string{}
	}
	for i := range img.Locations {
		if len(img.Locations[i].Metadata) == 0 {
			img.Locations[i].Metadata = nil
		}
	}
	if len(img.Locations) == 0 {
		img.Locations = nil
	}
	if len(img.Claims) == 0 {
		img.Claims = nil
	}
	return img
}
