package intake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"glanced/backends"
	"glanced/catalog/records"
	"glanced/catalog/rules"
	"glanced/catalog/stores"
)

// UploadBytes is about what an upload takes at least, bytes: buffers, hashes and what
// looks at the format.
const UploadBytes = 384 << 10

// UploadOptions of one Upload.
type UploadOptions struct {
	Size    int64  // announced length of the body in bytes; -1 = unknown
	Store   string // id of the store to keep it in; "" = the default one
	Project string // who uploads: each may take its share of the places, and no more
}

// Upload takes a queued image's data in: one pass over body measures, hashes,
// inspects and stores it. When it returns nil the image is active and its bytes
// are durable. When it fails nothing is stored, and the image is queued again
// (or killed, see Config) unless it was deleted meanwhile: ErrGone.
// client is listened to until all of body is stored.
//
// Other errors: ErrNotFound, ErrStatus (not queued), ErrInvalid (a format is not
// set), ErrUnknownStore, ErrStoreReadOnly, ErrStoreDenied, ErrStoreFull, ErrStore,
// ErrTooLarge, ErrQuota, ErrBodySize, ErrBody (body failed, or client ended), ErrFormat, ErrUnsafe,
// ErrParent (what the image stands on was changed meanwhile), ErrClosing, ErrUploads (no
// place became free in time; nothing was read of body).
func (in *Intake) Upload(client context.Context, id string, body io.Reader, o UploadOptions) error {
	entry, err := in.stores.Choose(o.Store)
	if err != nil {
		return err
	}
	if entry.ReadOnly || entry.Foreign {
		return fmt.Errorf("%w: store %s: upload to another one", stores.ErrStoreReadOnly, entry.ID)
	}
	if o.Size > in.sizeCap {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, o.Size, in.sizeCap)
	}
	// Until all of the body is stored, the upload ends with its client.
	ctx, end := context.WithCancelCause(context.WithoutCancel(client))
	defer end(nil)
	stored := context.AfterFunc(client, func() { end(context.Cause(client)) })
	defer stored()
	if !in.admit() {
		return ErrClosing
	}
	defer in.ending.Done()
	leave, err := in.awaitPlace(ctx, o.Project)
	if err != nil {
		return cutOff(ctx, err)
	}
	defer leave()
	u := &upload{in: in, id: id, store: entry.Store, storeID: entry.ID, announced: o.Size, letGo: stored,
		lost: func(context.Context) { end(records.ErrLeaseLost) }}
	if err := u.begin(ctx); err != nil {
		return cutOff(ctx, err)
	}
	in.enterUpload(id, end)
	defer in.leaveUpload(id)
	in.leases.Add(u.lease, u.lost)
	defer in.leases.Remove(u.lease)
	if err := u.run(ctx, body); err != nil {
		if errors.Is(err, stores.ErrStoreFull) { // what the client is told names no disk
			in.log.Warn("a store has no room for an upload", "image", id, "store", entry.ID, "error", err)
		}
		return u.fail(ctx, cutOff(ctx, err))
	}
	return nil
}

// cutOff says why an upload that has failed with err was ended, if it was ended,
// whoever noticed first.
func cutOff(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx))) {
		return fmt.Errorf("%w: %w", ErrBody, context.Cause(ctx))
	}
	return err
}

// upload is one image being taken in.
type upload struct {
	in        *Intake
	id        string
	img       records.Image // as it was when the upload began
	store     backends.Store
	storeID   string
	announced int64       // bytes, -1 = unknown
	letGo     func() bool // goes on without the client
	lease     records.Lease
	lost      func(context.Context) // what happens when the lease is
	kept      time.Time             // when it was last seen to be still ours
	unsure    *records.Location     // the answer to the activation with it was lost
	reserved  int64                 // bytes counted against the quota so far
	writer    backends.Writer
	left      []records.Claim // of an earlier try that could not be cleaned up
}

