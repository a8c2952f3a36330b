package catalog

import (
	"context"
	"errors"
	"fmt"

	"glanced/backends"
	"glanced/formats"
)

// checkHead says ErrFormat where the first bytes of an upload (formats.ProbeLen
// of them, or all there are) show another format than the declared one. As in
// Glance: only in container bare, and never where raw is declared.
func (c *Catalog) checkHead(img Image, head []byte) error {
	declared := *img.DiskFormat
	if *img.ContainerFormat != "bare" || declared == "raw" || len(head) == 0 {
		return nil
	}
	found, err := formats.Detect(c.drivers, head)
	if err != nil {
		return fmt.Errorf("%w: declared %s: %w", ErrFormat, declared, err)
	}
	if found == declared {
		return nil
	}
	driver, known := formats.Find(c.drivers, declared)
	if found == "raw" && (!known || driver.Probe == nil) {
		return nil // nobody here can tell
	}
	if found == "raw" {
		return fmt.Errorf("%w: declared %s, which it is not", ErrFormat, declared)
	}
	return fmt.Errorf("%w: declared %s, found %s", ErrFormat, declared, found)
}

// verdict is what a look at a stored image says of its guest disk.
type verdict struct {
	virtualSize, allocated *int64
	diskError              string // why there is no guest disk; "" = there is one
}

// inspect opens a stored image's guest disk once. In container bare, content
// that is not what was declared or not safe is an error: ErrFormat, ErrUnsafe.
// What is just not readable here is a verdict: stored only.
func (c *Catalog) inspect(ctx context.Context, img Image, loc backends.Location, size int64) (verdict, error) {
	declared, container := *img.DiskFormat, *img.ContainerFormat
	storedOnly := func(why string) (verdict, error) { return verdict{diskError: why}, nil }
	driver, ok := formats.Find(c.drivers, declared)
	switch {
	case !ok:
		return storedOnly("there is no driver for disk format " + declared)
	case size == 0 && declared != "raw":
		return storedOnly("the image is empty")
	case container != "bare" && declared == "raw":
		// Anything opens as raw; the container's own bytes are no disk.
		return storedOnly("the disk is inside a container (" + container + "), which is not opened")
	}
	v, err := c.measure(ctx, driver, loc)
	var bad *contentError
	switch {
	case err == nil:
		return v, nil
	case !errors.As(err, &bad):
		return verdict{}, err
	case container != "bare":
		return storedOnly(bad.Error())
	case errors.Is(err, formats.ErrEncrypted):
		v.diskError = bad.Error()
		return v, nil
	case errors.Is(err, formats.ErrFormat):
		return verdict{}, fmt.Errorf("%w: declared %s: %w", ErrFormat, declared, err)
	}
	return verdict{}, fmt.Errorf("%w: %w", ErrUnsafe, err)
}

// contentError is a failure that lies in an image's content, not in reading it.
type contentError struct{ err error }

func (e *contentError) Error() string { return e.err.Error() }
func (e *contentError) Unwrap() error { return e.err }

// content makes err a *contentError if it is one of the drivers' verdicts, and an
// ErrStore if not.
func content(err error) error {
	for _, k := range []error{formats.ErrFormat, formats.ErrCorrupt, formats.ErrUnsupported,
		formats.ErrReference, formats.ErrEncrypted, formats.ErrLimit} {
		if errors.Is(err, k) {
			return &contentError{err}
		}
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}

// measure reads the metadata, and walks the map to see what is allocated.
func (c *Catalog) measure(ctx context.Context, driver formats.Driver, loc backends.Location) (verdict, error) {
	open := func() (formats.Source, error) {
		b, err := c.openBlob(ctx, Location{Store: loc.Store, URL: loc.URL})
		if err != nil {
			return nil, fmt.Errorf("%w: read back what was stored: %w", ErrStore, err)
		}
		return source(b), nil
	}
	src, err := open()
	if err != nil {
		return verdict{}, err
	}
	info, err := driver.Inspect(ctx, []formats.Source{src})
	src.Close()
	if err != nil {
		return verdict{}, content(err)
	}
	v := verdict{virtualSize: &info.VirtualSize}
	if info.Refused != nil {
		// Encryption must not hide a reference that would be refused without it.
		if errors.Is(info.Refused, formats.ErrEncrypted) && len(info.Refs) > 0 {
			return verdict{}, &contentError{fmt.Errorf("%w: %s %q", formats.ErrReference, info.Refs[0].Kind, info.Refs[0].Name)}
		}
		return v, content(info.Refused)
	}
	if src, err = open(); err != nil {
		return verdict{}, err
	}
	disk, err := c.engine.Open(ctx, driver, []formats.Source{src}, nil, formats.Options{})
	if err != nil {
		return verdict{}, content(err)
	}
	defer disk.Close()
	var allocated int64
	err = disk.Extents(ctx, 0, disk.Size(), func(x formats.Extent) bool {
		if x.Kind == formats.Data || x.Kind == formats.Compressed {
			allocated += x.Len
		}
		return true
	})
	if err != nil {
		return verdict{}, content(err)
	}
	v.allocated = &allocated
	return v, nil
}
