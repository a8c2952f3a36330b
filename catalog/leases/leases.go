// Package leases is the leases that this daemon holds: it renews them, tells whoever has
// lost one, and says to the other daemons over the same records that this one runs. What
// is done under a lease is not its matter.
package leases

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// Default is how long a lease lasts where Options does not say.
const Default = 30 * time.Second

// Options of New.
type Options struct {
	Node   string        // stable name of this daemon
	Shared bool          // other daemons may use the same records
	During time.Duration // how long a lease lasts that is not renewed; 0 = Default
	Log    *slog.Logger
}

// Keeper holds leases for this daemon, and renews them while Run runs. Safe for
// concurrent use.
type Keeper struct {
	records  *rules.Records
	node     string
	shared   bool
	during   time.Duration
	log      *slog.Logger
	presence records.Lease // that this daemon runs

	mu   sync.Mutex
	held map[string]func(context.Context) // by Lease.Holder: what is to be done when it is found to be lost
}

// New is a Keeper that holds nothing yet.
func New(r *rules.Records, o Options) *Keeper {
	if o.During == 0 {
		o.During = Default
	}
	return &Keeper{records: r, node: o.Node, shared: o.Shared, during: o.During, log: o.Log,
		presence: rules.NewLease(records.NodeLease, o.Node, o.Node), held: map[string]func(context.Context){}}
}

// Node is the name of this daemon.
func (k *Keeper) Node() string { return k.node }

// During is how long a lease lasts that is not renewed.
func (k *Keeper) During() time.Duration { return k.during }

// New is a lease of this daemon's that nobody holds yet.
func (k *Keeper) New(kind, id string) records.Lease { return rules.NewLease(kind, id, k.node) }

// Add has a lease that was taken renewed, until Remove. lost is called each time that it
// is found to be no longer held.
func (k *Keeper) Add(l records.Lease, lost func(context.Context)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[l.Holder] = lost
}

// Remove has a lease no longer renewed. It writes nothing: who has the lease still has it.
func (k *Keeper) Remove(l records.Lease) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.held, l.Holder)
}

func (k *Keeper) has(holder string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.held[holder]
	return ok
}

// Run renews what is held until ctx ends, three times within the time of a lease.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(k.during / 3)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.renew(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// renew renews what is held, and tells who has lost a lease. While the database cannot be
// reached nothing is given up: whoever comes to commit is told whether the lease is
// still theirs.
func (k *Keeper) renew(ctx context.Context) {
	k.mu.Lock()
	held := maps.Clone(k.held)
	k.mu.Unlock()
	if len(held) == 0 {
		return
	}
	kept, err := k.records.Renew(ctx, slices.Sorted(maps.Keys(held)), k.during)
	if err != nil {
		if ctx.Err() == nil {
			k.log.Warn("cannot renew the leases of this daemon; trying again", "error", err)
		}
		return
	}
	for holder, lost := range held {
		if !slices.Contains(kept, holder) && k.has(holder) {
			lost(ctx)
		}
	}
}

// Enter tells the other daemons that this one runs; what it left of uploads and hashing
// in an earlier life is free.
func (k *Keeper) Enter(ctx context.Context) error {
	for _, kind := range []string{records.UploadLease, records.HashLease} {
		if err := k.records.Forget(ctx, kind, k.node); err != nil {
			return err
		}
	}
	if !k.shared {
		return nil
	}
	if err := k.records.SetLease(ctx, k.presence, k.during); err != nil {
		return err
	}
	k.Add(k.presence, k.enterAgain)
	return nil
}

// enterAgain is for a daemon that was away from the database for so long that it was
// forgotten there, or that another one goes by the name of.
func (k *Keeper) enterAgain(ctx context.Context) {
	err := k.records.TakeLease(ctx, k.presence, k.during)
	switch {
	case errors.Is(err, records.ErrLeased):
		k.log.Error("another daemon goes by this one's name, which is in the file node-id of its data folder: each needs a folder of its own, not a copy", "node", k.node)
	case err != nil && ctx.Err() == nil:
		k.log.Warn("cannot tell the other daemons that this one runs; trying again", "error", err)
	}
}

// Leave is Enter's opposite; what was being hashed is free.
func (k *Keeper) Leave(ctx context.Context) {
	if !k.shared {
		return
	}
	k.Remove(k.presence)
	err := errors.Join(k.records.DropLease(ctx, k.presence), k.records.Forget(ctx, records.HashLease, k.node))
	if err != nil {
		k.log.Warn("cannot tell the other daemons that this one ends; they find out", "error", err)
	}
}

// Others tells whether other daemons run, which may have images open.
func (k *Keeper) Others(ctx context.Context) bool {
	if !k.shared {
		return false
	}
	all, err := k.records.Leases(ctx, records.NodeLease)
	return err != nil || slices.ContainsFunc(all, func(l records.Lease) bool { return !l.Lapsed && l.ID != k.node })
}

// While runs do while this daemon has the lease of kind on id, which it gives back
// afterwards; ran is false where another one has it.
func (k *Keeper) While(ctx context.Context, kind, id string, do func(records.Lease) error) (ran bool, err error) {
	l := k.New(kind, id)
	err = k.records.TakeLease(ctx, l, k.during)
	if errors.Is(err, records.ErrLeased) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	k.Add(l, func(context.Context) {})
	defer k.Remove(l)
	return true, errors.Join(do(l), k.records.DropLease(ctx, l))
}
