//go:build ceph

package rbd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"syscall"
	"time"

	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends"
	"glanced/backends/localfile"
	"glanced/backends/retry"
	"glanced/backends/upload"
)

// snapName is the snapshot that Glance makes of an image, and reads.
const snapName = "snap"

const (
	maxImage  = 1 << 50  // bytes; the cluster's own limit is the number of objects
	firstSize = 64 << 20 // of an image whose size is not known; it is doubled as needed
	inFlight  = 8        // writes of one upload at once
	sparse    = 64 << 10 // aligned runs of zeros of this length are not written

	never = 365 * 24 * time.Hour // a pause that nobody waits
)

// uploading has the uploads of this process, by token: who abandons one closes its image,
// which else could not be removed.
var uploading struct {
	sync.Mutex
	writers map[string]*writer
}

// writer is an upload under way. Its writes are made in the background.
type writer struct {
	upload.Frame
	s      *Store
	cancel context.CancelCauseFunc // of Frame.Ctx, by whoever abandons the upload
	claim  claim

	places chan struct{} // one for each write under way
	all    sync.WaitGroup

	mu   sync.Mutex
	err  error   // of a write, or it was abandoned: there is only Abort
	h    *handle // nil until the first Write
	room int64   // the image's size, bytes
}

// Begin implements backends.Store. Nothing is made in the cluster yet.
func (s *Store) Begin(ctx context.Context, key string, size int64) (backends.Writer, error) {
	w, err := s.begin(ctx, key, size)
	if err != nil {
		return nil, s.wrap(fmt.Sprintf("begin to write %.100q into", key), err)
	}
	return w, nil
}

func (s *Store) begin(ctx context.Context, key string, size int64) (*writer, error) {
	if err := checkKey(key); err != nil {
		return nil, fmt.Errorf("%w: %w", backends.ErrBadLocation, err)
	}
	if err := s.writable(); err != nil {
		return nil, err
	}
	if size > maxImage {
		return nil, errTooLarge
	}
	ses, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	_, err = do(ctx, s.reads, ses, func() (struct{}, error) {
		return struct{}{}, s.heed(ses, free(ses, s.cfg.Pool, key))
	}, nil)
	if err != nil {
		return nil, err
	}
	w := &writer{s: s, places: make(chan struct{}, inFlight), claim: claim{s.cfg.Pool, key, rand.Text()}}
	ctx, w.cancel = context.WithCancelCause(ctx)
	w.Frame = upload.New(ctx, size, w.explain)
	uploading.Lock()
	defer uploading.Unlock()
	if uploading.writers == nil {
		uploading.writers = map[string]*writer{}
	}
	uploading.writers[w.claim.token] = w
	return w, nil
}

var errTooLarge = fmt.Errorf("%w: an image has at most 1 PiB", backends.ErrFull)

// free is ErrExists where there is an image called name.
func free(ses *session, pool, name string) error {
	img, err := librbd.OpenImageReadOnly(ses.ioctx, name, librbd.NoSnapshot)
	if err == nil {
		img.Close()
		return backends.ErrExists
	}
	if err = ses.missing(pool, explain("look for "+name, err)); is(err, syscall.ENOENT) {
		return nil
	}
	return err
}

// Claim implements backends.Writer.
func (w *writer) Claim() backends.Claim { return w.claim.text() }

// Write implements io.Writer. It waits where inFlight writes are under way.
func (w *writer) Write(p []byte) (int, error) { return w.Frame.Write(p, w.write) }

func (w *writer) write(p []byte) error {
	if err := w.failed(); err != nil {
		return err
	}
	if int64(len(p)) > maxImage-w.N {
		return errTooLarge
	}
	for len(p) > 0 {
		n := min(int64(len(p)), pieceLen-w.N%pieceLen)
		h, err := w.reach(w.Ctx, w.N+n)
		if err != nil {
			return err
		}
		if err := w.send(h, p[:n], w.N); err != nil {
			return err
		}
		p, w.N = p[n:], w.N+n
	}
	return nil
}

// fail keeps the first error of the upload's writes.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// send writes p in the background, once there is a place for it. The call may outlive the
// caller, so it has a copy.
func (w *writer) send(h *handle, p []byte, off int64) error {
	select {
	case w.places <- struct{}{}:
	case <-w.Ctx.Done():
		return context.Cause(w.Ctx)
	}
	buf := pieces.Get().(*[pieceLen]byte)
	n := copy(buf[:], p)
	h.again()
	w.all.Go(func() {
		_, err := do(w.Ctx, w.s.writes, h, func() (struct{}, error) {
			defer pieces.Put(buf)
			defer func() { <-w.places }()
			err := localfile.WriteSparse(h.img, buf[:n], off, sparse)
			return struct{}{}, w.s.heed(h.ses, explain(fmt.Sprintf("write %d bytes at %d", n, off), err))
		}, nil)
		if err != nil {
			w.fail(err)
		}
	})
	return nil
}

// reach is the upload's image, of at least so many bytes: made, or made larger. It stays
// usable until the upload ends. Only one of Write and Commit is under way.
func (w *writer) reach(ctx context.Context, end int64) (*handle, error) {
	w.mu.Lock()
	h, room := w.h, w.room
	w.mu.Unlock()
	if h != nil && end <= room {
		return h, nil
	}
	want := w.Size
	if want < 0 {
		want = max(end, min(max(2*room, firstSize), maxImage))
	}
	if h == nil {
		return w.create(ctx, want)
	}
	if !h.use() {
		return nil, upload.ErrAborted
	}
	_, err := do(ctx, w.s.writes, h, func() (struct{}, error) {
		err := h.img.Resize(uint64(want))
		return struct{}{}, w.s.heed(h.ses, explain("make the image larger", err))
	}, nil)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.room = want
	w.mu.Unlock()
	return h, nil
}

