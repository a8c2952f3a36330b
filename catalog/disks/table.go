package disks

import (
	"context"
	"errors"
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

	waiting   int                     // for it to be open; the table's lock
	abandoned bool                    // all who waited have left; the table's lock
	cancel    context.CancelCauseFunc // ends the opening

	once   sync.Once
	ready  chan struct{} // closed when opened or err is set
	opened *Opened
	err    error
}

// table is the open disks, by their keys.
type table struct {
	mu    sync.Mutex
	byKey map[diskKey]*disk // those that may get new users
}

// acquire finds or enters the disk of key, with one more user: the caller, who
// releases it. shared tells that it was found.
func (t *table) acquire(key diskKey) (d *disk, shared bool) {
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
func (t *table) retire(d *disk) {
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
func (t *table) release(d *disk) error {
	if d.users.Add(-1) > 0 {
		return nil
	}
	t.retire(d)
	if d.opened == nil {
		return nil
	}
	return d.opened.Close()
}

// releaseAll takes a user away from each of all.
func (t *table) releaseAll(all []*disk) {
	for _, d := range all {
		t.release(d)
	}
}

// errAbandoned is that of a disk whose opening was left by all: it is to be acquired anew.
var errAbandoned = errors.New("the opening was given up")

// open waits until d is open, the first caller having it opened. The opening ends when
// all who wait for it have left, not with the first of them: it may decompress for minutes
// what others want too. errAbandoned where the others had left before.
func (t *table) open(ctx context.Context, d *disk, how func(context.Context) (*Opened, error)) error {
	if !t.join(d) {
		return errAbandoned
	}
	d.once.Do(func() {
		d.retain()
		opening, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		t.mu.Lock()
		d.cancel = cancel
		t.mu.Unlock()
		go func() {
			defer cancel(nil)
			d.opened, d.err = how(opening)
			if d.err != nil {
				t.retire(d) // the next Open tries again
			}
			close(d.ready)
			t.release(d)
		}()
	})
	defer t.leave(d)
	select {
	case <-d.ready:
		return d.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// join adds one who waits for d to be open, unless all have left.
func (t *table) join(d *disk) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.abandoned {
		return false
	}
	d.waiting++
	return true
}

// leave takes one away; the last one ends an opening that is still under way.
func (t *table) leave(d *disk) {
	t.mu.Lock()
	defer t.mu.Unlock()
	d.waiting--
	select {
	case <-d.ready:
		return
	default:
	}
	if d.waiting == 0 {
		d.abandoned = true
		if t.byKey[d.key] == d {
			delete(t.byKey, d.key)
		}
		d.cancel(errAbandoned)
	}
}
