package sqltx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrNewer is a database that a newer version of the program has migrated.
var ErrNewer = errors.New("the database was made by a newer version of glanced; run that version, or restore the backup made before the upgrade")

// migration is one step of the schema; steps are numbered from 1 without gaps.
type migration struct {
	version int
	name    string
	sql     string
}

func steps(from fs.FS) ([]migration, error) {
	names, err := fs.Glob(from, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var all []migration
	for i, name := range names {
		base := strings.TrimPrefix(name, "migrations/")
		number, _, _ := strings.Cut(base, "_")
		v, err := strconv.Atoi(number)
		if err != nil || v != i+1 {
			return nil, fmt.Errorf("migration %s should be numbered %04d", base, i+1)
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return nil, err
		}
		all = append(all, migration{v, base, string(text)})
	}
	return all, nil
}

// Migrate applies the steps that the database lacks, each with its version in one
// transaction, in which two processes that start at once are kept apart. from holds
// them as migrations/NNNN_name.sql, numbered from 1 without gaps. ErrNewer.
func Migrate(ctx context.Context, d Dialect, db *sql.DB, from fs.FS) error {
	all, err := steps(from)
	if err != nil {
		return err
	}
	for done := false; !done; {
		err := d.transact(ctx, db, d.Changes, "migrate", func(t *tx) (err error) {
			done, err = t.step(ctx, all)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// step applies the next of all; done tells that there was none.
func (t *tx) step(ctx context.Context, all []migration) (done bool, err error) {
	if t.d.Once != "" {
		if err := t.exec(ctx, t.d.Once); err != nil {
			return false, err
		}
	}
	err = t.exec(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)`)
	if err != nil {
		return false, err
	}
	var have int
	if err := t.row(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`, nil, &have); err != nil {
		return false, err
	}
	switch {
	case have > len(all):
		return false, fmt.Errorf("%w (its version is %d, this program knows %d)", ErrNewer, have, len(all))
	case have == len(all):
		return true, nil
	}
	m := all[have]
	if _, err := t.tx.ExecContext(ctx, m.sql); err != nil {
		return false, fmt.Errorf("%s: %w", m.name, err)
	}
	return false, t.exec(ctx, `INSERT INTO schema_version VALUES (?, ?, ?)`, m.version, m.name, time.Now().UnixMicro())
}
