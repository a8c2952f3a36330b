package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"glanced/catalog/records"
)

const mib = 1 << 20

// Quota implements records.Store.
func (s *Store) Quota(ctx context.Context, project string) (q records.Quota, set bool, err error) {
	err = s.view(ctx, "quota of project "+project, func(tx *sql.Tx) (err error) {
		q, set, err = s.quota(ctx, tx, project)
		return err
	})
	return q, set, err
}

func (s *Store) quota(ctx context.Context, tx *sql.Tx, project string) (q records.Quota, set bool, err error) {
	err = tx.QueryRowContext(ctx, `SELECT image_count_total, image_size_total FROM quotas WHERE project = ?`, project).
		Scan(&q.ImageCountTotal, &q.ImageSizeTotal)
	if errors.Is(err, sql.ErrNoRows) {
		return s.o.DefaultQuota, false, nil
	}
	return q, err == nil, err
}

// SetQuota implements records.Store.
func (s *Store) SetQuota(ctx context.Context, project string, q *records.Quota) error {
	return s.change(ctx, "set quota of project "+project, func(tx *sql.Tx) error {
		if q == nil {
			_, err := tx.ExecContext(ctx, `DELETE FROM quotas WHERE project = ?`, project)
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO quotas VALUES (?, ?, ?)`, project, q.ImageCountTotal, q.ImageSizeTotal)
		return err
	})
}

// Usage implements records.Store.
func (s *Store) Usage(ctx context.Context, project string) (u records.Usage, err error) {
	err = s.view(ctx, "usage of project "+project, func(tx *sql.Tx) (err error) {
		u, err = s.usage(ctx, tx, project)
		return err
	})
	return u, err
}

func (s *Store) usage(ctx context.Context, tx *sql.Tx, project string) (u records.Usage, err error) {
	err = tx.QueryRowContext(ctx, `SELECT image_count, image_bytes FROM usage WHERE project = ?`, project).
		Scan(&u.ImageCount, &u.ImageBytes)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return u, err
}

// checkQuota compares what project has now, inside tx, with its limits, where it
// has grown since before. So a project whose limit was lowered below what it has
// can still change and delete its images. own is how much of before is of the
// image that grows: whoever is refused is told what the others take.
func (s *Store) checkQuota(ctx context.Context, tx *sql.Tx, project string, before records.Usage, own int64) error {
	after, err := s.usage(ctx, tx, project)
	if err != nil {
		return err
	}
	if after.ImageCount <= before.ImageCount && after.ImageBytes <= before.ImageBytes {
		return nil
	}
	q, _, err := s.quota(ctx, tx, project)
	if err != nil {
		return err
	}
	if q.ImageCountTotal > 0 && after.ImageCount > before.ImageCount && after.ImageCount > q.ImageCountTotal {
		return &records.QuotaError{Project: project, Resource: "image_count_total",
			Limit: q.ImageCountTotal, Usage: before.ImageCount, Delta: after.ImageCount - before.ImageCount}
	}
	// Compared in MiB rounded up, so that a limit near the largest int64 cannot overflow.
	if q.ImageSizeTotal > 0 && after.ImageBytes > before.ImageBytes && ceilMiB(after.ImageBytes) > q.ImageSizeTotal {
		return &records.QuotaError{Project: project, Resource: "image_size_total",
			Limit: q.ImageSizeTotal, Usage: ceilMiB(before.ImageBytes - own), Delta: ceilMiB(after.ImageBytes - before.ImageBytes + own)}
	}
	return nil
}

func ceilMiB(n int64) int64 { return n/mib + (n%mib+mib-1)/mib }
