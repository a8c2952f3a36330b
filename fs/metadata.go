package fs

import (
	"context"
	"errors"
	"syscall"
	"time"

	"glanced/backends/budget"
	"glanced/catalog"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// metadataFile is images/<id>/metadata.json. Each open sees the record as it was
// then, whole.
type metadataFile struct {
	gofuse.Inode
	readOnly
	described
}

var (
	_ gofuse.NodeOpener    = (*metadataFile)(nil)
	_ gofuse.NodeGetattrer = (*metadataFile)(nil)
)

func (m *metadataFile) Getattr(ctx context.Context, h gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	r, err := m.t.record(ctx, m.id)
	if open, ok := h.(*openMetadata); ok && errors.Is(err, catalog.ErrNotFound) {
		m.t.metadataAttr(open.r, &out.Attr)
		out.Nlink = 0
		return 0
	}
	if err != nil {
		return m.t.fail("read the metadata of image", m.id, err)
	}
	m.t.metadataAttr(r, &out.Attr)
	return 0
}

func (t *tree) metadataAttr(r *record, out *fuse.Attr) {
	out.Mode = fuse.S_IFREG | 0o444
	out.Nlink = 1
	out.Size = uint64(r.document().size())
	out.Blksize = blockSize
	out.Blocks = blocks(int64(out.Size))
	out.SetTimes(&r.img.UpdatedAt, &r.img.UpdatedAt, &r.img.UpdatedAt)
}

// Open bypasses the kernel's page cache, which could mix two states of the record.
func (m *metadataFile) Open(ctx context.Context, flags uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	r, err := m.t.record(ctx, m.id)
	if err != nil {
		return nil, 0, m.t.fail("open the metadata of image", m.id, err)
	}
	o := &openMetadata{r: r, share: m.t.held.Share()}
	wait, cancel := context.WithTimeout(ctx, heldWithin)
	defer cancel()
	// The kernel tells of a file that was closed a moment later: the next may be opened by then.
	if o.taken, err = o.share.Take(wait, r.bytes(), r.bytes()); err != nil {
		return nil, 0, syscall.ENFILE
	}
	return o, fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH, 0
}

// heldWithin is how long an open(2) of a metadata.json waits for others to be closed.
const heldWithin = 5 * time.Second

type openMetadata struct {
	r     *record
	share *budget.Share // of the memory for records that are held open
	taken int64         // bytes of it
}

var (
	_ gofuse.FileReader   = (*openMetadata)(nil)
	_ gofuse.FileReleaser = (*openMetadata)(nil)
)

func (o *openMetadata) Read(_ context.Context, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	return fuse.ReadResultData(dest[:o.r.document().read(dest, off)]), 0
}

func (o *openMetadata) Release(context.Context) syscall.Errno {
	o.share.Give(o.taken)
	return 0
}