// unset is for a format without which nothing is taken in.
func unset(field string) error {
	return fmt.Errorf("%w: %s: it must be set before data is uploaded", rules.ErrInvalid, field)
}

// begin moves queued to saving and reserves what is known of the size.
func (u *upload) begin(ctx context.Context) error {
	u.lease = u.in.leases.New(records.UploadLease, u.id)
	take := rules.Under{Lease: u.lease, Step: rules.Take, During: u.in.leases.During()}
	var before string // whose upload came before this one, where it left something
	img, err := u.enter(ctx, take, func(img *records.Image) error {
		before = img.Node
		if img.Status != records.Queued {
			return &records.StatusError{ID: u.id, Have: img.Status, Want: records.Saving}
		}
		switch {
		case img.DiskFormat == nil:
			return unset("disk_format")
		case img.ContainerFormat == nil:
			return unset("container_format")
		}
		img.Node, img.Reserved = u.in.leases.Node(), max(u.announced, 0)
		return rules.Move(img, records.Saving)
	})
	if err != nil {
		return err
	}
	u.reserved = img.Reserved
	// As many are held as there are clients: what can be long is left out.
	u.img = img
	u.img.Properties, u.img.Tags = nil, nil
	if id, ok := img.Properties[BackingProperty]; ok {
		u.img.Properties = map[string]string{BackingProperty: id}
	}
	// What an earlier try left stays on record until it is gone: this one may be cut
	// off, and may go to another store.
	u.left = slices.Clone(img.Claims)
	if err := u.in.stores.Abandon(ctx, u.left); err != nil {
		return u.fail(ctx, fmt.Errorf("%w: data of an earlier upload cannot be removed: %w", stores.ErrStore, err))
	}
	if before == u.in.leases.Node() {
		u.left = nil
	} // Another daemon may wake and go on: what it left stays on record.
	return nil
}

// enterPause is how long an upload waits before it looks again whether it can begin.
const enterPause = 100 * time.Millisecond

// enter is an update that takes the lease. Where the image is queued, another daemon is
// only removing what an earlier upload left: that is waited for, as long as a lease lasts.
func (u *upload) enter(ctx context.Context, take rules.Under, change func(*records.Image) error) (records.Image, error) {
	for end := time.Now().Add(u.in.leases.During()); ; {
		img, err := u.in.records.UpdateUnder(ctx, u.id, take, rules.IfExisting(u.id, change))
		if !errors.Is(err, records.ErrLeased) || time.Now().After(end) {
			return img, err
		}
		select {
		case <-time.After(enterPause):
		case <-ctx.Done():
			return img, context.Cause(ctx)
		}
	}
}

// keep is the upload's lease, which it must still have.
func (u *upload) keep() rules.Under {
	return rules.Under{Lease: u.lease, Step: rules.Keep, During: u.in.leases.During()}
}

// run stores the body and makes the image active.
func (u *upload) run(ctx context.Context, body io.Reader) error {
	s := newStream(ctx, u, body)
	defer s.close()
	loc, err := u.put(ctx, s)
	if s.err != nil {
		// The reason, whatever the store made of it.
		return s.err
	}
	if err != nil {
		return err
	}
	sums := s.sums()
	u.letGo() // all it had to say is stored
	u.img.HashValue = &sums.sha512
	img := u.img.Clone()
	img.Size, img.Locations = &s.n, []records.Location{loc}
	verdict, err := u.in.inspect(ctx, img)
	if err != nil {
		return err
	}
	return u.activate(ctx, loc, s.n, &sums, verdict)
}

