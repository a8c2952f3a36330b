package rules

import (
	"context"
	"fmt"
	"slices"

	"glanced/catalog/records"
)

const mib = 1 << 20

// Quota is the project's own limits or the default ones; set tells which.
func (r *Records) Quota(ctx context.Context, project string) (q records.Quota, set bool, err error) {
	err = r.db.View(ctx, "quota of project "+project, func(tx records.Tx) (err error) {
		q, set, err = r.quota(ctx, tx, project)
		return err
	})
	return q, set, err
}

func (r *Records) quota(ctx context.Context, tx records.Tx, project string) (q records.Quota, set bool, err error) {
	own, err := tx.Quota(ctx, project)
	if err != nil || own == nil {
		return r.o.DefaultQuota, false, err
	}
	return *own, true, nil
}

// SetQuota gives a project its own limits; nil: back to the default.
func (r *Records) SetQuota(ctx context.Context, project string, q *records.Quota) error {
	return r.db.Change(ctx, "set quota of project "+project, func(tx records.Tx) error {
		return tx.SetQuota(ctx, project, q)
	})
}

// Usage is what a project has.
func (r *Records) Usage(ctx context.Context, project string) (u records.Usage, err error) {
	err = r.db.View(ctx, "usage of project "+project, func(tx records.Tx) (err error) {
		u, err = tx.Usage(ctx, project)
		return err
	})
	return u, err
}

// weight is what an image adds to its owner's sums.
func weight(img records.Image) records.Usage {
	if img.Status == records.Deleted {
		return records.Usage{}
	}
	u := records.Usage{ImageCount: 1, ImageBytes: img.Reserved}
	if img.Size != nil {
		u.ImageBytes += *img.Size
	}
	return u
}

// count moves the sums of the projects concerned from old (nil: there was none) to
// img, and checks the quota of img's owner.
func (r *Records) count(ctx context.Context, tx records.Tx, old *records.Image, img records.Image) error {
	own := records.Usage{} // what of the owner's sums is this image's until now
	more := map[string]records.Usage{img.Owner: weight(img)}
	if old != nil {
		less := weight(*old)
		if old.Owner == img.Owner {
			own = less
		}
		have := more[old.Owner]
		more[old.Owner] = records.Usage{ImageCount: have.ImageCount - less.ImageCount, ImageBytes: have.ImageBytes - less.ImageBytes}
	}
	projects := []string{img.Owner}
	if old != nil && old.Owner != img.Owner {
		// In one order for all, so that no two wait for each other.
		projects = append(projects, old.Owner)
		slices.Sort(projects)
	}
	for _, project := range projects {
		d := more[project]
		if d == (records.Usage{}) {
			continue
		}
		after, err := tx.AddUsage(ctx, project, d)
		if err != nil {
			return fmt.Errorf("usage of project %s: %w", project, err)
		}
		if project != img.Owner {
			continue
		}
		if err := r.checkQuota(ctx, tx, project, after, d, own.ImageBytes); err != nil {
			return err
		}
	}
	return nil
}

// checkQuota compares what a project has after it has got more with its limits, where
// it has grown. So a project whose limit was lowered below what it has can still
// change and delete its images. own is how many bytes the image that grows had
// before: whoever is refused is told what the others take.
func (r *Records) checkQuota(ctx context.Context, tx records.Tx, project string, after, more records.Usage, own int64) error {
	if more.ImageCount <= 0 && more.ImageBytes <= 0 {
		return nil
	}
	q, _, err := r.quota(ctx, tx, project)
	if err != nil {
		return err
	}
	if q.ImageCountTotal > 0 && more.ImageCount > 0 && after.ImageCount > q.ImageCountTotal {
		return &records.QuotaError{Project: project, Resource: "image_count_total",
			Limit: q.ImageCountTotal, Usage: after.ImageCount - more.ImageCount, Delta: more.ImageCount}
	}
	// Compared in MiB rounded up, so that a limit near the largest int64 cannot overflow.
	if q.ImageSizeTotal > 0 && more.ImageBytes > 0 && ceilMiB(after.ImageBytes) > q.ImageSizeTotal {
		return &records.QuotaError{Project: project, Resource: "image_size_total",
			Limit: q.ImageSizeTotal, Usage: ceilMiB(after.ImageBytes - more.ImageBytes - own), Delta: ceilMiB(more.ImageBytes + own)}
	}
	return nil
}

func ceilMiB(n int64) int64 { return n/mib + (n%mib+mib-1)/mib }
