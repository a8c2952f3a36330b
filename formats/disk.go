package formats

import (
	"context"
	"fmt"
	"os"
)

// Disk is the guest disk of one opened image: a Layout, the Sources its extents
// point into, and the parent that shows through. Safe for concurrent use.
type Disk struct {
	e      *Engine
	layout Layout
	srcs   []Source
}

// Size is the virtual size in bytes.
func (d *Disk) Size() int64 { return d.layout.Size() }

// Info describes the image.
func (d *Disk) Info() Info { return d.layout.Info() }

// Close closes the layout and the sources, not the parent. No call may be under
// way, and none may follow.
func (d *Disk) Close() error {
	err := d.layout.Close()
	for _, s := range d.srcs {
		if e := s.Close(); err == nil {
			err = e
		}
	}
	return err
}

// ReadAt fills p from guest offset off or fails; a range outside the disk is ErrRange.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.inside(off, int64(len(p))); err != nil {
		return err
	}
	var failed error
	err := d.layout.Map(ctx, off, int64(len(p)), func(x Extent) bool {
		failed = d.move(ctx, p[x.Off-off:x.End()-off], x)
		return failed == nil
	})
	if failed != nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("read %d bytes at guest offset %d: %w", len(p), off, err)
	}
	return nil
}

// move fills p, the guest range of x.
func (d *Disk) move(ctx context.Context, p []byte, x Extent) error {
	switch x.Kind {
	case Absent:
		parent := d.layout.Parent()
		if parent == nil || x.Off >= parent.Size() {
			clear(p)
			return nil
		}
		n := min(int64(len(p)), parent.Size()-x.Off)
		clear(p[n:])
		return parent.ReadAt(ctx, p[:n], x.Off)
	case Zero:
		clear(p)
		return nil
	case Data:
		return d.srcs[x.Src].ReadAt(ctx, p, x.Pos)
	case Compressed:
		full, err := d.e.decode(ctx, d.srcs[x.Src], x)
		if err != nil {
			return err
		}
		copy(p, full[x.Skip:])
		return nil
	}
	return fmt.Errorf("%w: extent kind %v", ErrCorrupt, x.Kind)
}

// Extents yields what guest range [off, off+n) is made of, in order and without
// gaps, the chain of parents followed (Depth says how far), neighbours of one
// kind whose host ranges also adjoin merged. Absent means absent in the whole
// chain: it reads as zeros.
func (d *Disk) Extents(ctx context.Context, off, n int64, yield func(Extent) bool) error {
	if err := d.inside(off, n); err != nil {
		return err
	}
	return d.layout.Map(ctx, off, n, yield)
}

// FileRange says where in a local file guest range [off, off+n) lies as it is and
// in one piece; ok is false where it does not. The file is the source's own:
// valid until Close, not to be closed.
func (d *Disk) FileRange(ctx context.Context, off, n int64) (f *os.File, pos int64, ok bool) {
	return nil, 0, false
}

// Prefetch makes a later read of the range cheaper where it can; it waits for nothing.
func (d *Disk) Prefetch(off, n int64) {}

func (d *Disk) inside(off, n int64) error {
	if off < 0 || n < 0 || off > d.Size()-n {
		return fmt.Errorf("%w: %d bytes at %d of a disk of %d", ErrRange, n, off, d.Size())
	}
	return nil
}
