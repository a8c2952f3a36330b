package catalog

import (
	"context"
	"errors"
	"fmt"

	"glanced/backends/stored"
	"glanced/catalog/access"
	"glanced/catalog/records"
	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/engine"
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

// opened is an open disk, and the open disks below it, from its parent down.
type opened struct {
	*engine.Disk
	bytes   stored.Bytes // that it is read from
	parents []*disk
}

// kin finds the image that a reference inside another image stands for.
type kin func(ctx context.Context, ref formats.Ref) (Image, error)

// openGuest opens the guest disk of an image: the container around it, the image
// inside, and the disks it stands on, which parent finds; snapshot: one inside the
// image, by its id.
func (c *Catalog) openGuest(ctx context.Context, img Image, parent kin, snapshot string) (*opened, error) {
	driver, ok := formats.Find(c.drivers, *img.DiskFormat)
	if !ok {
		return nil, fmt.Errorf("%w: there is no driver for %s", formats.ErrUnsupported, *img.DiskFormat)
	}
	content, err := c.unwrap(ctx, img)
	if err != nil {
		return nil, err
	}
	result := &opened{bytes: content.Image}
	o := engine.OpenOptions{Snapshot: snapshot}
	o.Parent = func(ctx context.Context, ref formats.Ref) (*engine.Disk, error) {
		d, err := c.openParent(ctx, ref, parent)
		if err != nil {
			return nil, err
		}
		result.parents = append(result.parents, d)
		return d.opened.Disk, nil
	}
	o.Files = func(ctx context.Context, ref formats.Ref) (stored.Bytes, error) {
		if ref.Kind == formats.RefExtent && content.Beside != nil {
			return content.Beside(ctx, ref)
		}
		return nil, fmt.Errorf("%w, which is not part of the upload: convert the disk to one file (qemu-img convert)", formats.ErrReference)
	}
	result.Disk, err = c.engine.Open(ctx, driver, content.Image, o)
	if err != nil {
		c.disks.releaseAll(result.parents)
		return nil, err
	}
	return result, nil
}

// unwrap opens the stored bytes, and the container around the disk image if they
// are one that is opened here.
func (c *Catalog) unwrap(ctx context.Context, img Image) (container.Opened, error) {
	blob, err := c.openBytes(ctx, img)
	if err != nil {
		return container.Opened{}, err
	}
	kind, ok := container.Find(c.containers, *img.ContainerFormat)
	if !ok {
		return container.Opened{Image: blob}, nil
	}
	o := container.Options{MaxBytes: c.sizeCap}
	if c.spool != nil {
		o.Spool = c.spool.For(img.Owner, c.spoolKey(img))
	}
	content, err := kind.Open(ctx, blob, o)
	if err != nil {
		blob.Close()
		return container.Opened{}, fmt.Errorf("container %s: %w", kind.Name, err)
	}
	return content, nil
}

// spoolKey names what an image decompresses to. The hash is part of it, for a crash
// may leave what an earlier upload of the same image decompressed to. Data that
// others keep has no hash at first, so that its place and version stand for it.
func (c *Catalog) spoolKey(img Image) string {
	key := img.ID
	if len(img.Locations) > 0 {
		l := img.Locations[0]
		if entry, ok := c.configured(l.Store); ok && entry.Foreign {
			return key + "." + string(stored.NewIdentity(l.Store, l.URL, l.Version)[:32])
		}
	}
	if img.HashValue != nil {
		key += "." + (*img.HashValue)[:min(32, len(*img.HashValue))]
	}
	return key
}

// unspool forgets what an image decompresses to.
func (c *Catalog) unspool(img Image) {
	if c.spool == nil || img.ContainerFormat == nil {
		return
	}
	if _, ok := container.Find(c.containers, *img.ContainerFormat); !ok {
		return
	}
	if err := c.spool.Remove(c.spoolKey(img)); err != nil {
		c.log.Warn("what a container decompressed to is still in the spool", "image", img.ID, "error", err)
	}
}

// openParent opens the guest disk below an image; who gets it releases it. Who
// may read a child whose parent was withdrawn is told when the child is opened (readable).
func (c *Catalog) openParent(ctx context.Context, ref formats.Ref, find kin) (*disk, error) {
	img, err := find(ctx, ref)
	if err != nil {
		return nil, err
	}
	for {
		d, shared := c.disks.acquire(diskKey{img.ID, View{}})
		err = c.disks.open(ctx, d, func(ctx context.Context) (*opened, error) { return c.openDisk(ctx, img, View{}) })
		if err != nil {
			c.disks.release(d)
			if errors.Is(err, errAbandoned) && ctx.Err() == nil {
				continue
			}
			return nil, fmt.Errorf("%s, image %s: %w", ref.Kind, img.ID, err)
		}
		if !shared || c.verify(ctx, d) {
			return d, nil
		}
		c.disks.release(d)
	}
}

// maxChain is how many images may stand on each other, the top one included.
const maxChain = 16

// candidate finds the image that a reference inside img stands for, while img is
// being taken in: the one that the property backing_image names, else one that the
// reference itself names by its id. The owner of img must be able to read it.
func (c *Catalog) candidate(ctx context.Context, img Image, ref formats.Ref) (Image, error) {
	id := img.Properties[BackingProperty]
	if id == "" && isID(ref.Name) {
		id = ref.Name
	}
	if id == "" {
		return Image{}, fmt.Errorf("%w: %s %q: before the upload, set the property %s to the id of the image that it stands for, or flatten the image (qemu-img convert)",
			formats.ErrReference, ref.Kind, ref.Name, BackingProperty)
	}
	parent, err := c.Get(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && access.Check(access.OwnerOf(img), access.Download, parent) != nil {
		// One text for both: a guess learns nothing of other projects' images.
		return Image{}, fmt.Errorf("%w: %s: there is no image %q that the owner of this one can read", formats.ErrReference, ref.Kind, clip(id))
	}
	if err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrStore, err)
	}
	switch {
	case parent.Status == Active && parent.HashValue == nil:
		return Image{}, fmt.Errorf("%w: %s: image %s has no hash yet: try again when it has os_hash_value", formats.ErrReference, ref.Kind, id)
	case parent.Status != Active:
		return Image{}, fmt.Errorf("%w: %s: image %s is %s, not active", formats.ErrReference, ref.Kind, id, parent.Status)
	case parent.DiskError != "":
		return Image{}, fmt.Errorf("%w: %s: image %s has no readable disk: %s", formats.ErrReference, ref.Kind, id, parent.DiskError)
	case ref.Format != "" && ref.Format != *parent.DiskFormat:
		return Image{}, fmt.Errorf("%w: the %s is said to be %s, image %s is %s", formats.ErrReference, ref.Kind, ref.Format, id, *parent.DiskFormat)
	}
	return parent, c.checkChain(ctx, parent)
}

