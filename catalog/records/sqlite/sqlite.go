// Package sqlite keeps the catalog's records in one SQLite database file.
//
// One connection writes, several read; write-ahead logging lets them do so at
// once, in several processes too. Every statement's text is fixed or put
// together from fixed pieces: what a user says is always a parameter.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"glanced/catalog/records"
)

// busyTimeout is how long a writer waits for one of another process, in
// milliseconds, before it fails with records.ErrBusy.
const busyTimeout = 10_000

// Options of Open.
type Options struct {
	DefaultQuota records.Quota // of projects without their own
	ChangeLog    int64         // entries of the change log to keep at least; 0 = 65536
}

// Store implements records.Store. Safe for concurrent use.
type Store struct {
	o     Options
	write *sql.DB // one connection; its transactions take the write lock at once
	read  *sql.DB
}

// Open opens the database file at path, made if it is not there, and brings it
// to this program's version. A database of a newer version is refused. One that is
// made is its owner's alone to read, as it knows every project's images.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	if o.ChangeLog <= 0 {
		o.ChangeLog = 1 << 16
	}
	s := &Store{o: o}
	err := makePrivate(path)
	if err != nil {
		return nil, fmt.Errorf("open catalog database: %w", err)
	}
	if s.write, err = connect(path, "immediate", 1); err == nil {
		err = migrate(ctx, s.write)
	}
	if err == nil {
		s.read, err = connect(path, "deferred", 2+2*runtime.GOMAXPROCS(0))
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open catalog database %s: %w", path, kind(err))
	}
	return s, nil
}

// makePrivate makes an empty file, which is an empty database, where there is
// none. SQLite would give it the mode that the umask leaves; its log and its index
// of the log take the database's.
func makePrivate(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

func connect(path, txlock string, conns int) (*sql.DB, error) {
	q := url.Values{}
	q.Set("_journal_mode", "WAL")
	q.Set("_synchronous", "FULL") // a commit survives a power failure
	q.Set("_foreign_keys", "on")
	q.Set("_busy_timeout", fmt.Sprint(busyTimeout))
	q.Set("_txlock", txlock)
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}
	db, err := sql.Open("sqlite3", u.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

// Close closes the database; no call may be under way.
func (s *Store) Close() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// change runs do in one write transaction.
func (s *Store) change(ctx context.Context, what string, do func(*sql.Tx) error) error {
	return transact(ctx, s.write, what, do)
}

// view runs do in one read transaction: all it reads is of one moment.
func (s *Store) view(ctx context.Context, what string, do func(*sql.Tx) error) error {
	return transact(ctx, s.read, what, do)
}

func transact(ctx context.Context, db *sql.DB, what string, do func(*sql.Tx) error) error {
	fail := func(err error) error {
		// database/sql rolls back by itself when ctx ends, and says no more than that.
		if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("%s: %w", what, kind(err))
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fail(err)
	}
	defer tx.Rollback()
	if err := do(tx); err != nil {
		var own *plainError
		if errors.As(err, &own) {
			return own.err
		}
		return fail(err)
	}
	if err := tx.Commit(); err != nil {
		return fail(err)
	}
	return nil
}

// plainError carries a caller's own error out of a transaction as it is.
type plainError struct{ err error }

func (e *plainError) Error() string { return e.err.Error() }

// kind adds the sentinel of the contract that an SQLite error stands for.
func kind(err error) error {
	var se sqlite3.Error
	if !errors.As(err, &se) {
		return err
	}
	switch {
	case se.Code == sqlite3.ErrBusy || se.Code == sqlite3.ErrLocked:
		return fmt.Errorf("%w: %w", records.ErrBusy, err)
	case se.Code == sqlite3.ErrFull || se.SystemErrno == unix.ENOSPC || se.SystemErrno == unix.EDQUOT:
		return fmt.Errorf("%w: %w", records.ErrFull, err)
	}
	return err
}