// activate makes the image active. sums is nil where they are not known yet.
func (u *upload) activate(ctx context.Context, loc records.Location, size int64, sums *sums, verdict verdict) error {
	err := u.whenFree(ctx, func() error {
		// Not to be found gone by who renews it; while it is waited for, it is.
		u.in.leases.Remove(u.lease)
		_, err := u.in.records.UpdateUnder(ctx, u.id, rules.Under{Lease: u.lease, Step: rules.Drop}, rules.IfExisting(u.id, func(img *records.Image) error {
			if img.Status != records.Saving {
				return &records.StatusError{ID: u.id, Have: img.Status, Want: records.Active}
			}
			img.Size = &size
			if sums != nil {
				sums.record(img)
			}
			img.VirtualSize, img.Allocated, img.DiskError = verdict.virtualSize, verdict.allocated, verdict.diskError
			img.Snapshots, img.Parent = verdict.snapshots, verdict.parent
			img.Locations = []records.Location{loc}
			img.Node, img.Reserved, img.Claims = "", 0, nil
			return rules.Move(img, records.Active)
		}))
		if errors.Is(err, records.ErrBusy) {
			u.in.leases.Add(u.lease, u.lost)
		}
		return err
	})
	if errors.Is(err, records.ErrUnknown) {
		u.unsure = &loc
	}
	return err
}

const (
	busyTime  = 5 * time.Minute // how long a busy database is waited for
	busyPause = time.Second     // between two tries
)

