package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"glanced/catalog/records"
)

// checkParents holds the rules between a child and its parent, in the transaction
// that turns old into img.
func checkParents(ctx context.Context, tx *sql.Tx, old, img records.Image) error {
	if img.Parent != nil && (old.Parent == nil || *old.Parent != *img.Parent) {
		var status records.Status
		var hash *string
		err := tx.QueryRowContext(ctx, `SELECT status, hash_value FROM images WHERE id = ?`, img.Parent.ID).Scan(&status, &hash)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			return fmt.Errorf("%w: there is no image %s", records.ErrParent, img.Parent.ID)
		case err != nil:
			return err
		case status != records.Active || hash == nil || *hash != img.Parent.HashValue:
			return fmt.Errorf("%w: image %s is %s, or not what it was", records.ErrParent, img.Parent.ID, status)
		}
	}
	if img.Status != records.Deleted || old.Status == records.Deleted {
		return nil
	}
	var child string
	err := tx.QueryRowContext(ctx, `SELECT id FROM images WHERE parent_id = ? AND status <> 'deleted' LIMIT 1`, img.ID).Scan(&child)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("%w: it is the parent of image %s, and perhaps of others", records.ErrInUse, child)
}
