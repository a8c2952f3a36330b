// Package container is the contract for files that hold a disk image: an archive
// with the image in it, or the image compressed. A container is opened into
// Sources, which formats are then opened from; it knows no disk format.
//
// One folder below this one is one kind of container.
package container

import (
	"context"
	"errors"
	"io"

	"glanced/backends/stored"
	"glanced/formats"
)

// Sentinels of the contract, beside those of package formats: a container that
// makes no sense is formats.ErrCorrupt, one that is not of its kind
// formats.ErrFormat, one past the limits formats.ErrLimit.
var (
	ErrNoDisk = errors.New("the container holds no disk image")
	ErrDigest = errors.New("a file in the container is not what its manifest says")
	ErrFull   = errors.New("there is no room now for what the container decompresses to")
)

// Spool keeps what a stream decompresses to. It returns what fill wrote, as a
// Source that the caller closes: now, or at an earlier time for the same
// container, without calling fill. Zeros need take no room. When fill fails,
// nothing is kept and its error is returned. fill, which reads from what is the
// caller's, never runs on when Spool has returned: where others wait for the
// same container, who began outstays its own ctx for them.
type Spool func(ctx context.Context, fill func(ctx context.Context, w io.Writer) error) (stored.Bytes, error)

// FillMemory is how much memory a fill may need, bytes: what the compressed stream
// asks for (a window of zstd, a dictionary of xz), however short it is.
const FillMemory = 128 << 20

// Options of Open.
type Options struct {
	Spool Spool // where compressed content goes; nil: formats.ErrUnsupported
	// MaxBytes is the most that compressed content may decompress to, 0 = 1 TiB;
	// MaxRatio the most that it may grow by once it is over 64 MiB, 0 = 1000.
	// Over them is formats.ErrLimit.
	MaxBytes int64
	MaxRatio int64
}

// Opened is what an opened container holds.
type Opened struct {
	// Image is the disk image inside. It owns the container's source from here on.
	Image stored.Bytes
	// Name is what the container calls it: untrusted text, valid UTF-8; "" = nothing.
	Name string
	// Beside supplies other files of the container that the image refers to, valid
	// until Image is closed. nil = there are none.
	Beside formats.Files
	// Others are the names of disk images in the container that are not Image.
	Others []string
	// Digests: the container has a list of digests of what is in it, which
	// Container.Verify compares, and Open does not.
	Digests bool
}

// Verifier checks a container while it streams by. Write takes the container's
// bytes in order; its errors, and those of Close after the last byte, are
// ErrDigest, and where the container cannot be followed what Open would say:
// formats.ErrFormat, ErrCorrupt, ErrUnsupported or ErrLimit. After an error,
// Write takes no more. Close must be called once, and ends what the Verifier
// runs; when not all bytes were written, its error means nothing.
type Verifier interface {
	io.WriteCloser
}

// Container is one kind of container.
type Container struct {
	Name string // Glance's container_format word: ova, compressed
	// Probe reports whether a file that begins with head (at least
	// formats.ProbeLen bytes, or all of it) could be such a container.
	Probe func(head []byte) bool
	// Open finds the disk image inside src. When it fails, src stays the caller's.
	Open func(ctx context.Context, src stored.Bytes, o Options) (Opened, error)
	// Verify begins to check a container that streams by; nil: there is nothing
	// to check in this kind.
	Verify func() Verifier
}

// Find is the container called name.
func Find(containers []Container, name string) (Container, bool) {
	for _, c := range containers {
		if c.Name == name {
			return c, true
		}
	}
	return Container{}, false
}
