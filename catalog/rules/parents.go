package rules

import (
	"context"
	"errors"
	"fmt"

	"glanced/catalog/access"
	"glanced/catalog/records"
)

// checkParents holds the rules between a child and its parent, in the transaction
// that turns old into img: a child stands on what its owner can read when it comes. Both a child that comes and a parent that goes have read
// the parent's row, which keeps it locked, so one of them sees the other.
func checkParents(ctx context.Context, tx records.Tx, old, img records.Image) error {
	if img.Parent != nil && (old.Parent == nil || *old.Parent != *img.Parent) {
		parent, err := tx.Image(ctx, img.Parent.ID)
		switch {
		case errors.Is(err, records.ErrNotFound):
			return fmt.Errorf("%w: there is no image %s", records.ErrParent, img.Parent.ID)
		case err != nil:
			return err
		case parent.Status != records.Active || parent.HashValue == nil || *parent.HashValue != img.Parent.HashValue:
			return fmt.Errorf("%w: image %s is %s, or not what it was", records.ErrParent, img.Parent.ID, parent.Status)
		case access.Check(access.OwnerOf(img), access.Download, parent) != nil:
			return fmt.Errorf("%w: there is no image %s that project %s can read", records.ErrParent, img.Parent.ID, img.Owner)
		}
	}
	if img.Status != records.Deleted || old.Status == records.Deleted {
		return nil
	}
	child, err := tx.Child(ctx, img.ID)
	if err == nil && child != "" {
		err = fmt.Errorf("%w: it is the parent of image %s, and perhaps of others", records.ErrInUse, child)
	}
	return err
}
