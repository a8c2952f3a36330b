package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"glanced/backends"
	"glanced/catalog/records"
	"glanced/catalog/stores"
	"glanced/formats"
)

// RegisterOptions of one Register.
type RegisterOptions struct {
	URL   string // of the data, in Glance's spelling for the kind of store; it may hold credentials
	Store string // id of the store that reads it; "" = the first that takes such a URL
}

// Register makes a queued image active whose data lies where others keep it. The data
// is looked at as that of an upload, by its head, its tail and its map, and nothing
// of it is copied. Its hashes follow, made in the background. When Register fails the
// image is queued again, as after Upload, and the errors are those of Upload;
// besides ErrLocation: no store takes such a URL, or there is nothing to be had at it.
// What a container's own manifest says of its content is not compared.
func (in *Intake) Register(client context.Context, id string, o RegisterOptions) error {
	entry, loc, err := in.locate(client, o)
	if err != nil {
		return err
	}
	if loc.Size > in.sizeCap {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, loc.Size, in.sizeCap)
	}
	ctx, end := context.WithCancelCause(client)
	defer end(nil)
	if !in.admit() {
		return ErrClosing
	}
	defer in.ending.Done()
	u := &upload{in: in, id: id, store: entry.Store, storeID: entry.ID, announced: loc.Size,
		lost: func(context.Context) { end(records.ErrLeaseLost) }}
	if err := u.begin(ctx); err != nil {
		return cutOff(ctx, err)
	}
	in.enterUpload(id, end)
	defer in.leaveUpload(id)
	in.leases.Add(u.lease, u.lost)
	defer in.leases.Remove(u.lease)
	if err := u.register(ctx, records.Location{Store: entry.ID, URL: loc.URL, Size: loc.Size, Version: loc.Version}); err != nil {
		return u.fail(ctx, cutOff(ctx, err))
	}
	in.hashing.add(id)
	return nil
}

// locate asks the stores of others' objects for what is at a location.
func (in *Intake) locate(ctx context.Context, o RegisterOptions) (stores.Entry, backends.Location, error) {
	var among []stores.Entry
	if o.Store != "" {
		entry, err := in.stores.Choose(o.Store)
		if err != nil {
			return entry, backends.Location{}, err
		}
		if !entry.Foreign {
			return entry, backends.Location{}, fmt.Errorf("%w: store %s keeps its objects itself: upload the data", ErrLocation, entry.ID)
		}
		among = append(among, entry)
	} else {
		among = slices.DeleteFunc(in.stores.All(), func(e stores.Entry) bool { return !e.Foreign })
	}
	err := fmt.Errorf("%w: no store is configured that reads what others keep, as one of type http", ErrLocation)
	for _, entry := range among {
		var loc backends.Location
		loc, err = entry.Store.Stat(ctx, backends.Location{Store: entry.ID, URL: o.URL, Size: -1})
		if err == nil {
			return entry, loc, nil
		}
		bad := errors.Is(err, backends.ErrBadLocation)
		if err = whyNotLocated(ctx, err); !bad {
			break
		}
	}
	return stores.Entry{}, backends.Location{}, err
}

// whyNotLocated says in the catalog's words why a store does not know an object.
func whyNotLocated(ctx context.Context, err error) error {
	for _, kind := range []error{backends.ErrBadLocation, backends.ErrNotFound, backends.ErrDenied} {
		if ctx.Err() == nil && errors.Is(err, kind) {
			return fmt.Errorf("%w: %w", ErrLocation, err)
		}
	}
	return storeError(ctx, err)
}

// register looks at the data and makes the image active.
func (u *upload) register(ctx context.Context, loc records.Location) error {
	u.img.Size, u.img.Locations = &loc.Size, []records.Location{loc}
	if err := u.in.recognise(ctx, u.img); err != nil {
		return err
	}
	verdict, err := u.in.inspect(ctx, u.img)
	if err != nil {
		return err
	}
	return u.activate(ctx, loc, loc.Size, nil, verdict)
}

// recognise is for stored bytes what an upload's recogniser is for a stream.
func (in *Intake) recognise(ctx context.Context, img records.Image) error {
	r := in.recogniser(img)
	if r == nil {
		return nil
	}
	b, err := in.disks.OpenBytes(ctx, img)
	if err != nil {
		return err
	}
	defer b.Close()
	head, err := formats.ReadHead(ctx, b)
	if err != nil {
		return fmt.Errorf("%w: %w", stores.ErrStore, err)
	}
	rest := b.Size() - int64(len(head))
	if err := r.write(head, rest == 0); err != nil || rest == 0 {
		return err
	}
	tail := make([]byte, min(formats.TailLen, rest))
	if err := b.ReadAt(ctx, tail, b.Size()-int64(len(tail))); err != nil {
		return fmt.Errorf("%w: read the last %d bytes: %w", stores.ErrStore, len(tail), err)
	}
	return r.write(tail, true)
}
