package disks

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"glanced/backends/stored"
	"glanced/catalog/access"
	"glanced/catalog/records"
	"glanced/catalog/rules"
	"glanced/catalog/stores"
	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/engine"
)

// View says what of an image to open; the zero value is the guest disk.
type View struct {
	Stored      bool   // the bytes as stored, instead of the guest disk
	Snapshot    string // the Name of one of Image.Snapshots, instead of the active guest disk
	Deactivated bool   // open a deactivated image too, for who may read one (an administrator's download)
}

// Handle is one open image, for one reader. All handles of one image and view share
// one open disk. Safe for concurrent use.
type Handle struct {
	o       *Opener
	who     access.Identity
	id      string
	view    View
	img     records.Image
	d       *disk
	revoked chan struct{}
	revoke  func() // closes revoked, once
	closed  atomic.Bool
}

// Open opens an image for reading by who; the caller closes the Handle. ErrNotFound
// (to who may not see it, too), access.ErrDenied, ErrNoSnapshot, ErrNoData,
// ErrDeactivated, ErrParentDeactivated, ErrStoredOnly (the guest disk of an image that
// has none), ErrSpoolFull, ErrStore.
func (o *Opener) Open(ctx context.Context, who access.Identity, id string, v View) (*Handle, error) {
	for {
		h := &Handle{o: o, who: who, id: id, view: v, revoked: make(chan struct{})}
		h.revoke = sync.OnceFunc(func() { close(h.revoked) })
		// The handle is entered into the table before the record is read: a change that
		// the record does not show yet will find it there.
		o.handles.enter(h, id)
		shared, err := o.open(ctx, h)
		if err != nil {
			o.handles.leave(h)
			if errors.Is(err, errAbandoned) && ctx.Err() == nil {
				continue
			}
			return nil, fmt.Errorf("open image %s: %w", id, err)
		}
		if !shared || o.verify(ctx, h.d) {
			return h, nil
		}
		h.Close() // it is opened anew, or cannot be
	}
}

// open opens what h is to read; shared: it was open already.
func (o *Opener) open(ctx context.Context, h *Handle) (shared bool, err error) {
	if h.img, err = o.readable(ctx, h, o.records.GetExisting); err != nil {
		return false, err
	}
	v := h.view
	v.Deactivated = false // who may read a disk is no matter of what it is
	h.d, shared = o.disks.acquire(diskKey{h.id, v})
	img := h.img
	h.img = brief(img)
	err = o.disks.open(ctx, h.d, func(ctx context.Context) (*Opened, error) { return o.openDisk(ctx, img, v) })
	select {
	case <-h.revoked:
		// Whether it opened or not: the bytes may have gone under it.
		switch _, err = o.readable(ctx, h, o.records.GetExisting); {
		case err == nil: // it may be read again already
			err = ErrRevoked
		case errors.Is(err, records.ErrNotFound) && !errors.Is(err, access.ErrHidden):
			o.Forget(img) // it may have been decompressed after it was forgotten
		}
	default:
	}
	if err != nil {
		o.disks.release(h.d)
	}
	return shared, err
}

// verify tells whether the bytes of a disk that has been open for a while still seem
// to be those that were opened, and those of the disks below it. Who has one open
// that they are not of reads on, as far as that goes; nobody else gets it.
func (o *Opener) verify(ctx context.Context, d *disk) bool {
	sound := true
	for _, parent := range d.opened.parents {
		sound = o.verify(ctx, parent) && sound
	}
	if v, ok := stored.As[stored.Verifier](d.opened.bytes); ok && v.Verify(ctx) != nil {
		sound = false
	}
	if !sound {
		o.disks.retire(d)
	}
	return sound
}

// openDisk opens the bytes as stored, or the guest disk in them.
func (o *Opener) openDisk(ctx context.Context, img records.Image, v View) (*Opened, error) {
	snapshot := ""
	if v.Snapshot != "" {
		var err error
		if snapshot, err = snapshotID(img, v.Snapshot); err != nil {
			return nil, err
		}
	}
	var d *Opened
	var err error
	if v.Stored {
		d, err = o.openStored(ctx, img)
	} else {
		parent := func(ctx context.Context, ref formats.Ref) (records.Image, error) { return o.frozen(ctx, img, ref) }
		d, err = o.OpenGuest(ctx, img, parent, snapshot)
	}
	if errors.Is(err, container.ErrFull) {
		return nil, fmt.Errorf("%w: %w", ErrSpoolFull, err)
	}
	if err != nil && !errors.Is(err, stores.ErrStore) {
		err = fmt.Errorf("%w: %w", stores.ErrStore, err)
	}
	return d, err
}

