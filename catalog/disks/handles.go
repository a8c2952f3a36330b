package disks

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"glanced/catalog/access"
	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// handles is the table of open handles, by the ids of the images that each depends
// on: its own, and for a guest disk those below it.
type handles struct {
	mu   sync.Mutex
	byID map[string]map[*Handle]struct{}
	ids  map[*Handle][]string
}

func (t *handles) init() {
	t.byID, t.ids = map[string]map[*Handle]struct{}{}, map[*Handle][]string{}
}

// enter has h found by an image's id. It comes before the image's record is read.
func (t *handles) enter(h *Handle, id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byID[id] == nil {
		t.byID[id] = map[*Handle]struct{}{}
	}
	if _, there := t.byID[id][h]; !there {
		t.byID[id][h] = struct{}{}
		t.ids[h] = append(t.ids[h], id)
	}
}

func (t *handles) leave(h *Handle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, id := range t.ids[h] {
		if delete(t.byID[id], h); len(t.byID[id]) == 0 {
			delete(t.byID, id)
		}
	}
	delete(t.ids, h)
}

// of are the handles that depend on an image.
func (t *handles) of(id string) []*Handle {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*Handle
	for h := range t.byID[id] {
		all = append(all, h)
	}
	return all
}

// images are the ids that some handle depends on.
func (t *handles) images() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for id := range t.byID {
		all = append(all, id)
	}
	return all
}

// readable is the image of h as it is now, or why its reader may not read it: the
// errors of Open. get finds records, as Get does.
func (o *Opener) readable(ctx context.Context, h *Handle, get func(context.Context, string) (records.Image, error)) (records.Image, error) {
	img, err := get(ctx, h.id)
	if err != nil {
		return img, err
	}
	switch err := access.Check(h.who, access.Download, img); {
	case errors.Is(err, access.ErrHidden):
		return img, fmt.Errorf("%w: %w", records.ErrNotFound, err)
	case err != nil:
		return img, err
	}
	if err := openable(img, h.view, access.Check(h.who, access.DownloadDeactivated, img) == nil); err != nil || h.view.Stored {
		return img, err
	}
	for below := img.Parent; below != nil; {
		o.handles.enter(h, below.ID)
		parent, err := o.records.Get(ctx, below.ID) // it may be held
		if err != nil {
			return img, fmt.Errorf("parent: %w", err)
		}
		if rules.Blocked(parent) && parent.Owner != img.Owner && access.Check(h.who, access.DownloadDeactivated, parent) != nil {
			return img, fmt.Errorf("image %s is deactivated: %w", parent.ID, ErrParentDeactivated)
		}
		below = parent.Parent
	}
	return img, nil
}

// openable says why an image in this state cannot be read; blocked: it may be although
// it is deactivated.
func openable(img records.Image, v View, blocked bool) error {
	switch img.Status {
	case records.Active:
	case records.Deactivated:
		if !v.Deactivated || !blocked {
			return ErrDeactivated
		}
	case records.Queued, records.Saving, records.Uploading, records.Importing, records.Killed:
		return fmt.Errorf("%w: it is %s", ErrNoData, img.Status)
	default:
		return fmt.Errorf("%w: it is %s", records.ErrNotFound, img.Status)
	}
	if !v.Stored && img.DiskError != "" {
		return fmt.Errorf("%w: %s", ErrStoredOnly, img.DiskError)
	}
	if len(img.Locations) == 0 {
		return fmt.Errorf("%w: its record names no location", ErrNoData)
	}
	return nil
}

// Recheck revokes the handles whose readers may no longer read what they have open,
// after a change of image id. It looks at the records and not at the change, which may
// be long past. The handles are taken first: one that comes later has read the
// records after the change itself.
func (o *Opener) Recheck(ctx context.Context, id string) error {
	open := o.handles.of(id)
	if len(open) == 0 {
		return nil
	}
	known := map[string]func() (records.Image, error){}
	get := func(ctx context.Context, id string) (records.Image, error) {
		if known[id] == nil {
			known[id] = sync.OnceValues(func() (records.Image, error) { return o.records.GetExisting(ctx, id) })
		}
		return known[id]()
	}
	var failed error
	for _, h := range open {
		switch _, err := o.readable(ctx, h, get); {
		case err == nil:
		case errors.Is(err, records.ErrNotFound), errors.Is(err, access.ErrDenied), errors.Is(err, ErrDeactivated),
			errors.Is(err, ErrParentDeactivated), errors.Is(err, ErrNoData), errors.Is(err, ErrStoredOnly):
			h.revoke()
		default:
			failed = err
		}
	}
	return failed
}

// RecheckAll is Recheck for every image that somebody has open.
func (o *Opener) RecheckAll(ctx context.Context) error {
	for _, id := range o.handles.images() {
		if err := o.Recheck(ctx, id); err != nil {
			return err
		}
	}
	return nil
}
