package fs

import (
	"context"
	"errors"
	"sync"
	"syscall"

	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/catalog/access"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// dataFile is images/<id>/disk, images/<id>/file or images/<id>/snapshots/<name>:
// what view opens.
type dataFile struct {
	gofuse.Inode
	readOnly
	described
	view catalog.View

	mu      sync.Mutex
	opens   int  // open files
	through bool // they are passed through to a local file
}

var (
	_ gofuse.NodeOpener      = (*dataFile)(nil)
	_ gofuse.NodeGetattrer   = (*dataFile)(nil)
	_ gofuse.NodeGetxattrer  = (*dataFile)(nil)
	_ gofuse.NodeListxattrer = (*dataFile)(nil)
)

// Getattr goes on answering for an open file whose image was deleted, as fstat(2)
// of an unlinked file does.
func (d *dataFile) Getattr(ctx context.Context, h gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	r, err := d.t.record(ctx, d.id)
	if open, ok := h.(*openFile); ok && errors.Is(err, catalog.ErrNotFound) {
		errno := d.attr(ctx, &record{img: open.h.Image()}, &out.Attr)
		out.Nlink = 0
		return errno
	}
	if err != nil {
		return d.t.fail("read the attributes of image", d.id, err)
	}
	return d.attr(ctx, r, &out.Attr)
}

// attr fills the attributes. The content's time is the image's creation, for the
// content never changes after it can be seen; its fields' change is the ctime.
func (d *dataFile) attr(ctx context.Context, r *record, out *fuse.Attr) syscall.Errno {
	size, allocated, err := d.extent(ctx, r)
	if err != nil {
		return d.t.fail("measure image", d.id, err)
	}
	out.Mode = fuse.S_IFREG | 0o444
	out.Nlink = 1
	out.Size = uint64(size)
	out.Blksize = blockSize
	out.Blocks = blocks(allocated)
	out.SetTimes(&r.img.CreatedAt, &r.img.CreatedAt, &r.img.UpdatedAt)
	return 0
}

// extent is the file's size and how much of it is not holes, in bytes. Both are
// in the record; only of an image that another program registered may the size
// have to be asked of the image itself.
func (d *dataFile) extent(ctx context.Context, r *record) (size, allocated int64, err error) {
	known := r.img.VirtualSize
	switch {
	case d.view.Stored:
		known = r.img.Size
	case d.view.Snapshot != "":
		known = r.snapshotSize(d.view.Snapshot)
	}
	if known != nil {
		size = *known
	} else {
		p := patiently(ctx)
		defer p.release()
		v := d.view
		v.Deactivated = true
		h, err := d.t.catalog.Open(p, access.System(), d.id, v)
		if err != nil {
			return 0, 0, err
		}
		size = h.Size()
		if err := h.Close(); err != nil {
			return 0, 0, err
		}
	}
	isDisk := d.view == catalog.View{} || d.view.Stored && r.storedIsDisk()
	if isDisk && r.img.Allocated != nil {
		return size, min(size, *r.img.Allocated), nil
	}
	return size, size, nil
}

// blocks is a number of bytes in the unit of st_blocks.
func blocks(n int64) uint64 { return (uint64(n) + 511) / 512 }

// Open opens the image for as long as the file is open. The content cannot
// change, so the kernel keeps its pages from one open to the next; when the image
// is withdrawn they are taken back.
func (d *dataFile) Open(ctx context.Context, flags uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	p := patiently(ctx)
	defer p.release()
	h, err := d.t.catalog.Open(p, access.System(), d.id, d.view)
	if err != nil {
		return nil, 0, d.t.fail("open image", d.id, err)
	}
	o := &openFile{node: d, h: h, closed: make(chan struct{})}
	if !d.t.track(o) {
		if err := h.Close(); err != nil {
			d.t.log.Warn("fuse: cannot close image", "image", d.id, "error", err)
		}
		return nil, 0, syscall.ENFILE
	}
	d.entered(o)
	go o.awaitRevocation()
	return o, fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH, 0
}

// entered counts an open file in, and decides at the first one how all that are
// open at once are read: the kernel fails an open that differs.
func (d *dataFile) entered(o *openFile) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.opens++; d.opens == 1 {
		d.through = false
		d.through = d.t.passthrough
	}
	if d.through {
		// A file that is no longer whole fails this open, and the next first one
		// decides anew.
		o.whole, o.through = o.h.WholeFile()
		d.through = d.opens > 1 || o.through
	}
}

