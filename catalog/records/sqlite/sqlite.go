// Package sqlite keeps the catalog's records in one SQLite database file.
//
// One connection writes, several read; write-ahead logging lets them do so at
// once, in several processes too.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"

	"github.com/mattn/go-sqlite3"
	"golang.org/x/sys/unix"

	"glanced/catalog/records"
	"glanced/catalog/records/sqltx"
)

// busyTimeout is how long a writer waits for one of another process, in
// milliseconds, before it fails with records.ErrBusy.
const busyTimeout = 10_000

//go:embed migrations/*.sql
var migrations embed.FS

// dialect is SQLite's. A transaction that changes holds the only write lock from its
// beginning, so nothing is locked one by one, and none is in another's way.
var dialect = sqltx.Dialect{
	OneOf:  oneOf,
	Now:    `CAST(unixepoch('subsec') * 1000000 AS INTEGER)`,
	Append: `INSERT INTO changes (kind, id, status) VALUES (?, ?, ?) RETURNING seq`,
	Exists: func(err error) bool {
		var se sqlite3.Error
		return errors.As(err, &se) && se.ExtendedCode == sqlite3.ErrConstraintUnique
	},
	Kind: kind,
	Undone: func(err error) bool {
		err = kind(err)
		return errors.Is(err, records.ErrBusy) || errors.Is(err, records.ErrFull)
	},
}

// oneOf makes a list one parameter, however long it is.
func oneOf(column string, list any) (string, any) {
	text, _ := json.Marshal(list) // texts and numbers always can
	return column + " IN (SELECT value FROM json_each(?))", string(text)
}

// Open opens the database file at path, made if it is not there, and brings it
// to this program's version. A database of a newer version is refused with
// sqltx.ErrNewer. One that is made is its owner's alone to read, as it knows every
// project's images.
func Open(ctx context.Context, path string) (records.DB, error) {
	return OpenReserved(ctx, path, 0)
}

// OpenReserved is Open, and keeps so many bytes of the disk for deletions when that is
// full; 0 = none. See reserve.
func OpenReserved(ctx context.Context, path string, bytes int64) (records.DB, error) {
	write, read, err := open(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open catalog database %s: %w", path, kind(err))
	}
	if bytes == 0 {
		return sqltx.New(dialect, write, read), nil
	}
	room, err := openReserve(path, bytes)
	if err != nil {
		return nil, fmt.Errorf("open the log of catalog database %s: %w", path, errors.Join(err, write.Close(), read.Close()))
	}
	room.refill()
	d := dialect
	d.Room, d.Changed = room.room, room.refill
	return &reserved{sqltx.New(d, write, read), room}, nil
}

// reserved is a database with a reserve.
type reserved struct {
	*sqltx.DB
	room *reserve
}

// Close implements records.DB.
func (r *reserved) Close() error { return errors.Join(r.DB.Close(), r.room.log.Close()) }

func open(ctx context.Context, path string) (write, read *sql.DB, err error) {
	if err := makePrivate(path); err != nil {
		return nil, nil, err
	}
	if write, err = connect(path, "immediate", 1); err != nil {
		return nil, nil, err
	}
	err = sqltx.Migrate(ctx, dialect, write, migrations)
	if err == nil {
		read, err = connect(path, "deferred", 2+2*runtime.GOMAXPROCS(0))
	}
	if err != nil {
		return nil, nil, errors.Join(err, write.Close())
	}
	return write, read, nil
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
	db := sql.OpenDB(newConnector(u.String()))
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	return db, nil
}

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
