package catalog

import (
	"context"
	"sync"
	"sync/atomic"
)

// diskKey names one open disk; its view says nothing of Deactivated.
type diskKey struct {
	id   string
	view View
}

// disk is one open disk and how many use it. It is opened once, by the first who
// wants it, and closed when the last one leaves.
type disk struct {
	key   diskKey
	users atomic.Int64

	once   sync.Once
	ready  chan struct{} // closed when opened or err is set
	opened *opened
	err    error
}

// disks is the table of open disks.
type disks struct {
	mu    sync.Mutex
	byKey map[diskKey]*disk // those that may get new users
}

func (t *disks) init() { t.byKey = map[diskKey]*disk{} }

// acquire finds or enters the disk of key, with one more user: the caller, who
// releases it. shared tells that it was found.
func (t *disks) acquire(key diskKey) (d *disk, shared bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d, ok := t.byKey[key]; ok && d.retain() {
		return d, true
	}
	d = &disk{key: key, ready: make(chan struct{})}
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
	t.retire(d)
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

// open waits until d is open, the first caller having it opened. The opening is
// not cut short when that caller hangs up, for others may wait for it as well.
func (t *disks) open(ctx context.Context, d *disk, how func(context.Context) (*opened, error)) error {
	d.once.Do(func() {
		d.retain()
		go func() {
			d.opened, d.err = how(context.WithoutCancel(ctx))
			if d.err != nil {
				t.retire(d) // the next Open tries again
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
