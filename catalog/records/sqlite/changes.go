package sqlite

import (
	"context"
	"database/sql"

	"glanced/catalog/records"
)

// trimEvery is how many changes pass between two cuts of the log.
const trimEvery = 256

// log adds one entry to the log of changes, and now and then cuts it.
func (s *Store) log(ctx context.Context, tx *sql.Tx, kind records.ChangeKind, img records.Image) error {
	res, err := tx.ExecContext(ctx, `INSERT INTO changes (kind, id, status) VALUES (?, ?, ?)`, kind, img.ID, img.Status)
	if err != nil {
		return err
	}
	seq, err := res.LastInsertId()
	if err != nil || seq%trimEvery != 0 {
		return err
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM changes WHERE seq <= ?`, seq-s.o.ChangeLog)
	return err
}

// Changes implements records.Store.
func (s *Store) Changes(ctx context.Context, since records.Seq, limit int) (all []records.Change, err error) {
	err = s.view(ctx, "read the log of changes", func(tx *sql.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT seq, kind, id, status FROM changes WHERE seq > ? ORDER BY seq LIMIT ?`, since, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c records.Change
			if err := rows.Scan(&c.Seq, &c.Kind, &c.ID, &c.Status); err != nil {
				return err
			}
			all = append(all, c)
		}
		if err := rows.Err(); err != nil {
			return err
		}
		// Sequence numbers have no gaps: a transaction that is rolled back takes
		// its number back too.
		if len(all) > 0 && all[0].Seq != since+1 {
			return records.ErrTrimmed
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// LastSeq implements records.Store.
func (s *Store) LastSeq(ctx context.Context) (seq records.Seq, err error) {
	err = s.view(ctx, "read the log of changes", func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, `SELECT coalesce(max(seq), 0) FROM changes`).Scan(&seq)
	})
	return seq, err
}
