// Package sqltx is the contract of package records over database/sql, for every
// database: the statements that all of them understand stand here once, and a Dialect
// says the rest. Every statement's text is fixed or put together from fixed pieces:
// what a user says is always a parameter.
package sqltx

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"time"

	"glanced/catalog/records"
)

// Dialect is in what a database differs from the others.
type Dialect struct {
	// Bind spells the parameters of a statement, "?", as the database does; nil: so.
	Bind func(query string) string
	// OneOf is the term "column is one of" a parameter, and the parameter's value for
	// list, a []string or an []int64; nil arguments are never given.
	OneOf func(column string, list any) (term string, arg any)
	// Same is the term "column is this long text", with its parameters, as an index
	// serves it; nil: "=".
	Same func(column, value string) (term string, args []any)
	// Lock ends a SELECT whose row is to stay locked; "" where a transaction that
	// changes is alone anyway.
	Lock string
	// Append adds (kind, id, status) to changes, and returns its seq.
	Append string
	// Now is an expression for the database's own time, in microseconds since 1970.
	Now string
	// Once keeps others from migrating at the same time, to the end of the transaction;
	// "" where a transaction that changes is alone anyway.
	Once string
	// Exists tells whether an error says that a unique value is there already.
	Exists func(error) bool
	// Kind adds the sentinel of records that an error of the database stands for.
	Kind func(error) error
	// Again tells whether a transaction that failed so can be tried again at once.
	Again func(error) bool
	// Undone tells whether a commit that failed so has certainly done nothing.
	Undone func(error) bool
	// Room is records.ErrFull where there is no room for what makes records grow; nil:
	// the database itself tells.
	Room func() error
	// Changed is called after each transaction that changed something; nil: it is not.
	Changed func()
	// Patience is for how long a transaction is tried again while the database cannot
	// be reached; 0 = not at all.
	Patience time.Duration
	// Views and Changes are how a transaction is begun.
	Views, Changes *sql.TxOptions
}

const (
	tries = 20                     // of a transaction that others are in the way of
	pause = 100 * time.Millisecond // between two tries to reach a database
)

// DB implements records.DB. Safe for concurrent use.
type DB struct {
	d           Dialect
	write, read *sql.DB // they may be one
}

// New is a DB over open databases, which its Close closes.
func New(d Dialect, write, read *sql.DB) *DB { return &DB{d: d, write: write, read: read} }

// Close closes the database; no call may be under way.
func (db *DB) Close() error {
	err := db.write.Close()
	if db.read != db.write {
		err = errors.Join(err, db.read.Close())
	}
	return err
}

// View implements records.DB.
func (db *DB) View(ctx context.Context, what string, do func(records.Tx) error) error {
	return db.d.transact(ctx, db.read, db.d.Views, what, func(t *tx) error { return do(t) })
}

// Change implements records.DB.
func (db *DB) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	err := db.d.transact(ctx, db.write, db.d.Changes, what, func(t *tx) error { t.lock = db.d.Lock; return do(t) })
	if err == nil && db.d.Changed != nil {
		db.d.Changed()
	}
	return err
}

// transact runs do in a transaction, and again where another one was in its way, or
// the database could not be reached, as long as it is certain that nothing was done.
func (d Dialect) transact(ctx context.Context, db *sql.DB, o *sql.TxOptions, what string, do func(*tx) error) error {
	begun := time.Now()
	for try := 1; ; try++ {
		err := d.once(ctx, db, o, do)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil && !errors.Is(err, records.ErrUnknown) {
			if try < tries && d.Again != nil && d.Again(err) {
				continue
			}
			if errors.Is(d.Kind(err), records.ErrUnreachable) && time.Since(begun) < d.Patience && sleep(ctx) {
				continue
			}
		}
		if errors.Is(err, sql.ErrTxDone) && ctx.Err() != nil {
			// database/sql rolls back by itself when ctx ends, and says no more than that.
			err = ctx.Err()
		}
		return fmt.Errorf("%s: %w", what, d.Kind(err))
	}
}

// sleep waits for a pause; false: ctx has ended.
func sleep(ctx context.Context) bool {
	select {
	case <-time.After(pause):
		return true
	case <-ctx.Done():
		return false
	}
}

func (d Dialect) once(ctx context.Context, db *sql.DB, o *sql.TxOptions, do func(*tx) error) error {
	t, err := db.BeginTx(ctx, o)
	if err != nil {
		return err
	}
	defer t.Rollback()
	if err := do(&tx{d: d, tx: t}); err != nil {
		return err
	}
	err = t.Commit()
	if err != nil && !d.Undone(err) && !errors.Is(err, sql.ErrTxDone) && (o == nil || !o.ReadOnly) {
		err = fmt.Errorf("%w: %w", records.ErrUnknown, err)
	}
	return err
}

// tx implements records.Tx.
type tx struct {
	d    Dialect
	tx   *sql.Tx
	lock string // Dialect.Lock in a Change
}

func (t *tx) exec(ctx context.Context, query string, args ...any) error {
	query, args, err := t.bind(query, args)
	if err == nil {
		_, err = t.tx.ExecContext(ctx, query, args...)
	}
	return err
}

// row reads the one row of a query into to; sql.ErrNoRows.
func (t *tx) row(ctx context.Context, query string, args []any, to ...any) error {
	query, args, err := t.bind(query, args)
	if err != nil {
		return err
	}
	return t.tx.QueryRowContext(ctx, query, args...).Scan(to...)
}

// rows calls each for every row of a query.
func (t *tx) rows(ctx context.Context, query string, args []any, each func(*sql.Rows) error) error {
	query, args, err := t.bind(query, args)
	if err != nil {
		return err
	}
	found, err := t.tx.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		if err := each(found); err != nil {
			return err
		}
	}
	return found.Err()
}

// bind is a statement as the database spells it, and its parameters without
// pointers and named types. Lists stay what they are.
func (t *tx) bind(query string, args []any) (string, []any, error) {
	plain := make([]any, len(args))
	for i, a := range args {
		if k := reflect.ValueOf(a).Kind(); k == reflect.Slice {
			plain[i] = a
			continue
		}
		var err error
		if plain[i], err = driver.DefaultParameterConverter.ConvertValue(a); err != nil {
			return "", nil, err
		}
	}
	if t.d.Bind != nil {
		query = t.d.Bind(query)
	}
	return query, plain, nil
}
