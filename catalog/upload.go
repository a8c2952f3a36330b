package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"glanced/backends"
	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// UploadBytes is about what an upload takes at least, bytes: buffers, hashes and what
// looks at the format.
const UploadBytes = 384 << 10

// uploadWait is Config.UploadWait where that is 0.
const uploadWait = 30 * time.Second

// UploadOptions of one Upload.
type UploadOptions struct {
	Size    int64  // announced length of the body in bytes; -1 = unknown
	Store   string // id of the store to keep it in; "" = the default one
	Project string // who uploads: each may take its share of the places, and no more
}

// Activate makes a queued image active without data, as an upload of 0 bytes.
func (c *Catalog) Activate(ctx context.Context, id string) error {
	return c.Upload(ctx, id, bytes.NewReader(nil), UploadOptions{Size: 0})
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
func (c *Catalog) Upload(client context.Context, id string, body io.Reader, o UploadOptions) error {
	entry, err := c.store(o.Store)
	if err != nil {
		return err
	}
	if entry.ReadOnly || entry.Foreign {
		return fmt.Errorf("%w: store %s: upload to another one", ErrStoreReadOnly, entry.ID)
	}
	if o.Size > c.sizeCap {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, o.Size, c.sizeCap)
	}
	// Until all of the body is stored, the upload ends with its client.
	ctx, end := context.WithCancelCause(context.WithoutCancel(client))
	defer end(nil)
	stored := context.AfterFunc(client, func() { end(context.Cause(client)) })
	defer stored()
	if !c.admit() {
		return ErrClosing
	}
	defer c.ending.Done()
	leave, err := c.awaitPlace(ctx, o.Project)
	if err != nil {
		return cutOff(ctx, err)
	}
	defer leave()
	u := &upload{c: c, id: id, store: entry.Store, storeID: entry.ID, announced: o.Size, letGo: stored,
		lost: func(context.Context) { end(ErrLeaseLost) }}
	if err := u.begin(ctx); err != nil {
		return cutOff(ctx, err)
	}
	c.enterUpload(id, end)
	defer c.leaveUpload(id)
	c.leases.add(u.lease, u.lost)
	defer c.leases.remove(u.lease)
	if err := u.run(ctx, body); err != nil {
		if errors.Is(err, ErrStoreFull) { // what the client is told names no disk
			c.log.Warn("a store has no room for an upload", "image", id, "store", entry.ID, "error", err)
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

// awaitPlace waits for a place among the uploads under way, or for the end of the catalog.
func (c *Catalog) awaitPlace(ctx context.Context, project string) (leave func(), err error) {
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := time.AfterFunc(c.uploadWait, func() { cancel(ErrUploads) })
	defer late.Stop()
	waited := make(chan struct{})
	defer close(waited)
	go func() {
		select {
		case <-c.closed:
			cancel(ErrClosing)
		case <-waited:
		}
	}()
	return c.places.Take(wait, project)
}

// admit counts one more upload, unless the catalog is closing.
func (c *Catalog) admit() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closing {
		c.ending.Add(1)
	}
	return !c.closing
}

// endUploads cancels what is under way, admits no more, and waits for closeTime.
func (c *Catalog) endUploads() error {
	c.mu.Lock()
	if !c.closing {
		c.closing = true
		close(c.closed)
	}
	for _, cancel := range c.uploads {
		cancel(ErrClosing)
	}
	c.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		c.ending.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(closeTime):
		return fmt.Errorf("catalog: uploads still run %v after they were told to end; the next start sweeps them", closeTime)
	}
}

func (c *Catalog) enterUpload(id string, cancel context.CancelCauseFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uploads[id] = cancel
	if c.closing { // it began between admit and here
		cancel(ErrClosing)
	}
}

// uploading tells whether an upload of the image is under way here.
func (c *Catalog) uploading(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.uploads[id]
	return ok
}

func (c *Catalog) leaveUpload(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.uploads, id)
}

// cancelUpload ends an upload of a deleted image early, if it is one of ours.
func (c *Catalog) cancelUpload(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel, ok := c.uploads[id]; ok {
		cancel(ErrGone)
	}
}

// upload is one image being taken in.
type upload struct {
	c         *Catalog
	id        string
	img       Image // as it was when the upload began
	store     backends.Store
	storeID   string
	announced int64       // bytes, -1 = unknown
	letGo     func() bool // goes on without the client
	lease     records.Lease
	lost      func(context.Context) // what happens when the lease is
	kept      time.Time             // when it was last seen to be still ours
	unsure    *Location             // the answer to the activation with it was lost
	reserved  int64                 // bytes counted against the quota so far
	writer    backends.Writer
	left      []Claim // of an earlier try that could not be cleaned up
}

