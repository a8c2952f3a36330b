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

// Unspool forgets what an image decompresses to; who is having it decompressed fails. It
// is done as well as can be: what stays is removed by the next SweepSpool.
func (o *Opener) Unspool(img records.Image) {
	if o.spool == nil || img.ContainerFormat == nil {
		return
	}
	if _, ok := container.Find(o.containers, *img.ContainerFormat); !ok {
		return
	}
	o.removeSpooled(o.spoolKey(img))
}

func (o *Opener) removeSpooled(key string) {
	if err := o.spool.Remove(key); err != nil {
		o.log.Warn("what a container decompressed to is still in the spool; the next start removes it", "key", key, "error", err)
	}
}

// Forget forgets what is kept of an image that was deleted, by whichever daemon: what it
// decompresses to, under any key, for its record may name no location any more; and which
// of its places were found changed.
func (o *Opener) Forget(img records.Image) {
	o.changed.forgetImage(img.ID)
	o.Unspool(img)
	if o.spool == nil {
		return
	}
	for _, key := range o.spool.Keys() {
		if spooledImage(key) == img.ID {
			o.removeSpooled(key)
		}
	}
}

// spooledImage is the id of the image that a key is for.
func spooledImage(key string) string {
	id, _, _ := strings.Cut(key, ".")
	return id
}

// SweepSpool removes what no image decompresses to: of uploads that were cut off
// after it was kept, and of images deleted since. What an upload under way has spooled stays.
func (o *Opener) SweepSpool(ctx context.Context) error {
	if o.spool == nil {
		return nil
	}
	for _, key := range o.spool.Keys() {
		img, err := o.records.Get(ctx, spooledImage(key))
		if err != nil && !errors.Is(err, records.ErrNotFound) {
			return err
		}
		// The record of an image that is being taken in has no hash yet, and no location.
		if err == nil && (img.Status == records.Saving || img.Status != records.Deleted && o.spoolKey(img) == key) {
			continue
		}
		o.removeSpooled(key)
	}
	return nil
}