// checkChain counts the images below a child. They cannot lead in a circle: each
// was active before the one above it.
func (c *Catalog) checkChain(ctx context.Context, img Image) error {
	for n := 2; img.Parent != nil; n++ {
		if n == maxChain {
			return fmt.Errorf("%w: a chain of more than %d images: flatten one of them (qemu-img convert)", formats.ErrLimit, maxChain)
		}
		var err error
		if img, err = c.records.Get(ctx, img.Parent.ID); err != nil {
			return fmt.Errorf("%w: %w", ErrStore, err)
		}
	}
	return nil
}

// frozen finds the parent that was written into img's record when it became active.
func (c *Catalog) frozen(ctx context.Context, img Image, ref formats.Ref) (Image, error) {
	if img.Parent == nil {
		return Image{}, fmt.Errorf("%w: %s %q: the image has no parent in the catalog", formats.ErrReference, ref.Kind, ref.Name)
	}
	parent, err := c.records.Get(ctx, img.Parent.ID) // it may be held
	if err != nil {
		return Image{}, fmt.Errorf("parent: %w", err)
	}
	if parent.HashValue == nil || *parent.HashValue != img.Parent.HashValue {
		return Image{}, fmt.Errorf("%w: image %s is no longer what it was", records.ErrParent, parent.ID)
	}
	return parent, nil
}
