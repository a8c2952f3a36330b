package intake

import (
	"context"
	"errors"
	"maps"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// aborted is an upload that has ended without an image.
type aborted struct {
	lease records.Lease   // that it had
	left  []records.Claim // what it has left in a store
}

// abort writes that an upload has ended without an image, and gives its lease back;
// gone tells whether the image was deleted meanwhile. ErrLeaseLost: another daemon has
// taken over, and nothing is written.
func (in *Intake) abort(ctx context.Context, id string, a aborted) (gone bool, err error) {
	_, err = in.records.UpdateUnder(ctx, id, rules.Under{Lease: a.lease, Step: rules.Drop}, func(img *records.Image) error {
		gone = img.Status == records.Deleted
		img.Reserved, img.Claims = 0, a.left
		if len(a.left) == 0 {
			img.Node = ""
		}
		if img.Status != records.Saving {
			return nil
		}
		return rules.Move(img, in.failedUpload)
	})
	return gone, err
}

// abortLater keeps what abort could not write, for a database that is full, busy or away
// now. The image stays saving meanwhile; if this process ends before it is written, a
// sweep finds it.
func (in *Intake) abortLater(id string, a aborted) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.aborted[id] = a
}

// AbortAgain tries again to write that uploads have failed which could not be written when
// they did. It is to be called now and then.
func (in *Intake) AbortAgain(ctx context.Context) {
	in.mu.Lock()
	kept := maps.Clone(in.aborted)
	in.mu.Unlock()
	for id, a := range kept {
		if _, err := in.abort(ctx, id, a); err != nil && !errors.Is(err, records.ErrNotFound) && !errors.Is(err, records.ErrLeaseLost) {
			return // logged when it failed first
		}
		in.log.Info("wrote that an upload has failed", "image", id)
		in.mu.Lock()
		delete(in.aborted, id)
		in.mu.Unlock()
	}
}
