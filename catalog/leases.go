package catalog

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// DefaultLease is how long a lease lasts where Config does not say.
const DefaultLease = 30 * time.Second

// leases are those that this daemon holds and renews.
type leases struct {
	mu   sync.Mutex
	held map[string]func(context.Context) // by holder: what is to be done when it is found to be lost
}

func (l *leases) add(lease records.Lease, lost func(context.Context)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[lease.Holder] = lost
}

func (l *leases) remove(lease records.Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.held, lease.Holder)
}

// renew renews what is held, and tells who has lost a lease. While the database cannot be
// reached nothing is given up: whoever comes to commit is told whether the lease is
// still theirs.
func (c *Catalog) renew(ctx context.Context) {
	c.leases.mu.Lock()
	held := maps.Clone(c.leases.held)
	c.leases.mu.Unlock()
	if len(held) == 0 {
		return
	}
	kept, err := c.records.Renew(ctx, slices.Sorted(maps.Keys(held)), c.lease)
	if err != nil {
		if ctx.Err() == nil {
			c.log.Warn("cannot renew the leases of this daemon; trying again", "error", err)
		}
		return
	}
	for holder, lost := range held {
		if !slices.Contains(kept, holder) && c.leases.has(holder) {
			lost(ctx)
		}
	}
}

func (l *leases) has(holder string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.held[holder]
	return ok
}

// enter tells the other daemons that this one runs; what it left in an earlier life is
// free.
func (c *Catalog) enter(ctx context.Context) error {
	if err := c.records.Forget(ctx, records.UploadLease, c.node); err != nil || !c.shared {
		return err
	}
	if err := c.records.SetLease(ctx, c.presence, c.lease); err != nil {
		return err
	}
	c.leases.add(c.presence, c.enterAgain)
	return nil
}

// enterAgain is for a daemon that was away from the database for so long that it was
// forgotten there, or that another one goes by the name of.
func (c *Catalog) enterAgain(ctx context.Context) {
	err := c.records.TakeLease(ctx, c.presence, c.lease)
	switch {
	case errors.Is(err, ErrLeased):
		c.log.Error("another daemon goes by this one's name, which is in the file node-id of its data folder: each needs a folder of its own, not a copy", "node", c.node)
	case err != nil && ctx.Err() == nil:
		c.log.Warn("cannot tell the other daemons that this one runs; trying again", "error", err)
	}
}

// leave is enter's opposite.
func (c *Catalog) leave(ctx context.Context) {
	if !c.shared {
		return
	}
	c.leases.remove(c.presence)
	if err := c.records.DropLease(ctx, c.presence); err != nil {
		c.log.Warn("cannot tell the other daemons that this one ends; they find out", "error", err)
	}
}

// others tells whether other daemons may have images open.
func (c *Catalog) others(ctx context.Context) bool {
	if !c.shared {
		return false
	}
	all, err := c.records.Leases(ctx, records.NodeLease)
	return err != nil || slices.ContainsFunc(all, func(l records.Lease) bool { return !l.Lapsed && l.ID != c.node })
}

// tend renews leases until ctx ends, three times within the time of one.
func (c *Catalog) tend(ctx context.Context) {
	every(ctx, c.lease/3, func() { c.renew(ctx) })
}

// tidy sweeps until ctx ends. It is apart from tend, as a store may be slow.
func (c *Catalog) tidy(ctx context.Context) {
	every(ctx, c.lease/2, func() {
		if err := c.sweep(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("cannot clean up after uploads and deletions; trying again", "error", err)
		}
	})
}

func every(ctx context.Context, pause time.Duration, do func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}

// underLease runs do while this daemon has the lease of kind on id; ran is false where
// another one has it.
func (c *Catalog) underLease(ctx context.Context, kind, id string, do func(records.Lease) error) (ran bool, err error) {
	l := rules.NewLease(kind, id, c.node)
	err = c.records.TakeLease(ctx, l, c.lease)
	if errors.Is(err, ErrLeased) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.leases.add(l, func(context.Context) {})
	defer c.leases.remove(l)
	return true, errors.Join(do(l), c.records.DropLease(ctx, l))
}
