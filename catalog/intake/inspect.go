package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"glanced/catalog/records"
	"glanced/catalog/stores"
	"glanced/formats"
	"glanced/formats/container"
)

// inspected tells whether an image's content must be what its disk format says, as
// in Glance: in container bare, and not for the parts of an Amazon image, which
// are disks and kernels of any content.
func inspected(img records.Image) bool {
	return *img.ContainerFormat == "bare" && !slices.Contains([]string{"ami", "ari", "aki"}, *img.DiskFormat)
}

// verdict is what a look at a stored image says of its guest disk.
type verdict struct {
	virtualSize, allocated *int64
	snapshots              []records.Snapshot
	parent                 *records.Parent
	diskError              string // why there is no guest disk; "" = there is one
}

// inspect opens a stored image's guest disk once. Where its content must be what
// was declared, content that is not, or that is not safe, is an error: ErrFormat,
// ErrUnsafe. What is just not readable here is a verdict: stored only.
func (in *Intake) inspect(ctx context.Context, img records.Image) (verdict, error) {
	declared, kind := *img.DiskFormat, *img.ContainerFormat
	storedOnly := func(why string) (verdict, error) { return verdict{diskError: why}, nil }
	_, driven := formats.Find(in.drivers, declared)
	_, opens := container.Find(in.containers, kind)
	switch {
	case !driven:
		return storedOnly("there is no driver for disk format " + declared)
	case *img.Size == 0 && declared != "raw":
		return storedOnly("the image is empty")
	case declared == "raw" && !opens && !slices.Contains([]string{"bare", "ami", "ari", "aki"}, kind):
		// Anything opens as raw; the container's own bytes are no disk.
		return storedOnly("the disk is inside a container (" + kind + "), which is not opened")
	}
	v, err := in.measure(ctx, img)
	var bad *contentError
	switch {
	case err == nil:
		return v, nil
	case !errors.As(err, &bad):
		return verdict{}, err
	case errors.Is(err, formats.ErrEncrypted):
		v.diskError = bad.Error()
		return v, nil
	case !inspected(img):
		return storedOnly(bad.Error())
	case errors.Is(err, formats.ErrFormat):
		return verdict{}, fmt.Errorf("%w: declared %s: %w", ErrFormat, declared, err)
	}
	return verdict{}, fmt.Errorf("%w: %w", ErrUnsafe, err)
}

// contentError is a failure that lies in an image's content, not in reading it.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

// content makes err a *contentError if it is one of the verdicts on content, and an
// ErrStore if not, or if it is one on an image below, which was fine when it was
// taken in.
func content(err error) error {
	if errors.Is(err, stores.ErrStore) {
		return err
	}
	if formats.IsRefusal(err) || errors.Is(err, formats.ErrFormat) || errors.Is(err, container.ErrNoDisk) || errors.Is(err, container.ErrDigest) {
		return &contentError{err}
	}
	if errors.Is(err, container.ErrFull) {
		return fmt.Errorf("%w: %w", stores.ErrStoreFull, err)
	}
	return fmt.Errorf("%w: %w", stores.ErrStore, err)
}

// walkTime bounds how long the map of a new image is walked.
const walkTime = time.Minute

// measure opens the guest disk, and walks its map to see what is allocated and
// whether it makes sense.
func (in *Intake) measure(ctx context.Context, img records.Image) (verdict, error) {
	var v verdict
	parent := func(ctx context.Context, ref formats.Ref) (records.Image, error) {
		found, err := in.candidate(ctx, img, ref)
		if err == nil {
			v.parent = &records.Parent{ID: found.ID, HashValue: *found.HashValue}
		}
		return found, err
	}
	disk, err := in.disks.OpenGuest(ctx, img, parent, "")
	if errors.Is(err, formats.ErrEncrypted) {
		// What encryption hides is told as far as the header does.
		return in.describe(ctx, img, err)
	}
	if err != nil {
		return verdict{}, content(err)
	}
	defer disk.Close()
	if err := disk.Check(ctx); err != nil {
		return verdict{}, content(err)
	}
	info := disk.Info()
	v.virtualSize, v.snapshots = &info.VirtualSize, addressed(info.Snapshots)

	walk, cancel := context.WithTimeout(ctx, walkTime)
	defer cancel()
	var allocated int64
	err = disk.Extents(walk, 0, disk.Size(), func(x formats.Extent) bool {
		if x.Kind.Stored() {
			allocated += x.Len
		}
		return true
	})
	switch {
	case err == nil:
		v.allocated = &allocated
	case ctx.Err() == nil && errors.Is(err, walk.Err()):
		// Large, or far away. What has not been seen is checked when it is read.
		in.log.Warn("the map of a new image takes too long to walk: how much of it is allocated is not known", "image", img.ID)
	default:
		return verdict{}, content(err)
	}
	return v, nil
}

// describe is the verdict on an encrypted image, which cannot be opened: why.
// Encryption must not hide a reference that would be refused without it.
func (in *Intake) describe(ctx context.Context, img records.Image, why error) (verdict, error) {
	inside, err := in.disks.Unwrap(ctx, img)
	if err != nil {
		return verdict{}, content(err)
	}
	defer inside.Image.Close()
	driver, _ := formats.Find(in.drivers, *img.DiskFormat) // it was opened just now
	info, err := driver.Inspect(ctx, inside.Image)
	if err != nil {
		return verdict{}, content(err)
	}
	if len(info.Refs) > 0 {
		return verdict{}, &contentError{fmt.Errorf("%w: %s %q", formats.ErrReference, info.Refs[0].Kind, info.Refs[0].Name)}
	}
	return verdict{virtualSize: &info.VirtualSize}, content(why)
}