// begin moves queued to saving and reserves what is known of the size.
func (u *upload) begin(ctx context.Context) error {
	u.lease = rules.NewLease(records.UploadLease, u.id, u.c.node)
	take := rules.Under{Lease: u.lease, Step: rules.Take, During: u.c.lease}
	var before string // whose upload came before this one, where it left something
	img, err := u.enter(ctx, take, func(img *Image) error {
		before = img.Node
		if img.Status != Queued {
			return &StatusError{ID: u.id, Have: img.Status, Want: Saving}
		}
		switch {
		case img.DiskFormat == nil:
			return invalid("disk_format", "it must be set before data is uploaded")
		case img.ContainerFormat == nil:
			return invalid("container_format", "it must be set before data is uploaded")
		}
		img.Node, img.Reserved = u.c.node, max(u.announced, 0)
		return rules.Move(img, Saving)
	})
	if err != nil {
		return err
	}
	u.reserved = img.Reserved
	u.img = brief(img)
	u.img.Properties = nil
	if id, ok := img.Properties[BackingProperty]; ok {
		u.img.Properties = map[string]string{BackingProperty: id}
	}
	// What an earlier try left stays on record until it is gone: this one may be cut
	// off, and may go to another store.
	u.left = slices.Clone(img.Claims)
	if err := u.c.abandon(ctx, u.left); err != nil {
		return u.fail(ctx, fmt.Errorf("%w: data of an earlier upload cannot be removed: %w", ErrStore, err))
	}
	if before == u.c.node {
		u.left = nil
	} // Another daemon may wake and go on: what it left stays on record.
	return nil
}

// enterPause is how long an upload waits before it looks again whether it can begin.
const enterPause = 100 * time.Millisecond

