package sqltx

import (
	"context"
	"database/sql"
	"errors"

	"glanced/catalog/records"
)

// Quota implements records.Tx.
func (t *tx) Quota(ctx context.Context, project string) (*records.Quota, error) {
	var q records.Quota
	err := t.row(ctx, `SELECT image_count_total, image_size_total FROM quotas WHERE project = ?`, []any{project}, &q.ImageCountTotal, &q.ImageSizeTotal)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &q, err
}

// SetQuota implements records.Tx.
func (t *tx) SetQuota(ctx context.Context, project string, q *records.Quota) error {
	if q == nil {
		return t.exec(ctx, `DELETE FROM quotas WHERE project = ?`, project)
	}
	return t.exec(ctx, `INSERT INTO quotas (project, image_count_total, image_size_total) VALUES (?, ?, ?)
		ON CONFLICT (project) DO UPDATE SET image_count_total = excluded.image_count_total, image_size_total = excluded.image_size_total`,
		project, q.ImageCountTotal, q.ImageSizeTotal)
}

// Usage implements records.Tx.
func (t *tx) Usage(ctx context.Context, project string) (u records.Usage, err error) {
	err = t.row(ctx, `SELECT image_count, image_bytes FROM usage WHERE project = ?`, []any{project}, &u.ImageCount, &u.ImageBytes)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return u, err
}

// AddUsage implements records.Tx.
func (t *tx) AddUsage(ctx context.Context, project string, more records.Usage) (u records.Usage, err error) {
	err = t.row(ctx, `INSERT INTO usage (project, image_count, image_bytes) VALUES (?, ?, ?)
		ON CONFLICT (project) DO UPDATE SET
			image_count = usage.image_count + excluded.image_count,
			image_bytes = usage.image_bytes + excluded.image_bytes
		RETURNING image_count, image_bytes`,
		[]any{project, more.ImageCount, more.ImageBytes}, &u.ImageCount, &u.ImageBytes)
	return u, err
}
