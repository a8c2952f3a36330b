package catalog

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/engine"
)

// View says what of an image to open; the zero value is the guest disk.
type View struct {
	Stored      bool   // the bytes as stored, instead of the guest disk
	Snapshot    string // the Name of one of Image.Snapshots, instead of the active guest disk
	Deactivated bool   // open a deactivated image too (an administrator's download)
}

// Handle is one open image. All handles of one image and view share one open
// disk. Safe for concurrent use.
type Handle struct {
	c      *Catalog
	img    Image
	d      *disk
	closed atomic.Bool
}

// Open opens an image for reading; the caller closes the Handle. ErrNotFound,
// ErrNoSnapshot, ErrNoData, ErrDeactivated, ErrStoredOnly (the guest disk of an image that has
// none), ErrStatus, ErrStore.
func (c *Catalog) Open(ctx context.Context, id string, v View) (*Handle, error) {
	for {
		// The disk is entered into the table before the record is read: a revocation
		// that the record does not show yet will find it there.
		d, shared := c.disks.acquire(diskKey{id, v})
		h, err := c.openAs(ctx, d, id, v)
		if err != nil {
			c.disks.release(d)
			return nil, err
		}
		if !shared || c.verify(ctx, d) {
			return h, nil
		}
		h.Close() // it is opened anew, or cannot be
	}
}

// verify tells whether the bytes of a disk that has been open for a while still seem
// to be those that were opened, and those of the disks below it. Who has one open
// that they are not of reads on, as far as that goes; nobody else gets it.
func (c *Catalog) verify(ctx context.Context, d *disk) bool {
	sound := true
	for _, parent := range d.opened.parents {
		sound = c.verify(ctx, parent) && sound
	}
	if v, ok := stored.As[stored.Verifier](d.opened.bytes); ok && v.Verify(ctx) != nil {
		sound = false
	}
	if !sound {
		c.disks.retire(d)
	}
	return sound
}

func (c *Catalog) openAs(ctx context.Context, d *disk, id string, v View) (*Handle, error) {
	img, err := c.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := openable(img, v); err != nil {
		return nil, fmt.Errorf("open image %s: %w", id, err)
	}
	err = c.disks.open(ctx, d, func(ctx context.Context) (*opened, error) { return c.openDisk(ctx, img, v) })
	select {
	case <-d.revoked:
		// Whether it opened or not: the bytes may have gone under it.
		return nil, fmt.Errorf("open image %s: %w", id, c.whyRevoked(ctx, id, v))
	default:
	}
	if err != nil {
		return nil, fmt.Errorf("open image %s: %w", id, err)
	}
	return &Handle{c: c, img: img, d: d}, nil
}

// whyRevoked is what an Open would now say of an image that was withdrawn during one.
func (c *Catalog) whyRevoked(ctx context.Context, id string, v View) error {
	img, err := c.Get(ctx, id)
	if err == nil {
		err = openable(img, v)
	}
	if err == nil { // it is back already
		err = ErrRevoked
	}
	return err
}

func openable(img Image, v View) error {
	switch img.Status {
	case Active:
	case Deactivated:
		if !v.Deactivated {
			return ErrDeactivated
		}
	case Queued, Saving, Uploading, Importing, Killed:
		return fmt.Errorf("%w: it is %s", ErrNoData, img.Status)
	default:
		return fmt.Errorf("%w: it is %s", ErrNotFound, img.Status)
	}
	if !v.Stored && img.DiskError != "" {
		return fmt.Errorf("%w: %s", ErrStoredOnly, img.DiskError)
	}
	if len(img.Locations) == 0 {
		return fmt.Errorf("%w: its record names no location", ErrNoData)
	}
	return nil
}

// openDisk opens the bytes as stored, or the guest disk in them.
func (c *Catalog) openDisk(ctx context.Context, img Image, v View) (*opened, error) {
	snapshot := ""
	if v.Snapshot != "" {
		var err error
		if snapshot, err = snapshotID(img, v.Snapshot); err != nil {
			return nil, err
		}
	}
	var d *opened
	var err error
	if v.Stored {
		d, err = c.openStored(ctx, img)
	} else {
		parent := func(ctx context.Context, ref formats.Ref) (Image, error) { return c.frozen(ctx, img, ref) }
		d, err = c.openGuest(ctx, img, parent, snapshot)
	}
	if err != nil && !errors.Is(err, ErrStore) {
		err = fmt.Errorf("%w: %w", ErrStore, err)
	}
	return d, err
}

// openStored opens an image's bytes as they are.
func (c *Catalog) openStored(ctx context.Context, img Image) (*opened, error) {
	b, err := c.openBytes(ctx, img)
	if err != nil {
		return nil, err
	}
	d, err := c.engine.Open(ctx, c.raw, b, engine.OpenOptions{})
	if err != nil {
		return nil, err
	}
	return &opened{Disk: d, bytes: b}, nil
}

// Image is the record as it was when the handle was opened.
func (h *Handle) Image() Image { return h.img.Clone() }

// Size in bytes, of the guest disk or of the stored bytes.
func (h *Handle) Size() int64 { return h.d.opened.Size() }

// Info describes the disk.
func (h *Handle) Info() formats.Info { return h.d.opened.Info() }

// Granularity: see engine.Disk.
func (h *Handle) Granularity() int64 { return h.d.opened.Granularity() }

// Revoked is closed when the image was deactivated or deleted; from then on
// reads fail with ErrRevoked. The handle is still to be closed.
func (h *Handle) Revoked() <-chan struct{} { return h.d.revoked }

// Plan makes p the plan of range [off, off+n); see engine.Disk. It is to be released
// before the handle is closed. One that was made before the image was withdrawn can
// still be read.
func (h *Handle) Plan(ctx context.Context, p *engine.Plan, off, n int64, o engine.PlanOptions) error {
	if err := h.enter(); err != nil {
		return err
	}
	defer h.c.disks.release(h.d)
	return h.d.opened.Plan(ctx, p, off, n, o)
}

// ReadAt fills p from off or fails.
func (h *Handle) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := h.enter(); err != nil {
		return err
	}
	defer h.c.disks.release(h.d)
	return h.d.opened.ReadAt(ctx, p, off)
}

// Extents yields what range [off, off+n) is made of; see engine.Disk.
func (h *Handle) Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if err := h.enter(); err != nil {
		return err
	}
	defer h.c.disks.release(h.d)
	return h.d.opened.Extents(ctx, off, n, yield)
}

// WholeFile is engine.Disk's. It is to be released before the handle is closed.
func (h *Handle) WholeFile() (stored.FileRange, bool) {
	if h.enter() != nil {
		return stored.FileRange{}, false
	}
	defer h.c.disks.release(h.d)
	return h.d.opened.WholeFile()
}

// Prefetch makes a later read of the range cheaper where it can.
func (h *Handle) Prefetch(off, n int64) {
	if h.enter() != nil {
		return
	}
	defer h.c.disks.release(h.d)
	h.d.opened.Prefetch(off, n)
}

// enter takes a reference for the time of one call, so that Close from another
// goroutine, or a revocation, never closes the disk under it.
func (h *Handle) enter() error {
	if h.closed.Load() || !h.d.retain() {
		return fmt.Errorf("image %s: %w", h.img.ID, formats.ErrClosed)
	}
	select {
	case <-h.d.revoked:
		h.c.disks.release(h.d)
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
	return h.c.disks.release(h.d)
}
