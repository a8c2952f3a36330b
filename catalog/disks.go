package catalog

import (
	"context"
	"sync"
	"sync/atomic"
)

// diskKey names one open disk.
type diskKey struct {
	id   string
	view View
}

// disk is one open disk and how many use it. It is opened once, by the first who
// wants it, and closed when the last one leaves.
type disk struct {
	key     diskKey
	born    uint64 // by disks.clock
	users   atomic.Int64
	revoked chan struct{}

	once   sync.Once
	ready  chan struct{} // closed when opened or err is set
	opened *opened
	err    error
}

// disks is the table of open disks.
type disks struct {
	mu    sync.Mutex
	clock uint64             // counts acquired disks
	byKey map[diskKey]*disk  // those that may get new users: neither revoked nor closed
	stale map[*disk]struct{} // those that may not, and are neither
}

func (t *disks) init() { t.byKey, t.stale = map[diskKey]*disk{}, map[*disk]struct{}{} }

// acquire finds or enters the disk of key, with one more user: the caller, who
// releases it. shared tells that it was found.
func (t *disks) acquire(key diskKey) (d *disk, shared bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d, ok := t.byKey[key]; ok && d.retain() {
		return d, true
	}
	t.clock++
	d = &disk{key: key, born: t.clock, revoked: make(chan struct{}), ready: make(chan struct{})}
	d.users.Store(1)
	t.byKey[key] = d
	return d, false
}

// retire keeps a disk from new users.
func (t *disks) retire(d *disk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey[d.key] == d {
		delete(t.byKey, d.key)
		t.stale[d] = struct{}{}
	}
}

// each is every disk that is neither revoked nor closed; the table's lock is held.
func (t *disks) each(yield func(*disk) bool) {
	for _, d := range t.byKey {
		if !yield(d) {
			return
		}
	}
	for d := range t.stale {
		if !yield(d) {
			return
		}
	}
}

// retain adds a user, unless the last one has left already.
func (d *disk) retain() bool {
	for {
		n := d.users.Load()
		if n == 0 {
			return false
		}
		if d.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release takes a user away; the last one closes the disk.
func (t *disks) release(d *disk) error {
	if d.users.Add(-1) > 0 {
		return nil
	}
	t.forget(d)
	if d.opened == nil {
		return nil
	}
	err := d.opened.Close()
	t.releaseAll(d.opened.parents)
	return err
}

// releaseAll takes a user away from each of all.
func (t *disks) releaseAll(all []*disk) {
	for _, d := range all {
		t.release(d)
	}
}

func (t *disks) forget(d *disk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.remove(d)
}

// remove is forget; the table's lock is held.
func (t *disks) remove(d *disk) {
	if t.byKey[d.key] == d {
		delete(t.byKey, d.key)
	}
	delete(t.stale, d)
}

// open waits until d is open, the first caller having it opened. The opening is
// not cut short when that caller hangs up, for others may wait for it as well.
func (t *disks) open(ctx context.Context, d *disk, how func(context.Context) (*opened, error)) error {
	d.once.Do(func() {
		d.retain()
		go func() {
			d.opened, d.err = how(context.WithoutCancel(ctx))
			if d.err != nil {
				t.forget(d) // the next Open tries again
			}
			close(d.ready)
			t.release(d)
		}()
	})
	select {
	case <-d.ready:
		return d.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// now is the time by the table's clock; see revoke.
func (t *disks) now() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.clock
}

// revoke withdraws what is open of an image since before or at the given time;
// those opened although it was deactivated only if all is set. The time is that
// before the record was read that says so: who came later has read it too, or a
// newer one.
func (t *disks) revoke(id string, all bool, at uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d := range t.each {
		if d.key.id == id && d.born <= at && (all || !d.key.view.Deactivated) {
			t.remove(d)
			close(d.revoked)
		}
	}
}

// has tells whether anything of an image is open.
func (t *disks) has(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for d := range t.each {
		if d.key.id == id {
			return true
		}
	}
	return false
}

// ids are those of the images that are open.
func (t *disks) ids() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for d := range t.each {
		all = append(all, d.key.id)
	}
	return all
}
