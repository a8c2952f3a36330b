package fs

import (
	"context"
	"syscall"

	"glanced/catalog"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// imagesFolder is images/, with a folder for each image of any status.
type imagesFolder struct {
	gofuse.Inode
	readOnly
	t *tree
}

var (
	_ gofuse.NodeLookuper       = (*imagesFolder)(nil)
	_ gofuse.NodeOpendirHandler = (*imagesFolder)(nil)
	_ gofuse.NodeGetattrer      = (*imagesFolder)(nil)
)

func (f *imagesFolder) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	images, _, _, changed := f.t.index.totals()
	f.t.folderAttr(&out.Attr, 2+images, changed, changed)
	return 0
}

func (f *imagesFolder) OpendirHandle(ctx context.Context, _ uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	f.t.follower.catchUp(ctx)
	return &directory{
		self:   imagesIno,
		parent: rootIno,
		after: func(pos uint64) (fuse.DirEntry, bool) {
			serial, e, ok := f.t.index.imageAfter(pos)
			return fuse.DirEntry{Name: e.id, Ino: ino(serial, folderKind), Mode: fuse.S_IFDIR, Off: serial}, ok
		},
		lookup: f.lookupListed,
	}, 0, 0
}

// Lookup finds an image's folder. An id that is not known may be of an image
// just made, so it is worth a question to the catalog.
func (f *imagesFolder) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	if _, ok := f.t.index.image(name); !ok && plainName(name) {
		f.t.follower.catchUp(ctx)
	}
	return f.lookupListed(ctx, name, out)
}

// lookupListed finds the folder of an image that is in the index.
func (f *imagesFolder) lookupListed(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	e, ok := f.t.index.image(name)
	if !ok {
		return nil, syscall.ENOENT
	}
	f.t.folderAttr(&out.Attr, 2, e.updated, e.updated)
	node := &imageFolder{described: described{f.t, e.id}, serial: e.serial}
	return f.NewInode(ctx, node, gofuse.StableAttr{Mode: fuse.S_IFDIR, Ino: ino(e.serial, folderKind)}), 0
}

// imageFolder is images/<id>/.
type imageFolder struct {
	gofuse.Inode
	readOnly
	described
	serial uint64
}

var (
	_ gofuse.NodeLookuper    = (*imageFolder)(nil)
	_ gofuse.NodeReaddirer   = (*imageFolder)(nil)
	_ gofuse.NodeGetattrer   = (*imageFolder)(nil)
	_ gofuse.NodeGetxattrer  = (*imageFolder)(nil)
	_ gofuse.NodeListxattrer = (*imageFolder)(nil)
)

func (f *imageFolder) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	e, ok := f.t.index.image(f.id)
	if !ok {
		return syscall.ENOENT
	}
	f.t.folderAttr(&out.Attr, 2, e.updated, e.updated)
	return 0
}

// The names in an image's folder.
const (
	diskName      = "disk"
	storedName    = "file"
	metadataName  = "metadata.json"
	snapshotsName = "snapshots"
)

// content lists what the folder of an image in r's state holds.
func content(r *record) []string {
	names := []string{metadataName}
	if r.hasData() {
		names = append(names, storedName)
	}
	if r.hasDisk() {
		names = append(names, diskName)
	}
	if len(r.snapshots()) > 0 {
		names = append(names, snapshotsName)
	}
	return names
}

func (f *imageFolder) Readdir(ctx context.Context) (gofuse.DirStream, syscall.Errno) {
	r, err := f.t.record(ctx, f.id)
	if err != nil {
		return nil, f.t.fail("list the folder of image", f.id, err)
	}
	entries := []fuse.DirEntry{
		{Name: ".", Ino: ino(f.serial, folderKind), Mode: fuse.S_IFDIR},
		{Name: "..", Ino: imagesIno, Mode: fuse.S_IFDIR},
	}
	for _, name := range content(r) {
		kind, mode := kindOf(name)
		entries = append(entries, fuse.DirEntry{Name: name, Ino: ino(f.serial, kind), Mode: mode})
	}
	return gofuse.NewListDirStream(entries), 0
}

// kindOf is which node a name in an image's folder is of, and its file type.
func kindOf(name string) (kind nodeKind, mode uint32) {
	switch name {
	case diskName:
		return diskKind, fuse.S_IFREG
	case storedName:
		return fileKind, fuse.S_IFREG
	case snapshotsName:
		return snapshotsKind, fuse.S_IFDIR
	}
	return metadataKind, fuse.S_IFREG
}

func (f *imageFolder) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	r, err := f.t.record(ctx, f.id)
	if err != nil {
		return nil, f.t.fail("look into the folder of image", f.id, err)
	}
	var node gofuse.InodeEmbedder
	switch {
	case name == diskName && r.hasDisk(), name == storedName && r.hasData():
		data := &dataFile{described: f.described, view: catalog.View{Stored: name == storedName}}
		if errno := data.attr(ctx, r, &out.Attr); errno != 0 {
			return nil, errno
		}
		node = data
	case name == metadataName:
		node = &metadataFile{described: f.described}
		f.t.metadataAttr(r, &out.Attr)
	case name == snapshotsName && len(r.snapshots()) > 0:
		node = &snapshotsFolder{described: f.described, serial: f.serial}
		f.t.folderAttr(&out.Attr, 2, r.img.CreatedAt, r.img.UpdatedAt)
	default:
		return nil, syscall.ENOENT
	}
	kind, mode := kindOf(name)
	return f.NewInode(ctx, node, gofuse.StableAttr{Mode: mode, Ino: ino(f.serial, kind)}), 0
}
