package engine

import (
	"context"
	"fmt"

	"glanced/formats"
)

// Parent supplies the disk that a reference inside an image stands for: its
// backing file or parent. The disk stays its giver's, and is closed after those
// that stand on it.
type Parent func(ctx context.Context, ref formats.Ref) (*Disk, error)

// findParent asks for the disk below, where the image names one. It fails with
// ErrReference where there is none, or another one than the image was made on.
func (d *Disk) findParent(ctx context.Context, ask Parent) error {
	for _, ref := range d.layout.Info().Refs {
		if !ref.IsDisk() {
			continue
		}
		if d.parent != nil {
			return fmt.Errorf("%w: the image names two disks below it", formats.ErrCorrupt)
		}
		if ask == nil {
			return formats.Unresolved(ref)
		}
		parent, err := ask(ctx, ref)
		if err != nil {
			return fmt.Errorf("%s %q: %w", ref.Kind, ref.Name, err)
		}
		if parent == nil {
			return fmt.Errorf("%w: %s %q is not a disk", formats.ErrReference, ref.Kind, ref.Name)
		}
		if have := parent.Info().Identity; ref.Identity != "" && have != ref.Identity && (ref.Alternative == "" || have != ref.Alternative) {
			return fmt.Errorf("%w: the image was made on a %s with the identity %s; the one given has %q", formats.ErrReference, ref.Kind, ref.Identity, have)
		}
		d.parent = parent
		d.prefetches = d.prefetches || parent.prefetches
	}
	return nil
}
