package fs

import (
	"context"
	"syscall"
	"time"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// byNameFolder is by-name/, with a link for each image that has a name, spelled as
// fileName says. Where several images have one name, it alone is the public one's (of
// several: before says which), and the others' carry the image's id (idName). So no
// project can turn a name to an image of its own that means a public image, or that
// another project's image has.
type byNameFolder struct {
	gofuse.Inode
	readOnly
	t *tree
}

var (
	_ gofuse.NodeLookuper       = (*byNameFolder)(nil)
	_ gofuse.NodeOpendirHandler = (*byNameFolder)(nil)
	_ gofuse.NodeGetattrer      = (*byNameFolder)(nil)
)

func (f *byNameFolder) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	_, _, _, changed := f.t.index.totals()
	f.t.folderAttr(&out.Attr, 2, changed, changed)
	return 0
}

func (f *byNameFolder) OpendirHandle(ctx context.Context, _ uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	f.t.follower.catchUp(ctx)
	return &directory{
		self:   byNameIno,
		parent: rootIno,
		after: func(pos uint64) (fuse.DirEntry, bool) {
			serial, name, e, ok := f.t.index.linkAfter(pos)
			return fuse.DirEntry{Name: name, Ino: ino(e.serial, linkKind), Mode: fuse.S_IFLNK, Off: serial}, ok
		},
		lookup: f.lookupListed,
	}, 0, 0
}

func (f *byNameFolder) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	if _, ok := f.t.index.link(name); !ok {
		f.t.follower.catchUp(ctx)
	}
	return f.lookupListed(ctx, name, out)
}

func (f *byNameFolder) lookupListed(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	e, ok := f.t.index.link(name)
	if !ok {
		return nil, syscall.ENOENT
	}
	node := &link{target: "../images/" + e.id, made: e.created}
	node.attr(&out.Attr)
	return f.NewInode(ctx, node, gofuse.StableAttr{Mode: fuse.S_IFLNK, Ino: ino(e.serial, linkKind)}), 0
}

// link is by-name/<name>. It does not change: when the name leads to another
// image, it is another link.
type link struct {
	gofuse.Inode
	readOnly
	target string
	made   time.Time
}

var (
	_ gofuse.NodeReadlinker = (*link)(nil)
	_ gofuse.NodeGetattrer  = (*link)(nil)
)

func (l *link) Readlink(context.Context) ([]byte, syscall.Errno) { return []byte(l.target), 0 }

func (l *link) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	l.attr(&out.Attr)
	return 0
}

func (l *link) attr(out *fuse.Attr) {
	out.Mode = fuse.S_IFLNK | 0o777
	out.Nlink = 1
	out.Size = uint64(len(l.target))
	out.Blksize = blockSize
	out.SetTimes(&l.made, &l.made, &l.made)
}
