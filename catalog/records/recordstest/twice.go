package recordstest

import (
	"context"
	"errors"

	"glanced/catalog/records"
)

// Twice is a database in which another transaction is in the way of each that changes,
// once: its function is run, all of it is undone, and it is run again.
type Twice struct{ records.DB }

var errInTheWay = errors.New("another transaction is in the way")

// Change implements records.DB.
func (d Twice) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	err := d.DB.Change(ctx, what, func(tx records.Tx) error {
		if err := do(tx); err != nil {
			return err
		}
		return errInTheWay
	})
	if !errors.Is(err, errInTheWay) {
		return err
	}
	return d.DB.Change(ctx, what, do)
}
