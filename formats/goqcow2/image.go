// Package goqcow2 gives a guest disk the shape of an image of
// github.com/lima-vm/go-qcow2reader, so that what is written for that library
// works on every format of ours: above all its convert package, which writes a
// disk to a sparse raw file, in parallel and with its holes kept.
package goqcow2

import (
	"context"
	"fmt"
	"io"

	"github.com/lima-vm/go-qcow2reader/image"

	"glanced/formats"
)

// Disk is what an Image needs of a disk: a *engine.Disk, or a handle on one.
type Disk interface {
	Size() int64
	Info() formats.Info
	ReadAt(ctx context.Context, p []byte, off int64) error
	Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error
	Close() error
}

// Image is a Disk as an image.Image. Safe for concurrent use.
type Image struct {
	// ctx ends all calls: the library's interface hands none on, so an Image is
	// made for one job and has that job's.
	ctx  context.Context
	disk Disk
}

var _ image.Image = (*Image)(nil)

// New makes an Image of d. All its calls fail when ctx has ended.
func New(ctx context.Context, d Disk) *Image { return &Image{ctx, d} }

// Type is the format's name as in Glance's disk_format; where the library knows
// the format, that is its word for it too.
func (i *Image) Type() image.Type { return image.Type(i.disk.Info().Format) }

// Size is the virtual size in bytes.
func (i *Image) Size() int64 { return i.disk.Size() }

// Readable returns nil: a disk that is open can be read.
func (i *Image) Readable() error { return nil }

// Close closes the disk.
func (i *Image) Close() error { return i.disk.Close() }

// ReadAt reads as io.ReaderAt says: fewer bytes than asked for only at the disk's
// end, with io.EOF.
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	size := i.disk.Size()
	if off < 0 {
		return 0, fmt.Errorf("%w: offset %d", formats.ErrRange, off)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if off >= size {
		return 0, io.EOF
	}
	var eof error
	if n := size - off; n < int64(len(p)) {
		p, eof = p[:n], io.EOF
	}
	if err := i.disk.ReadAt(i.ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), eof
}

// Extent says what guest range [start, start+length) begins with: the longest
// run from start on whose bytes are all of one kind. It reads as zeros where it
// is not allocated in the whole chain of disks.
func (i *Image) Extent(start, length int64) (image.Extent, error) {
	var run image.Extent
	err := i.disk.Extents(i.ctx, start, length, func(x formats.Extent) bool {
		next := image.Extent{
			Start:      x.Off,
			Length:     x.Len,
			Allocated:  x.Kind != formats.Absent,
			Zero:       !x.Kind.Stored(),
			Compressed: x.Kind == formats.Compressed,
		}
		if run.Length == 0 {
			run = next
			return true
		}
		if next.Allocated != run.Allocated || next.Zero != run.Zero || next.Compressed != run.Compressed {
			return false
		}
		run.Length += next.Length
		return true
	})
	return run, err
}