// whenFree has write write to the database, and tries again while that is busy: an upload
// under way has bytes that its client would have to send again. It ends with ctx, so when
// the image is deleted or the catalog is closed. A try that failed had no effect.
func (u *upload) whenFree(ctx context.Context, write func() error) error {
	for until := time.Now().Add(busyTime); ; {
		err := write()
		if !errors.Is(err, records.ErrBusy) || time.Now().After(until) {
			return err
		}
		u.in.log.Warn("the database is busy; an upload waits for it", "image", u.id, "error", err)
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// put brings the body into the store. The claim is on record before the first byte
// is: whatever ends this process, the next one finds what it left.
func (u *upload) put(ctx context.Context, body *stream) (records.Location, error) {
	err := u.pastOthers(ctx, func() (err error) {
		u.writer, err = u.store.Begin(ctx, u.id, u.announced)
		return err
	})
	if err != nil {
		return records.Location{}, storeError(ctx, err)
	}
	claims := append(slices.Clone(u.left), records.Claim{Store: u.storeID, Claim: string(u.writer.Claim())})
	if err := u.claim(ctx, claims); err != nil {
		return records.Location{}, err
	}
	if _, err := backends.Copy(u.writer, body, u.announced); err != nil {
		return records.Location{}, storeError(ctx, err)
	}
	// Who has lost the lease does not publish; who publishes has had it just now.
	if time.Since(u.kept) > u.in.leases.During()/3 {
		if err := u.claim(ctx, claims); err != nil {
			return records.Location{}, err
		}
	}
	var loc backends.Location
	err = u.pastOthers(ctx, func() (err error) {
		loc, err = u.commit(ctx)
		return err
	})
	if err != nil {
		return records.Location{}, storeError(ctx, err)
	}
	return records.Location{Store: u.storeID, URL: loc.URL, Size: loc.Size, Version: loc.Version}, nil
}

// claim puts what the upload may leave on record, if it still has its lease.
func (u *upload) claim(ctx context.Context, claims []records.Claim) error {
	asked := time.Now()
	err := u.whenFree(ctx, func() error {
		_, err := u.in.records.UpdateUnder(ctx, u.id, u.keep(), func(img *records.Image) error {
			if img.Status != records.Saving {
				return &records.StatusError{ID: u.id, Have: img.Status, Want: records.Active}
			}
			img.Claims = claims
			return nil
		})
		return err
	})
	if err == nil {
		u.kept = asked
	}
	return err
}

// pastOthers does what an object under the key may be in the way of. A daemon that was
// silent, and whose upload this one comes after, may have woken and made it one.
func (u *upload) pastOthers(ctx context.Context, do func() error) error {
	err := do()
	if len(u.left) == 0 || !errors.Is(err, backends.ErrExists) {
		return err
	}
	if err := u.in.stores.Abandon(ctx, u.left); err != nil {
		return err
	}
	return do()
}

const (
	commitTries = 3
	commitPause = time.Second // between two of them
)

// commit makes the bytes an object. A store that cannot be reached just now may have
// made it one already: it is asked again before all of the upload is thrown away.
func (u *upload) commit(ctx context.Context) (backends.Location, error) {
	for try := 1; ; try++ {
		loc, err := u.writer.Commit(ctx)
		if err == nil || try == commitTries || !errors.Is(err, backends.ErrUnavailable) {
			return loc, err
		}
		u.in.log.Warn("cannot commit an upload; trying again", "image", u.id, "error", err)
		select {
		case <-time.After(commitPause):
		case <-ctx.Done():
			return loc, err
		}
	}
}

// fail leaves nothing behind, and returns cause, or ErrGone if the image was
// deleted meanwhile. It does its work even if ctx has ended. It is nil where the
// image is active after all.
func (u *upload) fail(ctx context.Context, cause error) error {
	ctx, cancel := stores.CleanupContext(ctx)
	defer cancel()
	if u.unsure != nil {
		switch active, err := u.settled(ctx); {
		case err != nil:
			// The bytes may be an image's: whoever can read the record decides.
			u.in.log.Error("it is not known whether an upload has become an image; a sweep finds out", "image", u.id, "error", err)
			return fmt.Errorf("upload image %s: %w", u.id, cause)
		case active:
			return nil
		}
	}
	u.in.disks.Unspool(u.img)
	left := u.left // what cannot be removed now is remembered for later
	if u.writer != nil {
		if err := u.writer.Abort(ctx); err != nil {
			u.in.log.Warn("a failed upload's data is still in its store; it will be removed before the next upload or by a sweep", "image", u.id, "error", err)
			left = append(slices.Clone(left), records.Claim{Store: u.storeID, Claim: string(u.writer.Claim())})
		} else if len(left) > 0 && u.in.stores.Abandon(ctx, left) == nil {
			left = nil
		}
	}
	a := aborted{u.lease, left}
	gone, err := u.in.abort(ctx, u.id, a)
	switch {
	case err != nil && errors.Is(err, records.ErrNotFound), gone:
		return fmt.Errorf("image %s: %w", u.id, ErrGone)
	case errors.Is(err, records.ErrLeaseLost):
		u.in.log.Warn("another daemon has taken over an upload of this one, which was silent for too long; nothing of it was kept", "image", u.id)
		return fmt.Errorf("upload image %s: %w", u.id, err)
	case err != nil:
		u.in.log.Error("cannot write that an upload has failed; trying on", "image", u.id, "error", err)
		u.in.abortLater(u.id, a)
	}
	return fmt.Errorf("upload image %s: %w", u.id, cause)
}

// settled tells what became of an activation whose answer was lost. It waits for the
// database to have done with it, as it reads the record in a change.
func (u *upload) settled(ctx context.Context) (active bool, err error) {
	_, err = u.in.records.Update(ctx, u.id, func(img *records.Image) error {
		active = (img.Status == records.Active || img.Status == records.Deactivated) && slices.ContainsFunc(img.Locations, func(l records.Location) bool {
			return l.Store == u.unsure.Store && l.URL == u.unsure.URL && l.Version == u.unsure.Version
		})
		return nil
	})
	if errors.Is(err, records.ErrNotFound) {
		err = nil
	}
	return active, err
}

// storeError says in the catalog's words why a store took no upload.
func storeError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrBody, context.Cause(ctx))
	}
	for _, k := range []struct{ from, to error }{
		{backends.ErrFull, stores.ErrStoreFull},
		{backends.ErrReadOnly, stores.ErrStoreDenied},
		{backends.ErrDenied, stores.ErrStoreDenied},
		{backends.ErrShort, ErrBodySize},
		{backends.ErrLong, ErrBodySize},
	} {
		if errors.Is(err, k.from) {
			return fmt.Errorf("%w: %w", k.to, err)
		}
	}
	return fmt.Errorf("%w: %w", stores.ErrStore, err)
}
