package catalog

import (
	"bytes"
	"context"
	"io"

	"glanced/catalog/access"
	"glanced/catalog/disks"
	"glanced/catalog/intake"
)

type (
	// UploadOptions of one Upload.
	UploadOptions = intake.UploadOptions
	// RegisterOptions of one Register.
	RegisterOptions = intake.RegisterOptions
	// View says what of an image to open; the zero value is the guest disk.
	View = disks.View
	// Handle is one open image, for one reader.
	Handle = disks.Handle
	// Spool is where what containers decompress to is kept: one file an image.
	Spool = disks.Spool
)

const (
	// UploadBytes is about what an upload takes at least, bytes.
	UploadBytes = intake.UploadBytes
	// BackingProperty names the image that a backing file, or a parent, found inside an
	// uploaded one stands for. What it says counts when the image becomes active.
	BackingProperty = intake.BackingProperty
)

// Upload takes a queued image's data in; see intake.Intake.Upload, and its errors.
func (c *Catalog) Upload(client context.Context, id string, body io.Reader, o UploadOptions) error {
	return c.intake.Upload(client, id, body, o)
}

// Activate makes a queued image active without data, as an upload of 0 bytes.
func (c *Catalog) Activate(ctx context.Context, id string) error {
	return c.intake.Upload(ctx, id, bytes.NewReader(nil), UploadOptions{Size: 0})
}

// Register makes a queued image active whose data lies where others keep it; see
// intake.Intake.Register, and its errors.
func (c *Catalog) Register(client context.Context, id string, o RegisterOptions) error {
	return c.intake.Register(client, id, o)
}

// Open opens an image for reading by who; the caller closes the Handle. See
// disks.Opener.Open, and its errors.
func (c *Catalog) Open(ctx context.Context, who access.Identity, id string, v View) (*Handle, error) {
	return c.disks.Open(ctx, who, id, v)
}
