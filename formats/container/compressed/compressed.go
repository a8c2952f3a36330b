// Package compressed opens disk images that are compressed as a whole: gzip,
// zstd, xz or bzip2, whichever the content is. None of them can be read at
// random, so the image is decompressed once, into a spool.
package compressed

import (
	"context"
	"errors"
	"fmt"
	"io"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/container"
)

// Defaults of container.Options, and what may always be decompressed to.
const (
	defaultBytes = 1 << 40
	defaultRatio = 1000
	freeOfRatio  = 64 << 20
)

// piece is how much is decompressed at once, bytes.
const piece = 256 << 10

// Container is the compressed kind. It has no Verify: what compressed content's
// own checksums say is only known by decompressing it, which Open does.
func Container() container.Container {
	return container.Container{Name: "compressed", Probe: probe, Open: open}
}

func probe(head []byte) bool { return recognise(head) != nil }

// open decompresses src into o.Spool, and closes it: the image does not need it.
// It fails with ErrFormat where src is none of the codings, ErrCorrupt where it
// is cut off, followed by anything that is not the same coding, or does not match
// its checksums, ErrLimit over the limits or where it asks for more than 128 MiB
// of memory, and ErrUnsupported without a Spool.
func open(ctx context.Context, src stored.Bytes, o container.Options) (container.Opened, error) {
	head, err := formats.ReadHead(ctx, src)
	if err != nil {
		return container.Opened{}, err
	}
	c := recognise(head)
	if c == nil {
		return container.Opened{}, fmt.Errorf("%w: the content is not gzip, zstd, xz or bzip2", formats.ErrFormat)
	}
	if o.Spool == nil {
		return container.Opened{}, fmt.Errorf("%w: %s content has to be decompressed first, and there is no place for it: configure a spool, or upload the image decompressed", formats.ErrUnsupported, c.name)
	}
	most := limit(src.Size(), o)
	image, err := o.Spool(ctx, func(ctx context.Context, w io.Writer) error {
		return decompress(ctx, c, src, &bounded{w: w, left: most, most: most, coded: src.Size()})
	})
	if err != nil {
		return container.Opened{}, err
	}
	src.Close()
	return container.Opened{Image: image, Name: c.nameIn(head)}, nil
}

// limit is the most that coded bytes may decompress to. The ratio is that of the
// whole: a disk that begins with gigabytes of zeros is none the worse for it.
func limit(coded int64, o container.Options) int64 {
	most, ratio := o.MaxBytes, o.MaxRatio
	if most <= 0 {
		most = defaultBytes
	}
	if ratio <= 0 {
		ratio = defaultRatio
	}
	if coded > most/ratio { // also where the product would overflow
		return most
	}
	return min(most, max(freeOfRatio, coded*ratio))
}

// decompress writes what src decompresses to.
func decompress(ctx context.Context, c *coding, src stored.Bytes, w io.Writer) error {
	in := readAhead(ctx, src)
	defer in.Close()
	r, err := c.reader(in)
	if err == nil {
		_, err = io.CopyBuffer(w, struct{ io.Reader }{r}, make([]byte, piece))
		r.Close()
	}
	return failure(ctx, c, in, err)
}

// failure is err by the contract: what is not the reader's, the writer's or the
// limits' is the content's.
func failure(ctx context.Context, c *coding, in *ahead, err error) error {
	var w *writeError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case in.failed() != nil:
		return fmt.Errorf("read the %s content: %w", c.name, in.failed())
	case errors.As(err, &w):
		return w.err
	case errors.Is(err, formats.ErrLimit), errors.Is(err, formats.ErrUnsupported):
		return fmt.Errorf("%s: %w", c.name, err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the %s content is cut off", formats.ErrCorrupt, c.name)
	}
	return fmt.Errorf("%w: the %s content, before byte %d: %v", formats.ErrCorrupt, c.name, in.at(), err)
}

// bounded is a writer that takes no more than its limit.
type bounded struct {
	w           io.Writer
	left        int64
	most, coded int64 // for the message
}

// writeError tells an error of where the content goes from one of the content.
type writeError struct{ err error }

func (e *writeError) Error() string { return e.err.Error() }

func (b *bounded) Write(p []byte) (int, error) {
	if int64(len(p)) > b.left {
		return 0, &writeError{fmt.Errorf("%w: %d compressed bytes decompress to more than %d", formats.ErrLimit, b.coded, b.most)}
	}
	n, err := b.w.Write(p)
	b.left -= int64(n)
	if err != nil {
		err = &writeError{err}
	}
	return n, err
}
