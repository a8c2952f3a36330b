package disks

import (
	"context"
	"errors"
	"fmt"

	"glanced/backends/stored"
	"glanced/catalog/records"
	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/engine"
)

// Opened is an open disk, which holds the open disks below it, from its parent down.
type Opened struct {
	*engine.Disk
	bytes   stored.Bytes // that it is read from
	below   *table       // of the parents
	parents []*disk
}

// Close closes the disk, and gives those below it back.
func (d *Opened) Close() error {
	err := d.Disk.Close()
	d.below.releaseAll(d.parents)
	return err
}

// FindParent finds the image that a reference inside another image stands for.
type FindParent func(ctx context.Context, ref formats.Ref) (records.Image, error)

// OpenGuest opens the guest disk of an image for the caller alone, who closes it: the
// container around it, the image inside, and the disks it stands on, which parent finds;
// snapshot: one inside the image, by its id, or "". Who may read it is not asked. The
// errors are those of formats, containers and parent, and ErrStore.
func (o *Opener) OpenGuest(ctx context.Context, img records.Image, parent FindParent, snapshot string) (*Opened, error) {
	driver, ok := formats.Find(o.drivers, *img.DiskFormat)
	if !ok {
		return nil, fmt.Errorf("%w: there is no driver for %s", formats.ErrUnsupported, *img.DiskFormat)
	}
	content, err := o.Unwrap(ctx, img)
	if err != nil {
		return nil, err
	}
	result := &Opened{bytes: content.Image, below: &o.disks}
	how := engine.OpenOptions{Snapshot: snapshot}
	how.Parent = func(ctx context.Context, ref formats.Ref) (*engine.Disk, error) {
		d, err := o.openParent(ctx, ref, parent)
		if err != nil {
			return nil, err
		}
		result.parents = append(result.parents, d)
		return d.opened.Disk, nil
	}
	how.Files = func(ctx context.Context, ref formats.Ref) (stored.Bytes, error) {
		if ref.Kind == formats.RefExtent && content.Beside != nil {
			return content.Beside(ctx, ref)
		}
		return nil, fmt.Errorf("%w, which is not part of the upload: convert the disk to one file (qemu-img convert)", formats.ErrReference)
	}
	result.Disk, err = o.engine.Open(ctx, driver, content.Image, how)
	if err != nil {
		o.disks.releaseAll(result.parents)
		return nil, err
	}
	return result, nil
}

// Unwrap opens the stored bytes, and the container around the disk image if they
// are one that is opened here. The caller closes what it opens.
func (o *Opener) Unwrap(ctx context.Context, img records.Image) (container.Opened, error) {
	blob, err := o.OpenBytes(ctx, img)
	if err != nil {
		return container.Opened{}, err
	}
	kind, ok := container.Find(o.containers, *img.ContainerFormat)
	if !ok {
		return container.Opened{Image: blob}, nil
	}
	how := container.Options{MaxBytes: o.maxBytes}
	if o.spool != nil {
		how.Spool = o.spool.For(img.Owner, o.spoolKey(img))
	}
	content, err := kind.Open(ctx, blob, how)
	if err != nil {
		blob.Close()
		return container.Opened{}, fmt.Errorf("container %s: %w", kind.Name, err)
	}
	return content, nil
}

// openParent opens the guest disk below an image; who gets it releases it. Who
// may read a child whose parent was withdrawn is told when the child is opened (readable).
func (o *Opener) openParent(ctx context.Context, ref formats.Ref, find FindParent) (*disk, error) {
	img, err := find(ctx, ref)
	if err != nil {
		return nil, err
	}
	for {
		d, shared := o.disks.acquire(diskKey{img.ID, View{}})
		err = o.disks.open(ctx, d, func(ctx context.Context) (*Opened, error) { return o.openDisk(ctx, img, View{}) })
		if err != nil {
			o.disks.release(d)
			if errors.Is(err, errAbandoned) && ctx.Err() == nil {
				continue
			}
			return nil, fmt.Errorf("%s, image %s: %w", ref.Kind, img.ID, err)
		}
		if !shared || o.verify(ctx, d) {
			return d, nil
		}
		o.disks.release(d)
	}
}

// frozen finds the parent that was written into img's record when it became active.
func (o *Opener) frozen(ctx context.Context, img records.Image, ref formats.Ref) (records.Image, error) {
	if img.Parent == nil {
		return records.Image{}, fmt.Errorf("%w: %s %q: the image has no parent in the catalog", formats.ErrReference, ref.Kind, ref.Name)
	}
	parent, err := o.records.Get(ctx, img.Parent.ID) // it may be held
	if err != nil {
		return records.Image{}, fmt.Errorf("parent: %w", err)
	}
	if parent.HashValue == nil || *parent.HashValue != img.Parent.HashValue {
		return records.Image{}, fmt.Errorf("%w: image %s is no longer what it was", records.ErrParent, parent.ID)
	}
	return parent, nil
}
