// Package encode writes a guest disk out as an image of another format, from its
// map: what the map says is a hole is never read, and an image is laid out before
// its first byte is written, so that its length is known and any part of it can be
// made alone. Nothing is kept in a temporary file.
package encode

import (
	"context"

	"glanced/formats"
)

// ErrLimit is formats.ErrLimit: a disk that is more, or less, than a format can hold.
var ErrLimit = formats.ErrLimit

// Disk is what is written out: an engine.Disk, or a catalog handle of one. Safe
// for concurrent use.
type Disk interface {
	Size() int64 // virtual size, bytes
	// ReadAt fills p from guest offset off or fails.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// Extents: see engine.Disk.
	Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error
}

// Image is an encoded image that is made as it is read. Safe for concurrent use.
type Image interface {
	Size() int64 // bytes
	// ReadAt fills p from byte off of the image or fails.
	ReadAt(ctx context.Context, p []byte, off int64) error
}
