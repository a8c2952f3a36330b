package sqlite

import (
	"context"
	"database/sql"
	"embed"
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

//go:embed migrations/*.sql
var migrations embed.FS

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

// migrate applies what the database lacks, each step with its version in one
// transaction. Two processes that start at once are kept apart by the write lock.
func migrate(ctx context.Context, db *sql.DB) error {
	all, err := steps(migrations)
	if err != nil {
		return err
	}
	return migrateTo(ctx, db, all)
}

func migrateTo(ctx context.Context, db *sql.DB, all []migration) error {
	_, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (
		version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT`)
	if err != nil {
		return err
	}
	for {
		done := false
		err := transact(ctx, db, "migrate", func(tx *sql.Tx) error {
			var have int
			if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&have); err != nil {
				return err
			}
			switch {
			case have > len(all):
				return fmt.Errorf("%w (its version is %d, this program knows %d)", ErrNewer, have, len(all))
			case have == len(all):
				done = true
				return nil
			}
			m := all[have]
			if _, err := tx.ExecContext(ctx, m.sql); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO schema_version VALUES (?, ?, ?)`, m.version, m.name, time.Now().UnixMicro())
			return err
		})
		if err != nil || done {
			return err
		}
	}
}
