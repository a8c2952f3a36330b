package sqltx

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"glanced/catalog/records"
)

// Lease implements records.Tx.
func (t *tx) Lease(ctx context.Context, kind, id string) (*records.Lease, error) {
	l := records.Lease{Kind: kind, ID: id}
	err := t.row(ctx, `SELECT node, holder, until <= `+t.d.Now+` FROM leases WHERE kind = ? AND id = ?`+t.lock, []any{kind, id}, &l.Node, &l.Holder, &l.Lapsed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &l, err
}

// Leases implements records.Tx.
func (t *tx) Leases(ctx context.Context, kind string) (all []records.Lease, err error) {
	err = t.rows(ctx, `SELECT id, node, holder, until <= `+t.d.Now+` FROM leases WHERE kind = ? ORDER BY id`, []any{kind}, func(rows *sql.Rows) error {
		l := records.Lease{Kind: kind}
		err := rows.Scan(&l.ID, &l.Node, &l.Holder, &l.Lapsed)
		all = append(all, l)
		return err
	})
	return all, err
}

// SetLease implements records.Tx.
func (t *tx) SetLease(ctx context.Context, l records.Lease, during time.Duration) error {
	return t.exec(ctx, `INSERT INTO leases (kind, id, node, holder, until) VALUES (?, ?, ?, ?, `+t.d.Now+` + ?)
		ON CONFLICT (kind, id) DO UPDATE SET node = excluded.node, holder = excluded.holder, until = excluded.until`,
		l.Kind, l.ID, l.Node, l.Holder, during.Microseconds())
}

// RenewLeases implements records.Tx.
func (t *tx) RenewLeases(ctx context.Context, holders []string, during time.Duration) (kept []string, err error) {
	of, list := t.d.OneOf("holder", holders)
	err = t.rows(ctx, `UPDATE leases SET until = `+t.d.Now+` + ? WHERE `+of+` RETURNING holder`, []any{during.Microseconds(), list}, func(rows *sql.Rows) error {
		var holder string
		err := rows.Scan(&holder)
		kept = append(kept, holder)
		return err
	})
	return kept, err
}

// ClearLeases implements records.Tx.
func (t *tx) ClearLeases(ctx context.Context, ago time.Duration) error {
	return t.exec(ctx, `DELETE FROM leases WHERE until <= `+t.d.Now+` - ?`, ago.Microseconds())
}

// DropLease implements records.Tx.
func (t *tx) DropLease(ctx context.Context, kind, id string) error {
	return t.exec(ctx, `DELETE FROM leases WHERE kind = ? AND id = ?`, kind, id)
}
