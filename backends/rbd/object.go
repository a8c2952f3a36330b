//go:build ceph

package rbd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"syscall"

	"github.com/ceph/go-ceph/rados"
	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends"
	"glanced/backends/stored"
)

// source is what there is to read of a location: a snapshot of an image, or, where an
// old location names none, the image itself.
type source struct {
	id     string // the image's
	snap   string // "" = the image itself
	snapID uint64
	size   int64  // bytes
	unit   uint64 // this many bytes, aligned, are in one RADOS object
	parent bool   // what the image has not lies in another one
}

// version is that of the bytes. An image that is read itself has none but its own.
func (o source) version() string {
	if o.snap == "" {
		return o.id
	}
	return o.id + "@" + strconv.FormatUint(o.snapID, 10)
}

// openSource opens what a location names. It makes calls. Which of the image and the
// snapshot is not there, the library does not tell.
//
// A snapshot is opened for reading only, which the image's owner does not notice. An
// image that is read itself is opened as if it were to be written: while it is, nobody
// can remove it.
func openSource(ses *session, pool string, l location) (*librbd.Image, source, error) {
	open := librbd.OpenImageReadOnly
	if l.snap == "" {
		open = librbd.OpenImage
	}
	img, err := open(ses.ioctx, l.image, l.snap)
	if err != nil {
		return nil, source{}, ses.missing(pool, explain("open "+l.image, err))
	}
	o, err := describe(img, l.snap)
	if err != nil {
		img.Close()
		return nil, o, explain("look at "+l.image, err)
	}
	return img, o, nil
}

func describe(img *librbd.Image, snap string) (o source, err error) {
	o.snap = snap
	if o.id, err = img.GetId(); err != nil {
		return o, err
	}
	if snap != "" {
		if o.snapID, err = img.GetSnapID(snap); err != nil {
			return o, err
		}
	}
	info, err := img.Stat()
	if err != nil {
		return o, err
	}
	stripe, err := img.GetStripeUnit()
	if err != nil {
		return o, err
	}
	o.unit = max(min(info.Obj_size, stripe), 1)
	if o.size = int64(info.Size); o.size < 0 {
		return o, fmt.Errorf("it has %d bytes", info.Size)
	}
	_, err = img.GetParent()
	if o.parent = err == nil; err != nil && !is(err, syscall.ENOENT) {
		return o, err
	}
	return o, nil
}

// headerOf is the name of the RADOS object that describes an image, and of the key there
// that describes a snapshot ("RBD Layering" and cls_rbd.cc in Ceph's sources).
func (o source) headerOf() (object, key string) {
	return "rbd_header." + o.id, fmt.Sprintf("snapshot_%016x", o.snapID)
}

// there is nil if the snapshot, or the image, has not been removed, and then none of what
// was read of it before has. It makes a call.
func (o source) there(ses *session) error {
	object, key := o.headerOf()
	op := rados.CreateReadOp()
	defer op.Release()
	op.AssertExists()
	var step *rados.ReadOpOmapGetValsByKeysStep
	if o.snap != "" {
		step = op.GetOmapValuesByKeys([]string{key})
	}
	err := op.Operate(ses.ioctx, object, rados.OperationNoFlag)
	if err != nil {
		return explain("look whether the image is still there", operation(err))
	}
	if step == nil {
		return nil
	}
	kv, err := step.Next()
	if err != nil {
		return explain("look whether the snapshot is still there", err)
	}
	if kv == nil {
		return fmt.Errorf("%w: its snapshot was removed", backends.ErrNotFound)
	}
	return nil
}

// operation is the error number of an operation that has failed.
func operation(err error) error {
	if failed := (rados.OperationError{}); errors.As(err, &failed) && failed.OpError != nil {
		return failed.OpError
	}
	return err
}

// find opens what is at a location, and checks it against what is recorded. The caller
// closes the handle.
func (s *Store) find(ctx context.Context, loc backends.Location) (*handle, source, error) {
	l, err := s.locate(loc)
	if err != nil {
		return nil, source{}, err
	}
	ses, err := s.session(ctx)
	if err != nil {
		return nil, source{}, err
	}
	type opened struct {
		h *handle
		o source
	}
	v, err := do(ctx, s.reads, ses, func() (opened, error) {
		if err := l.in(ses); err != nil {
			return opened{}, err
		}
		img, o, err := openSource(ses, s.cfg.Pool, l)
		if err != nil {
			return opened{}, s.heed(ses, err)
		}
		return opened{newHandle(ses, img), o}, nil
	}, func(v opened) { v.h.close() })
	if err != nil {
		return nil, source{}, err
	}
	if err := loc.Check(v.o.size, v.o.version()); err != nil {
		v.h.close()
		return nil, source{}, err
	}
	return v.h, v.o, nil
}

