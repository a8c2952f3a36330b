package encode

import (
	"context"
	"fmt"
	"io"

	"glanced/formats"
)

const (
	grainSize = 64 << 10 // bytes; VMware's
	tableLen  = 512      // grains of a grain table; VMware's
	tableSpan = tableLen * grainSize

	// maxVMDK is VMware's limit on a disk, bytes.
	maxVMDK = 62 << 40
	// maxSectors bounds the file: its tables hold 32 bits for a sector. That is 2 TiB.
	maxSectors = 1<<32 - 1
)

// VMDK writes d to w as a streamOptimized image (VMware Virtual Disk Format 5.0,
// "Stream-Optimized Compressed Sparse Extents"), as VMware's tools do: a header
// that leaves the place of the grain directory to a footer, the descriptor, each
// grain table after its grains, the directory, the footer. Grains of 64 KiB that
// are all zeros are left out, whether the map says so or their bytes do. The
// content id is random, as an image's always is, so that no two calls write the
// same bytes.
//
// The image's capacity is d's size, rounded up to whole sectors. It fails with
// ErrLimit, before a byte is written, where d is larger than VMware's 62 TiB, or
// empty: QEMU takes a capacity of 0 for an image that lies in other files. The
// file ends at 2 TiB, which shows only while it is written (ErrLimit too).
//
// Grains are read and compressed on all cores, up to 16, in pieces of 512 KiB;
// some 2 MiB of memory are used for each, and 4 bytes for 32 MiB of disk. The
// first error, of d or of w, or ctx, ends it; a Write that blocks is waited for.
// Writes come one after the other.
func VMDK(ctx context.Context, d Disk, w io.Writer) error {
	size := d.Size()
	if size > maxVMDK {
		return fmt.Errorf("%w: a disk of %d bytes is more than a vmdk can hold (62 TiB); take qcow2 or raw", formats.ErrLimit, size)
	}
	if size == 0 {
		return fmt.Errorf("%w: a vmdk cannot hold a disk of no bytes; take qcow2 or raw", formats.ErrLimit)
	}
	out := newStream(w, size)
	if err := out.begin(); err != nil {
		return err
	}
	if err := copyGrains(ctx, d, out.grains); err != nil {
		return err
	}
	return out.end()
}