// enter is an update that takes the lease. Where the image is queued, another daemon is
// only removing what an earlier upload left: that is waited for, as long as a lease lasts.
func (u *upload) enter(ctx context.Context, take rules.Under, change func(*Image) error) (Image, error) {
	for end := time.Now().Add(u.c.lease); ; {
		img, err := u.c.updateUnder(ctx, u.id, take, change)
		if !errors.Is(err, ErrLeased) || time.Now().After(end) {
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
	return rules.Under{Lease: u.lease, Step: rules.Keep, During: u.c.lease}
}

// run stores the body and makes the image active.
func (u *upload) run(ctx context.Context, body io.Reader) error {
	in := newIntake(ctx, u, body)
	defer in.close()
	loc, err := u.put(ctx, in)
	if in.err != nil {
		// The reason, whatever the store made of it.
		return in.err
	}
	if err != nil {
		return err
	}
	sums := in.sums()
	u.letGo() // all it had to say is stored
	u.img.HashValue = &sums.sha512
	img := u.img.Clone()
	img.Size, img.Locations = &in.n, []Location{loc}
	verdict, err := u.c.inspect(ctx, img)
	if err != nil {
		return err
	}
	return u.activate(ctx, loc, in.n, &sums, verdict)
}

// activate makes the image active. sums is nil where they are not known yet.
func (u *upload) activate(ctx context.Context, loc Location, size int64, sums *sums, verdict verdict) error {
	err := u.whenFree(ctx, func() error {
		// Not to be found gone by who renews it; while it is waited for, it is.
		u.c.leases.remove(u.lease)
		_, err := u.c.updateUnder(ctx, u.id, rules.Under{Lease: u.lease, Step: rules.Drop}, func(img *Image) error {
			if img.Status != Saving {
				return &StatusError{ID: u.id, Have: img.Status, Want: Active}
			}
			img.Size = &size
			if sums != nil {
				sums.record(img)
			}
			img.VirtualSize, img.Allocated, img.DiskError = verdict.virtualSize, verdict.allocated, verdict.diskError
			img.Snapshots, img.Parent = verdict.snapshots, verdict.parent
			img.Locations = []Location{loc}
			img.Node, img.Reserved, img.Claims = "", 0, nil
			return rules.Move(img, Active)
		})
		if errors.Is(err, ErrBusy) {
			u.c.leases.add(u.lease, u.lost)
		}
		return err
	})
	if errors.Is(err, ErrUnknown) {
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
		if !errors.Is(err, ErrBusy) || time.Now().After(until) {
			return err
		}
		u.c.log.Warn("the database is busy; an upload waits for it", "image", u.id, "error", err)
		select {
		case <-time.After(busyPause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// put brings the body into the store. The claim is on record before the first byte
// is: whatever ends this process, the next one finds what it left.
func (u *upload) put(ctx context.Context, in *intake) (Location, error) {
	err := u.pastOthers(ctx, func() (err error) {
		u.writer, err = u.store.Begin(ctx, u.id, u.announced)
		return err
	})
	if err != nil {
		return Location{}, storeError(ctx, err)
	}
	claims := append(slices.Clone(u.left), Claim{Store: u.storeID, Claim: string(u.writer.Claim())})
	if err := u.claim(ctx, claims); err != nil {
		return Location{}, err
	}
	if _, err := backends.Copy(u.writer, in, u.announced); err != nil {
		return Location{}, storeError(ctx, err)
	}
	// Who has lost the lease does not publish; who publishes has had it just now.
	if time.Since(u.kept) > u.c.lease/3 {
		if err := u.claim(ctx, claims); err != nil {
			return Location{}, err
		}
	}
	var loc backends.Location
	err = u.pastOthers(ctx, func() (err error) {
		loc, err = u.commit(ctx)
		return err
	})
	if err != nil {
		return Location{}, storeError(ctx, err)
	}
	return Location{Store: u.storeID, URL: loc.URL, Size: loc.Size, Version: loc.Version}, nil
}

// claim puts what the upload may leave on record, if it still has its lease.
func (u *upload) claim(ctx context.Context, claims []Claim) error {
	asked := time.Now()
	err := u.whenFree(ctx, func() error {
		_, err := u.c.records.UpdateUnder(ctx, u.id, u.keep(), func(img *Image) error {
			if img.Status != Saving {
				return &StatusError{ID: u.id, Have: img.Status, Want: Active}
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
	if err := u.c.abandon(ctx, u.left); err != nil {
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
		u.c.log.Warn("cannot commit an upload; trying again", "image", u.id, "error", err)
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
	ctx, cancel := cleanupContext(ctx)
	defer cancel()
	if u.unsure != nil {
		switch active, err := u.settled(ctx); {
		case err != nil:
			// The bytes may be an image's: whoever can read the record decides.
			u.c.log.Error("it is not known whether an upload has become an image; a sweep finds out", "image", u.id, "error", err)
			return fmt.Errorf("upload image %s: %w", u.id, cause)
		case active:
			return nil
		}
	}
	u.c.unspool(u.img)
	left := u.left // what cannot be removed now is remembered for later
	if u.writer != nil {
		if err := u.writer.Abort(ctx); err != nil {
			u.c.log.Warn("a failed upload's data is still in its store; it will be removed before the next upload or by a sweep", "image", u.id, "error", err)
			left = append(slices.Clone(left), Claim{Store: u.storeID, Claim: string(u.writer.Claim())})
		} else if len(left) > 0 && u.c.abandon(ctx, left) == nil {
			left = nil
		}
	}
	a := aborted{u.lease, left}
	gone, err := u.c.abort(ctx, u.id, a)
	switch {
	case err != nil && errors.Is(err, ErrNotFound), gone:
		return fmt.Errorf("image %s: %w", u.id, ErrGone)
	case errors.Is(err, ErrLeaseLost):
		u.c.log.Warn("another daemon has taken over an upload of this one, which was silent for too long; nothing of it was kept", "image", u.id)
		return fmt.Errorf("upload image %s: %w", u.id, err)
	case err != nil:
		u.c.log.Error("cannot write that an upload has failed; trying on", "image", u.id, "error", err)
		u.c.abortLater(u.id, a)
	}
	return fmt.Errorf("upload image %s: %w", u.id, cause)
}

// settled tells what became of an activation whose answer was lost. It waits for the
// database to have done with it, as it reads the record in a change.
func (u *upload) settled(ctx context.Context) (active bool, err error) {
	_, err = u.c.records.Update(ctx, u.id, func(img *Image) error {
		active = (img.Status == Active || img.Status == Deactivated) && slices.ContainsFunc(img.Locations, func(l Location) bool {
			return l.Store == u.unsure.Store && l.URL == u.unsure.URL && l.Version == u.unsure.Version
		})
		return nil
	})
	if errors.Is(err, ErrNotFound) {
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
		{backends.ErrFull, ErrStoreFull},
		{backends.ErrReadOnly, ErrStoreDenied},
		{backends.ErrDenied, ErrStoreDenied},
		{backends.ErrShort, ErrBodySize},
		{backends.ErrLong, ErrBodySize},
	} {
		if errors.Is(err, k.from) {
			return fmt.Errorf("%w: %w", k.to, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrStore, err)
}