// Stat implements backends.Store.
func (s *Store) Stat(ctx context.Context, loc backends.Location) (backends.Location, error) {
	h, o, err := s.find(ctx, loc)
	if err != nil {
		return backends.Location{}, s.wrap("look at an object of", err)
	}
	h.close()
	loc.Size, loc.Version = o.size, o.version()
	return loc, nil
}

// Open implements backends.Store. The bytes' identity is made of the store's id, the
// cluster's, the pool's, and the version.
func (s *Store) Open(ctx context.Context, loc backends.Location) (stored.Bytes, error) {
	h, o, err := s.find(ctx, loc)
	if err != nil {
		return nil, s.wrap("open an object of", err)
	}
	place := h.ses.fsid + "/" + strconv.FormatInt(h.ses.poolID, 10)
	return &object{s: s, source: o, place: place, identity: stored.NewIdentity(s.cfg.ID, place, o.version()), h: h}, nil
}

// object is an open object.
type object struct {
	s *Store
	source
	place    string // the cluster and the pool
	identity stored.Identity

	mu     sync.Mutex
	h      *handle
	closed bool
}

// Size implements stored.Bytes.
func (o *object) Size() int64 { return o.size }

// Identity implements stored.Bytes.
func (o *object) Identity() stored.Identity { return o.identity }

// Close implements stored.Bytes. The image is closed in the background.
func (o *object) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.h.close()
	return nil
}

var errClosed = errors.New("it is closed")

// handle is the open image, whose user the caller becomes. One of a session that ended is
// opened anew: by its id, as its name may be another's by now.
func (o *object) handle(ctx context.Context) (*handle, error) {
	o.mu.Lock()
	h, closed := o.h, o.closed
	o.mu.Unlock()
	if closed {
		return nil, errClosed
	}
	ses, err := o.s.session(ctx)
	if err != nil {
		if !o.s.isClosed() {
			return nil, err
		}
		ses = h.ses // what is open stays usable
		ses.use()
	}
	if h.ses == ses {
		defer ses.leave()
		if h.use() {
			return h, nil
		}
		return nil, errClosed
	}
	fresh, err := do(ctx, o.s.reads, ses, func() (*handle, error) {
		img, err := o.reopen(ses)
		if err != nil {
			return nil, o.s.heed(ses, err)
		}
		return newHandle(ses, img), nil
	}, (*handle).close)
	if err != nil {
		return nil, err
	}
	return o.replace(h, fresh)
}

// reopen opens the same bytes by another session. It makes calls.
func (o *object) reopen(ses *session) (*librbd.Image, error) {
	if place := ses.fsid + "/" + strconv.FormatInt(ses.poolID, 10); place != o.place {
		return nil, fmt.Errorf("%w: the pool is another one", backends.ErrChanged)
	}
	open := librbd.OpenImageByIdReadOnly
	if o.snap == "" {
		open = librbd.OpenImageById
	}
	img, err := open(ses.ioctx, o.id, o.snap)
	if err != nil {
		return nil, ses.missing(o.s.cfg.Pool, explain("open the image again", err))
	}
	if now, err := describe(img, o.snap); err != nil || now.version() != o.version() {
		img.Close()
		if err != nil {
			return nil, explain("look at the image", err)
		}
		return nil, fmt.Errorf("%w: version %q was opened, there is %q", backends.ErrChanged, o.version(), now.version())
	}
	return img, nil
}

// replace puts fresh in the place of old, unless another did so, or the object was closed,
// meanwhile. The caller becomes a user of what is there then.
func (o *object) replace(old, fresh *handle) (*handle, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		fresh.close()
		return nil, errClosed
	case o.h == old:
		old.close()
		o.h = fresh
	default:
		fresh.close()
	}
	o.h.use()
	return o.h, nil
}

// Verify implements stored.Verifier.
func (o *object) Verify(ctx context.Context) error {
	h, err := o.handle(ctx)
	if err == nil {
		_, err = do(ctx, o.s.reads, h, func() (struct{}, error) {
			return struct{}{}, o.s.heed(h.ses, o.there(h.ses))
		}, nil)
	}
	if errors.Is(err, backends.ErrNotFound) {
		err = fmt.Errorf("%w: %w", backends.ErrChanged, err)
	}
	return o.s.wrap("look at an object of", err)
}
