package rules

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"glanced/catalog/records"
)

// NewLease is a lease that nobody holds yet.
func NewLease(kind, id, node string) records.Lease {
	return records.Lease{Kind: kind, ID: id, Node: node, Holder: rand.Text()}
}

// Step is what an update does with its lease.
type Step int

const (
	Take Step = iota // it must be free, or have lapsed: ErrLeased
	Keep             // it must still be held: ErrLeaseLost
	Drop             // as Keep, and it is free afterwards
)

// Under says by which lease an update is made.
type Under struct {
	Lease  records.Lease
	Step   Step
	During time.Duration // from now, of Take and Keep
}

// check looks at the lease, before the update, and writes it.
func (u Under) check(ctx context.Context, tx records.Tx) error {
	have, err := tx.Lease(ctx, u.Lease.Kind, u.Lease.ID)
	if err != nil {
		return err
	}
	mine := have != nil && have.Holder == u.Lease.Holder
	switch {
	case u.Step == Take && have != nil && !mine && !have.Lapsed:
		return fmt.Errorf("%w: node %s", records.ErrLeased, have.Node)
	case u.Step != Take && !mine:
		return records.ErrLeaseLost
	case u.Step == Drop:
		return tx.DropLease(ctx, u.Lease.Kind, u.Lease.ID)
	}
	return tx.SetLease(ctx, u.Lease, u.During)
}

// UpdateUnder is Update by who has a lease: whoever has lost it changes nothing. One that
// has lapsed and that nobody took is not lost.
func (r *Records) UpdateUnder(ctx context.Context, id string, u Under, change func(*records.Image) error) (records.Image, error) {
	return r.update(ctx, id, &u, change)
}

// TakeLease takes a lease that is free or has lapsed; ErrLeased.
func (r *Records) TakeLease(ctx context.Context, l records.Lease, during time.Duration) error {
	return r.db.Change(ctx, "take the lease of "+l.Kind+" "+l.ID, func(tx records.Tx) error {
		return Under{l, Take, during}.check(ctx, tx)
	})
}

// SetLease takes a lease whoever holds it: what only one node takes, or that node's own
// earlier life may have left.
func (r *Records) SetLease(ctx context.Context, l records.Lease, during time.Duration) error {
	return r.db.Change(ctx, "take the lease of "+l.Kind+" "+l.ID, func(tx records.Tx) error {
		return tx.SetLease(ctx, l, during)
	})
}

// DropLease gives a lease back; one that is lost already is no error.
func (r *Records) DropLease(ctx context.Context, l records.Lease) error {
	return r.db.Change(ctx, "give back the lease of "+l.Kind+" "+l.ID, func(tx records.Tx) error {
		have, err := tx.Lease(ctx, l.Kind, l.ID)
		if err != nil || have == nil || have.Holder != l.Holder {
			return err
		}
		return tx.DropLease(ctx, l.Kind, l.ID)
	})
}

// Renew has the leases of these holders last that long from now, and says which of them
// are still theirs.
func (r *Records) Renew(ctx context.Context, holders []string, during time.Duration) (kept []string, err error) {
	err = r.db.Change(ctx, "renew leases", func(tx records.Tx) (err error) {
		kept, err = tx.RenewLeases(ctx, holders, during)
		return err
	})
	return kept, err
}

// ClearLeases drops those that lapsed that long ago, or longer: whoever had one is long
// gone, or has lost it now.
func (r *Records) ClearLeases(ctx context.Context, ago time.Duration) error {
	return r.db.Change(ctx, "clear old leases", func(tx records.Tx) error { return tx.ClearLeases(ctx, ago) })
}

// Leases are all of a kind.
func (r *Records) Leases(ctx context.Context, kind string) (all []records.Lease, err error) {
	err = r.db.View(ctx, "list leases", func(tx records.Tx) (err error) {
		all, err = tx.Leases(ctx, kind)
		return err
	})
	return all, err
}

// Forget drops the leases of a kind that an earlier life of node has left.
func (r *Records) Forget(ctx context.Context, kind, node string) error {
	return r.db.Change(ctx, "forget leases", func(tx records.Tx) error {
		all, err := tx.Leases(ctx, kind)
		for _, l := range all {
			if err == nil && l.Node == node {
				err = tx.DropLease(ctx, l.Kind, l.ID)
			}
		}
		return err
	})
}
