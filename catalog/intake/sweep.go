package intake

import (
	"context"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// Sweep removes what an upload of img has left, and queues the image again, unless its
// daemon may still be at it. A store that does not answer is no error: what it may hold
// stays in the record, for the next upload or the next sweep.
func (in *Intake) Sweep(ctx context.Context, img records.Image) error {
	if in.uploading(img.ID) {
		return nil // here: it finds out by itself whether it still has its lease
	}
	_, err := in.leases.While(ctx, records.UploadLease, img.ID, func(l records.Lease) error {
		img, err := in.records.Get(ctx, img.ID) // as it is, now that nobody else changes it
		if err != nil || img.Status != records.Saving && len(img.Claims) == 0 {
			return err
		}
		left := img.Claims
		if err := in.stores.Abandon(ctx, left); err != nil {
			in.log.Warn("data of an upload that was cut off is still in its store", "image", img.ID, "error", err)
		} else if img.Status != records.Saving || img.Node == in.leases.Node() {
			left = nil
		} // Another daemon may wake and go on writing: the next sweep, or upload, looks again.
		to, err := in.swept(ctx, l, left)
		if err == nil && (img.Status == records.Saving || len(left) == 0) {
			in.log.Info("cleaned up after an upload that was cut off", "image", img.ID, "node", img.Node, "status", to)
		}
		return err
	})
	return err
}

// swept writes that an upload was cleaned up after, but for what is left, and gives the
// lease back.
func (in *Intake) swept(ctx context.Context, l records.Lease, left []records.Claim) (records.Status, error) {
	img, err := in.records.UpdateUnder(ctx, l.ID, rules.Under{Lease: l, Step: rules.Drop}, func(img *records.Image) error {
		img.Reserved, img.Claims = 0, left
		if len(left) == 0 {
			img.Node = ""
		}
		if img.Status != records.Saving {
			return nil
		}
		return rules.Move(img, records.Queued)
	})
	return img.Status, err
}
