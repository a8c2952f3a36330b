package disks

import (
	"context"
	"errors"
	"fmt"

	"glanced/backends"
	"glanced/backends/replicas"
	"glanced/backends/stored"
	"glanced/catalog/records"
	"glanced/catalog/stores"
)

// OpenBytes opens an image's stored bytes. Where they lie at several locations, a
// read that fails at one goes on at the next. A location without a version may hold
// any bytes of the image's size, so it is none to go on at: it is opened only where no
// other location can be, and all is read from there. The caller closes them. ErrStore.
func (o *Opener) OpenBytes(ctx context.Context, img records.Image) (stored.Bytes, error) {
	var sure, unsure []records.Location
	for _, l := range o.stores.Preferred(img.Locations) {
		if l.Version != "" {
			sure = append(sure, l)
		} else {
			unsure = append(unsure, l)
		}
	}
	b, err := o.openReplicas(ctx, img, sure)
	if err != nil && len(unsure) > 0 {
		o.log.Warn("an image's data cannot be read from its stores; trying those of which the version of the data is not on record", "image", img.ID, "error", err)
	}
	for _, l := range unsure {
		if b != nil {
			break
		}
		var failed error
		if b, failed = o.openLocation(ctx, img, l); failed != nil {
			err = errors.Join(err, failed)
		}
	}
	if b == nil {
		return nil, fmt.Errorf("%w: %w", stores.ErrStore, err)
	}
	return b, nil
}

// openReplicas opens the bytes that lie at several locations, as one; of none, it opens
// nothing.
func (o *Opener) openReplicas(ctx context.Context, img records.Image, all []records.Location) (stored.Bytes, error) {
	switch len(all) {
	case 0:
		return nil, nil
	case 1:
		return o.openLocation(ctx, img, all[0])
	}
	var openers []replicas.Opener
	opt := replicas.Options{Failed: func(i int, err error) {
		o.log.Warn("an image's data cannot be read from one of its stores; trying its others", "image", img.ID, "store", all[i].Store, "error", err)
	}}
	for _, l := range all {
		openers = append(openers, func(ctx context.Context) (stored.Bytes, error) { return o.openLocation(ctx, img, l) })
		at, _ := o.answering.LoadOrStore(l.Store, new(replicas.Place))
		opt.Places = append(opt.Places, at.(*replicas.Place))
	}
	return replicas.Open(ctx, openers, opt)
}

// openLocation opens one location of an image. One that has no version yet, as those
// that Glance or an earlier glanced recorded, is first looked at, and gets one.
func (o *Opener) openLocation(ctx context.Context, img records.Image, l records.Location) (stored.Bytes, error) {
	entry, ok := o.stores.Find(l.Store)
	if !ok {
		return nil, stores.NotConfigured(l.Store)
	}
	p := place{o: o, image: img.ID, loc: stores.Located(img, l)}
	if p.loc.Version == "" {
		full, err := entry.Store.Stat(ctx, p.loc)
		if err != nil {
			return nil, p.failed(err)
		}
		if full.Version != "" {
			o.stamp(ctx, img.ID, l, full)
		}
		p.loc = full
	}
	b, err := entry.Store.Open(ctx, p.loc)
	if err != nil {
		return nil, p.failed(err)
	}
	o.changed.forget(p)
	return placed{b, p}, nil
}

// stamp records the size and version of a location that had none. It is done as well
// as can be: what is not recorded now is at the next open.
func (o *Opener) stamp(ctx context.Context, id string, l records.Location, full backends.Location) {
	_, err := o.records.Update(ctx, id, func(img *records.Image) error {
		for i := range img.Locations {
			if have := &img.Locations[i]; have.Store == l.Store && have.URL == l.URL && have.Version == "" {
				have.Size, have.Version = full.Size, full.Version
			}
		}
		return nil
	})
	if err != nil {
		o.log.Warn("cannot record the version of an image's data; trying again when it is next opened", "image", id, "store", l.Store, "error", err)
	}
}
