package catalog_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"glanced/catalog"
	"glanced/catalog/records"
	"glanced/contrib/testbed"
)

// gate is a database that a daemon has stopped at, or died at, before one of its changes of
// an image's record.
type gate struct {
	records.DB
	mu      sync.Mutex
	what    string // the changes that count
	changes int    // of them so far
	stopAt  int    // before which one it stops; 0 = none
	dieAt   int    // before which one it dies; 0 = none
	dead    bool
	stopped chan struct{} // closed when it has
	wake    chan struct{} // closed when it goes on
}

// watch has the gate count the changes of image id's record from now on.
func (g *gate) watch(id string, stopAt, dieAt int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.what, g.changes, g.stopAt, g.dieAt = "update image "+id, 0, stopAt, dieAt
	g.stopped, g.wake = make(chan struct{}), make(chan struct{})
}

// pass waits where the daemon is to stop, and fails where it is dead.
func (g *gate) pass(what string) error {
	g.mu.Lock()
	stop := false
	if what != "" && what == g.what {
		g.changes++
		stop = g.changes == g.stopAt
		g.dead = g.dead || g.changes == g.dieAt
	}
	dead, stopped, wake := g.dead, g.stopped, g.wake
	g.mu.Unlock()
	if stop {
		close(stopped)
		<-wake
	}
	if dead {
		return records.ErrUnreachable
	}
	return nil
}

func (g *gate) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	if err := g.pass(what); err != nil {
		return err
	}
	return g.DB.Change(ctx, what, do)
}

func (g *gate) View(ctx context.Context, what string, do func(records.Tx) error) error {
	if err := g.pass(""); err != nil {
		return err
	}
	return g.DB.View(ctx, what, do)
}

// twoDaemons are two over one database and one store, each with its gate.
func twoDaemons(t *testing.T, lease time.Duration) (a, b *world, gateA, gateB *gate) {
	t.Helper()
	dir := t.TempDir()
	daemon := func(name string) (*world, *gate) {
		g := &gate{}
		return openWorld(t, dir, func(cfg *catalog.Config) {
			g.DB = cfg.Records
			cfg.Records, cfg.Node, cfg.Shared, cfg.Lease = g, name, true, lease
		}), g
	}
	a, gateA = daemon("a")
	b, gateB = daemon("b")
	return a, b, gateA, gateB
}

// family takes in a parent and its only child.
func family(t *testing.T, w *world, o overlays) (parent, child catalog.Image) {
	t.Helper()
	parent = w.active(t, "qcow2", "bare", o.read("base"))
	testbed.Run(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", parent.ID, "-F", "qcow2", o.path("child"), "1M")
	child, err := w.child(t, o.read("child"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return parent, child
}

// A parent is deleted at one daemon while its last child is at another: whichever steps of
// the two come between each other, nothing stays held.
func TestAParentAndItsLastChildAreDeletedAtOnce(t *testing.T) {
	a, b, gateA, gateB := twoDaemons(t, patience) // no sweep comes to help
	o := newOverlays(t)
	o.base("base", noise(1, 1<<20))
	for _, c := range []struct {
		name      string
		stops     *gate
		at        int // before this one of its changes of the parent's record
		first     *world
		then      *world
		ofParents bool // the first one deletes the parent
	}{
		{"before the parent's deletion begins", gateA, 1, a, b, true},
		{"after the parent was found in use", gateA, 2, a, b, true},
		{"after the parent is held", gateA, 3, a, b, true},
		{"before the child's daemon lets the parent go", gateB, 1, b, a, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent, child := family(t, a, o)
			first, then := parent.ID, child.ID
			if !c.ofParents {
				first, then = then, first
			}
			c.stops.watch(parent.ID, c.at, 0)
			ended := make(chan error, 1)
			go func() { ended <- c.first.Delete(context.Background(), first) }()
			wantClosed(t, c.stops.stopped, "the first daemon to stop")
			err := c.then.Delete(t.Context(), then)
			close(c.stops.wake)
			if err != nil {
				t.Errorf("the second deletion: %v", err)
			}
			if err := <-ended; err != nil {
				t.Errorf("the first deletion: %v", err)
			}
			for _, id := range []string{parent.ID, child.ID} {
				if img, err := a.records.Get(t.Context(), id); err != nil || img.Status != catalog.Deleted {
					t.Errorf("image %s is %s, %v", id, img.Status, err)
				}
			}
		})
	}
}

// The daemon that was to let a held parent go has died: another one does.
func TestAnotherDaemonLetsAParentGo(t *testing.T) {
	for _, c := range []struct {
		name string
		die  func(t *testing.T, a, b *world, gateA *gate, parent, child catalog.Image)
	}{
		{"its last child's daemon died", func(t *testing.T, a, b *world, gateA *gate, parent, child catalog.Image) {
			if err := b.Delete(t.Context(), parent.ID); err != nil {
				t.Fatal(err)
			}
			gateA.watch(parent.ID, 0, 1)
			if err := a.Delete(t.Context(), child.ID); err != nil {
				t.Errorf("the child's deletion: %v", err)
			}
		}},
		{"its own daemon died, and the child had gone before it was held", func(t *testing.T, a, b *world, gateA *gate, parent, child catalog.Image) {
			gateA.watch(parent.ID, 2, 3)
			ended := make(chan error, 1)
			go func() { ended <- a.Delete(context.Background(), parent.ID) }()
			wantClosed(t, gateA.stopped, "the parent to be found in use")
			if err := b.Delete(t.Context(), child.ID); err != nil {
				t.Errorf("the child's deletion: %v", err)
			}
			close(gateA.wake)
			if err := <-ended; err != nil {
				t.Errorf("the parent's deletion: %v", err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b, gateA, _ := twoDaemons(t, testLease)
			o := newOverlays(t)
			o.base("base", noise(1, 1<<20))
			parent, child := family(t, a, o)
			c.die(t, a, b, gateA, parent, child)
			gateA.mu.Lock()
			died := gateA.dead
			gateA.mu.Unlock()
			if !died {
				t.Fatal("the daemon did not come to where it was to die")
			}
			for _, id := range []string{parent.ID, child.ID} {
				b.await(t, id, func(img catalog.Image) bool { return img.Status == catalog.Deleted && img.Locations == nil })
			}
			b.wantNothingStored(t)
		})
	}
}
