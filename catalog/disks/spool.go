package disks

import (
	"context"
	"errors"
	"strings"

	"glanced/backends/stored"
	"glanced/catalog/records"
	"glanced/formats/container"
)

// Spool is where what containers decompress to is kept: one file an image.
type Spool interface {
	// For is the place for key, of an image of project's: letters, digits, '-' and '.'.
	For(project, key string) container.Spool
	// Remove forgets what For(key) keeps; nothing there is no error.
	Remove(key string) error
	// Keys are those that something is kept for.
	Keys() []string
}

// spoolKey names what an image decompresses to. The hash is part of it, for a crash
// may leave what an earlier upload of the same image decompressed to. Data that
// others keep has no hash at first, so that its place and version stand for it.
func (o *Opener) spoolKey(img records.Image) string {
	key := img.ID
	if len(img.Locations) > 0 {
		l := img.Locations[0]
		if entry, ok := o.stores.Find(l.Store); ok && entry.Foreign {
			return key + "." + string(stored.NewIdentity(l.Store, l.URL, l.Version)[:32])
		}
	}
	if img.HashValue != nil {
		key += "." + (*img.HashValue)[:min(32, len(*img.HashValue))]
	}
	return key
}

// Unspool forgets what an image decompresses to. It is done as well as can be: what
// stays is removed by the next SweepSpool.
func (o *Opener) Unspool(img records.Image) {
	if o.spool == nil || img.ContainerFormat == nil {
		return
	}
	if _, ok := container.Find(o.containers, *img.ContainerFormat); !ok {
		return
	}
	if err := o.spool.Remove(o.spoolKey(img)); err != nil {
		o.log.Warn("what a container decompressed to is still in the spool", "image", img.ID, "error", err)
	}
}

// SweepSpool removes what no image decompresses to: of uploads that were cut off
// after it was kept, and of images deleted since. It is for a time when nothing is open.
func (o *Opener) SweepSpool(ctx context.Context) error {
	if o.spool == nil {
		return nil
	}
	for _, key := range o.spool.Keys() {
		id, _, _ := strings.Cut(key, ".")
		img, err := o.records.Get(ctx, id)
		if err != nil && !errors.Is(err, records.ErrNotFound) {
			return err
		}
		if err == nil && img.Status != records.Deleted && o.spoolKey(img) == key {
			continue
		}
		if err := o.spool.Remove(key); err != nil {
			o.log.Warn("what a container decompressed to is still in the spool", "key", key, "error", err)
		}
	}
	return nil
}