// snapshotID is what the image itself calls the snapshot that is addressed by name.
func snapshotID(img records.Image, name string) (string, error) {
	for _, s := range img.Snapshots {
		if s.Name == name {
			return s.ID, nil
		}
	}
	return "", fmt.Errorf("%w: image %s has none called %q", ErrNoSnapshot, img.ID, rules.Clip(name))
}

// openStored opens an image's bytes as they are.
func (o *Opener) openStored(ctx context.Context, img records.Image) (*Opened, error) {
	b, err := o.OpenBytes(ctx, img)
	if err != nil {
		return nil, err
	}
	d, err := o.engine.Open(ctx, o.raw, b, engine.OpenOptions{})
	if err != nil {
		return nil, err
	}
	return &Opened{Disk: d, bytes: b, below: &o.disks}, nil
}

// brief is img without what can be long and is of no use while its bytes are moved: as
// many are held as there are clients.
func brief(img records.Image) records.Image {
	img.Properties, img.Tags, img.Snapshots = nil, nil, nil
	return img
}

// Image is the record as it was when the handle was opened, without Properties, Tags and
// Snapshots.
func (h *Handle) Image() records.Image { return h.img.Clone() }

// Size in bytes, of the guest disk or of the stored bytes.
func (h *Handle) Size() int64 { return h.d.opened.Size() }

// Info describes the disk.
func (h *Handle) Info() formats.Info { return h.d.opened.Info() }

// Granularity: see engine.Disk.
func (h *Handle) Granularity() int64 { return h.d.opened.Granularity() }

// Revoked is closed when the reader may no longer read the image: it was deleted,
// deactivated, or made invisible to them, or what it stands on was deactivated. From
// then on reads fail with ErrRevoked. The handle is still to be closed.
func (h *Handle) Revoked() <-chan struct{} { return h.revoked }

// Plan makes p the plan of range [off, off+n); see engine.Disk. It is to be released
// before the handle is closed. One that was made before the image was withdrawn can
// still be read.
func (h *Handle) Plan(ctx context.Context, p *engine.Plan, off, n int64, o engine.PlanOptions) error {
	if err := h.enter(); err != nil {
		return err
	}
	defer h.o.disks.release(h.d)
	return h.d.opened.Plan(ctx, p, off, n, o)
}

// ReadAt fills p from off or fails.
func (h *Handle) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := h.enter(); err != nil {
		return err
	}
	defer h.o.disks.release(h.d)
	return h.d.opened.ReadAt(ctx, p, off)
}

// Extents yields what range [off, off+n) is made of; see engine.Disk.
func (h *Handle) Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if err := h.enter(); err != nil {
		return err
	}
	defer h.o.disks.release(h.d)
	return h.d.opened.Extents(ctx, off, n, yield)
}

// WholeFile is engine.Disk's. It is to be released before the handle is closed.
func (h *Handle) WholeFile() (stored.FileRange, bool) {
	if h.enter() != nil {
		return stored.FileRange{}, false
	}
	defer h.o.disks.release(h.d)
	return h.d.opened.WholeFile()
}

// Prefetch makes a later read of the range cheaper where it can.
func (h *Handle) Prefetch(off, n int64) {
	if h.enter() != nil {
		return
	}
	defer h.o.disks.release(h.d)
	h.d.opened.Prefetch(off, n)
}

// enter takes a reference for the time of one call, so that Close from another
// goroutine, or a revocation, never closes the disk under it.
func (h *Handle) enter() error {
	if h.closed.Load() || !h.d.retain() {
		return fmt.Errorf("image %s: %w", h.img.ID, formats.ErrClosed)
	}
	select {
	case <-h.revoked:
		h.o.disks.release(h.d)
		return fmt.Errorf("image %s: %w", h.img.ID, ErrRevoked)
	default:
		return nil
	}
}

// Close gives the handle back. Calls under way end well; later ones fail.
func (h *Handle) Close() error {
	if h.closed.Swap(true) {
		return nil
	}
	h.o.handles.leave(h)
	return h.o.disks.release(h.d)
}
