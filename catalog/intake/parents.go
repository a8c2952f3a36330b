package intake

import (
	"context"
	"errors"
	"fmt"

	"glanced/catalog/access"
	"glanced/catalog/fields"
	"glanced/catalog/records"
	"glanced/catalog/rules"
	"glanced/catalog/stores"
	"glanced/formats"
)

// BackingProperty names the image that a backing file, or a parent, found inside an
// uploaded one stands for. What it says counts when the image becomes active.
const BackingProperty = "backing_image"

// maxChain is how many images may stand on each other, the top one included.
const maxChain = 16

// candidate finds the image that a reference inside img stands for, while img is
// being taken in: the one that the property backing_image names, else one that the
// reference itself names by its id. The owner of img must be able to read it.
func (in *Intake) candidate(ctx context.Context, img records.Image, ref formats.Ref) (records.Image, error) {
	id := img.Properties[BackingProperty]
	if id == "" && fields.IsID(ref.Name) {
		id = ref.Name
	}
	if id == "" {
		return records.Image{}, fmt.Errorf("%w: %s %q: before the upload, set the property %s to the id of the image that it stands for, or flatten the image (qemu-img convert)",
			formats.ErrReference, ref.Kind, ref.Name, BackingProperty)
	}
	parent, err := in.records.GetExisting(ctx, id)
	if errors.Is(err, records.ErrNotFound) || err == nil && access.Check(access.OwnerOf(img), access.Download, parent) != nil {
		// One text for both: a guess learns nothing of other projects' images.
		return records.Image{}, fmt.Errorf("%w: %s: there is no image %q that the owner of this one can read", formats.ErrReference, ref.Kind, rules.Clip(id))
	}
	if err != nil {
		return records.Image{}, fmt.Errorf("%w: %w", stores.ErrStore, err)
	}
	switch {
	case parent.Status == records.Active && parent.HashValue == nil:
		return records.Image{}, fmt.Errorf("%w: %s: image %s has no hash yet: try again when it has os_hash_value", formats.ErrReference, ref.Kind, id)
	case parent.Status != records.Active:
		return records.Image{}, fmt.Errorf("%w: %s: image %s is %s, not active", formats.ErrReference, ref.Kind, id, parent.Status)
	case parent.DiskError != "":
		return records.Image{}, fmt.Errorf("%w: %s: image %s has no readable disk: %s", formats.ErrReference, ref.Kind, id, parent.DiskError)
	case ref.Format != "" && ref.Format != *parent.DiskFormat:
		return records.Image{}, fmt.Errorf("%w: the %s is said to be %s, image %s is %s", formats.ErrReference, ref.Kind, ref.Format, id, *parent.DiskFormat)
	}
	return parent, in.checkChain(ctx, parent)
}

// checkChain counts the images below a child. They cannot lead in a circle: each
// was active before the one above it.
func (in *Intake) checkChain(ctx context.Context, img records.Image) error {
	for n := 2; img.Parent != nil; n++ {
		if n == maxChain {
			return fmt.Errorf("%w: a chain of more than %d images: flatten one of them (qemu-img convert)", formats.ErrLimit, maxChain)
		}
		var err error
		if img, err = in.records.Get(ctx, img.Parent.ID); err != nil {
			return fmt.Errorf("%w: %w", stores.ErrStore, err)
		}
	}
	return nil
}
