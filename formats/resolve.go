package formats

import (
	"context"
	"fmt"
)

// Disk asks r for the disk below an image: its backing file or parent. It fails
// with ErrReference where r is nil, supplies no disk, or supplies another one
// than the image was made on (Ref.Identity).
func (r Resolver) Disk(ctx context.Context, ref Ref) (*Disk, error) {
	disk, src, err := r.ask(ctx, ref)
	if err != nil {
		return nil, err
	}
	if src != nil {
		src.Close()
	}
	if disk == nil || src != nil {
		return nil, fmt.Errorf("%w: %s %q is not a disk", ErrReference, ref.Kind, ref.Name)
	}
	if have := disk.Info().Identity; ref.Identity != "" && have != ref.Identity {
		return nil, fmt.Errorf("%w: the image was made on a %s with the identity %s; the one given has %q", ErrReference, ref.Kind, ref.Identity, have)
	}
	return disk, nil
}

// Source asks r for the bytes of a data file or an extent, as Disk does for disks.
func (r Resolver) Source(ctx context.Context, ref Ref) (Source, error) {
	disk, src, err := r.ask(ctx, ref)
	if err != nil {
		return nil, err
	}
	if disk != nil || src == nil {
		if src != nil {
			src.Close()
		}
		return nil, fmt.Errorf("%w: %s %q is not a file", ErrReference, ref.Kind, ref.Name)
	}
	return src, nil
}

func (r Resolver) ask(ctx context.Context, ref Ref) (*Disk, Source, error) {
	if r == nil {
		return nil, nil, fmt.Errorf("%w: %s %q: give it, or flatten the image first (qemu-img convert)", ErrReference, ref.Kind, ref.Name)
	}
	disk, src, err := r(ctx, ref)
	if err != nil {
		return nil, nil, fmt.Errorf("%s %q: %w", ref.Kind, ref.Name, err)
	}
	return disk, src, nil
}