func (d *dataFile) left() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opens--
}

// openFile is one open of a dataFile.
type openFile struct {
	node    *dataFile
	h       *catalog.Handle
	whole   stored.FileRange // with through: the local file the kernel reads instead of asking
	through bool             // decided once, before the kernel knows the file

	seeks runs

	closeOnce sync.Once
	closed    chan struct{} // closed together with h
}

var (
	_ gofuse.FileReader          = (*openFile)(nil)
	_ gofuse.FileLseeker         = (*openFile)(nil)
	_ gofuse.FileReleaser        = (*openFile)(nil)
	_ gofuse.FilePassthroughFder = (*openFile)(nil)
)

// PassthroughFd lets the kernel read the local file itself. Such a file can be
// read until it is closed even if its image is withdrawn.
func (o *openFile) PassthroughFd() (int, bool) {
	if !o.through {
		return 0, false
	}
	return int(o.whole.File.Fd()), true
}

// Read reads straight into the buffer that goes to the kernel.
func (o *openFile) Read(ctx context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	p := patiently(ctx)
	defer p.release()
	dest = dest[:max(0, min(int64(len(dest)), o.h.Size()-off))]
	if len(dest) > 0 {
		if err := o.h.ReadAt(p, dest, off); err != nil {
			return nil, o.fail(p, "read", err)
		}
	}
	return fuse.ReadResultData(dest), 0
}

// fail is the errno for an error of a read or seek.
func (o *openFile) fail(p *patient, what string, err error) syscall.Errno {
	select {
	case <-o.h.Revoked():
		return syscall.EIO // expected, so not logged
	case <-o.closed:
		return syscall.EIO // by an unmount
	default:
	}
	errno := o.node.t.fail(what+" image", o.node.id, err)
	if errno == syscall.EINTR && p.Err() == nil {
		return syscall.EIO // not this caller's interrupt
	}
	return errno
}

// awaitRevocation drops the kernel's pages when the image is withdrawn while it
// is open, so that reads ask here, and fail. The notifier could come too early: a
// read just before the revocation would bring the pages back.
func (o *openFile) awaitRevocation() {
	select {
	case <-o.h.Revoked():
		o.node.NotifyContent(0, 0)
	case <-o.closed:
	}
}

// Release follows the last close(2).
func (o *openFile) Release(context.Context) syscall.Errno {
	o.node.t.untrack(o)
	o.node.left()
	o.close()
	return 0 // nobody would see an error
}

// close gives the image back, once. A read that is under way ends well.
func (o *openFile) close() {
	o.closeOnce.Do(func() {
		close(o.closed)
		if o.through {
			o.tellIfCutOff()
			o.whole.Release()
		}
		if err := o.h.Close(); err != nil {
			o.node.t.log.Warn("fuse: cannot close image", "image", o.node.id, "error", err)
		}
	})
}

// tellIfCutOff logs a file that was cut off while the kernel read it: where it ended,
// its readers saw the end of the disk, and nobody else knows.
func (o *openFile) tellIfCutOff() {
	if st, err := o.whole.File.Stat(); err == nil && st.Size() != o.whole.Len {
		o.node.t.log.Error("fuse: an image's file was changed in its store while it was read: it is not the image any more",
			"image", o.node.id, "bytes", st.Size(), "want", o.whole.Len)
	}
}

// track counts an open file in; false: there are too many.
func (t *tree) track(o *openFile) bool {
	t.openMu.Lock()
	defer t.openMu.Unlock()
	if t.maxOpen > 0 && len(t.open) >= t.maxOpen {
		t.failed.Do(func() {
			t.log.Warn("fuse: too many open files: raise the daemon's limit (LimitNOFILE= of systemd)", "open", len(t.open))
		})
		return false
	}
	t.open[o] = struct{}{}
	return true
}

func (t *tree) untrack(o *openFile) {
	t.openMu.Lock()
	defer t.openMu.Unlock()
	delete(t.open, o)
}

// closeAll closes what a mount that was taken away left open.
func (t *tree) closeAll() {
	t.openMu.Lock()
	open := t.open
	t.open = make(map[*openFile]struct{})
	t.openMu.Unlock()
	for o := range open {
		o.close()
	}
}
