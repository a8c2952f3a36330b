package encode

import (
	"context"

	"glanced/formats"
)

// Raw is the guest disk itself. The Image is a formats.Extenter too: it tells the
// holes, for who writes a sparse file.
func Raw(d Disk) Image { return raw{d} }

type raw struct{ disk Disk }

var _ formats.Extenter = raw{}

// Size is the virtual size in bytes.
func (r raw) Size() int64 { return r.disk.Size() }

// ReadAt fills p from guest offset off or fails.
func (r raw) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.disk.ReadAt(ctx, p, off)
}

// Extents yields runs that cover [off, off+n) in order, of which no two in a row
// are alike; a hole is what the map says reads as zeros.
func (r raw) Extents(ctx context.Context, off, n int64, yield func(off, n int64, hole bool) bool) error {
	var length int64 // of the run that begins at off and is not yet yielded
	var hole, stopped bool
	err := r.disk.Extents(ctx, off, n, func(x formats.Extent) bool {
		if length > 0 && hole == x.Kind.Stored() {
			if stopped = !yield(off, length, hole); stopped {
				return false
			}
			off, length = off+length, 0
		}
		hole = !x.Kind.Stored()
		length += x.Len
		return true
	})
	if err == nil && !stopped && length > 0 {
		yield(off, length, hole)
	}
	return err
}
