package sqltx

import (
	"context"
	"database/sql"

	"glanced/catalog/records"
)

// Append implements records.Tx.
func (t *tx) Append(ctx context.Context, c records.Change) (seq records.Seq, err error) {
	err = t.row(ctx, t.d.Append, []any{c.Kind, c.ID, c.Status}, &seq)
	return seq, err
}

// Changes implements records.Tx.
func (t *tx) Changes(ctx context.Context, since records.Seq, limit int) (all []records.Change, err error) {
	err = t.rows(ctx, `SELECT seq, kind, id, status FROM changes WHERE seq > ? ORDER BY seq LIMIT ?`, []any{since, limit}, func(rows *sql.Rows) error {
		var c records.Change
		err := rows.Scan(&c.Seq, &c.Kind, &c.ID, &c.Status)
		all = append(all, c)
		return err
	})
	return all, err
}

// LastSeq implements records.Tx.
func (t *tx) LastSeq(ctx context.Context) (seq records.Seq, err error) {
	err = t.row(ctx, `SELECT coalesce(max(seq), 0) FROM changes`, nil, &seq)
	return seq, err
}

// Trim implements records.Tx.
func (t *tx) Trim(ctx context.Context, last records.Seq) error {
	return t.exec(ctx, `DELETE FROM changes WHERE seq <= ?`, last)
}