// create makes the image. One that an earlier call made, whose answer came too late, is
// taken.
func (w *writer) create(ctx context.Context, size int64) (*handle, error) {
	s := w.s
	h, err := change(ctx, s, w.claim.temporary(), func(ses *session) (*handle, error) {
		if err := w.failed(); err != nil {
			return nil, err // abandoned meanwhile
		}
		options := librbd.NewRbdImageOptions()
		defer options.Destroy()
		if err := options.SetUint64(librbd.ImageOptionOrder, uint64(bits.TrailingZeros64(uint64(s.cfg.ChunkSize)))); err != nil {
			return nil, explain("set chunk_size", err)
		}
		name := w.claim.temporary()
		if err := librbd.CreateImage(ses.ioctx, name, uint64(size), options); err != nil && !is(err, syscall.EEXIST) {
			return nil, ses.missing(s.cfg.Pool, explain("make the image", err))
		}
		img, err := librbd.OpenImage(ses.ioctx, name, librbd.NoSnapshot)
		if err != nil {
			return nil, explain("open the image", err)
		}
		h := newHandle(ses, img)
		if err := img.SetMetadata(markKey, mark(w.claim.token, ses.conn.GetInstanceID())); err != nil {
			h.close()
			return nil, explain("mark the image", err)
		}
		if err := w.take(h, size); err != nil {
			h.close()
			return nil, err
		}
		return h, nil
	})
	if errors.Is(err, backends.ErrNotFound) { // of something that was made a moment ago
		err = fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
	}
	return h, err
}

// take has the upload's image, unless it has ended or has one.
func (w *writer) take(h *handle, size int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if w.h != nil {
		w.h.close()
	}
	w.h, w.room = h, size
	return nil
}

// Commit implements backends.Writer.
func (w *writer) Commit(ctx context.Context) (backends.Location, error) {
	return w.Frame.Commit(ctx, w.commit)
}

func (w *writer) commit(ctx context.Context) (none backends.Location, err error) {
	if err := w.written(ctx); err != nil {
		return none, err
	}
	h, err := w.reach(ctx, w.N)
	if err != nil {
		return none, err
	}
	loc, err := change(ctx, w.s, w.claim.key, func(ses *session) (backends.Location, error) {
		if ses != h.ses {
			// Sending it again is of no use, but from the beginning.
			return none, retry.After(fmt.Errorf("%w: the connection by which it was written has ended", backends.ErrUnavailable), never)
		}
		if !h.use() {
			return none, upload.ErrAborted
		}
		defer h.leave()
		return w.publish(h)
	})
	if err != nil {
		return none, err
	}
	w.forget()
	// Until the image is closed, a deletion would find it in use. It is committed anyway.
	h.close()
	select {
	case <-h.done:
	case <-ctx.Done():
	}
	return loc, nil
}

// written waits until everything is written.
func (w *writer) written(ctx context.Context) error {
	over := make(chan struct{})
	go func() {
		w.all.Wait()
		close(over)
	}()
	select {
	case <-over:
		return w.failed()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// publish gives the image its size, its snapshot and its name, as far as an earlier call
// has not. It makes calls.
func (w *writer) publish(h *handle) (backends.Location, error) {
	img, none := h.img, backends.Location{}
	size, err := img.GetSize()
	if err == nil && int64(size) != w.N {
		err = img.Resize(uint64(w.N))
	}
	if err == nil {
		err = img.Flush()
	}
	if err != nil {
		return none, explain("give the image its size", err)
	}
	if err := protect(img); err != nil {
		return none, explain("make the image's snapshot", err)
	}
	id, err := img.GetId()
	if err != nil {
		return none, explain("look at the image", err)
	}
	snap, err := img.GetSnapID(snapName)
	if err != nil {
		return none, explain("look at the image's snapshot", err)
	}
	if err := rename(h.ses, w.claim.temporary(), w.claim.key, id); err != nil {
		return none, err
	}
	l := location{h.ses.fsid, w.s.cfg.Pool, w.claim.key, snapName}
	return backends.Location{Store: w.s.cfg.ID, URL: l.text(), Size: w.N, Version: source{id: id, snap: snapName, snapID: snap}.version()}, nil
}

// protect makes the snapshot, protected, unless there is one.
func protect(img *librbd.Image) error {
	if _, err := img.CreateSnapshot(snapName); err != nil && !is(err, syscall.EEXIST) {
		return err
	}
	snap := img.GetSnapshot(snapName)
	done, err := snap.IsProtected()
	if err == nil && !done {
		err = snap.Protect()
	}
	return err
}

// end has nothing more written, and waits until nothing is. Safe to be called by others
// than the upload's goroutine.
func (w *writer) end(ctx context.Context) error {
	w.fail(upload.ErrAborted)
	w.cancel(upload.ErrAborted)
	w.forget()
	w.mu.Lock()
	h := w.h
	w.mu.Unlock()
	if h == nil {
		return nil
	}
	h.close()
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *writer) forget() {
	uploading.Lock()
	defer uploading.Unlock()
	delete(uploading.writers, w.claim.token)
}

// Abort implements backends.Writer.
func (w *writer) Abort(ctx context.Context) error {
	w.Frame.Abort()
	if err := w.end(ctx); err != nil {
		return w.explain(err)
	}
	return w.s.Abandon(ctx, w.Claim())
}

func (w *writer) explain(err error) error {
	return w.s.wrap(fmt.Sprintf("write %.100q into", w.claim.key), err)
}
