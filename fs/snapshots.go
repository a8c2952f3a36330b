package fs

import (
	"context"
	"syscall"

	"glanced/catalog"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// snapshotsFolder is images/<id>/snapshots/, with a file for each disk that the
// image keeps inside beside its active one. It is there only where there are any.
type snapshotsFolder struct {
	gofuse.Inode
	readOnly
	described
	serial uint64
}

var (
	_ gofuse.NodeLookuper  = (*snapshotsFolder)(nil)
	_ gofuse.NodeReaddirer = (*snapshotsFolder)(nil)
	_ gofuse.NodeGetattrer = (*snapshotsFolder)(nil)
)

func (f *snapshotsFolder) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	e, ok := f.t.index.image(f.id)
	if !ok {
		return syscall.ENOENT
	}
	f.t.folderAttr(&out.Attr, 2, e.created, e.updated)
	return 0
}

// snapshotIno is the inode number of the i-th snapshot of the image with this serial.
func snapshotIno(serial uint64, i int) uint64 { return ino(serial, snapshotKind) | uint64(i+1)<<48 }

func (f *snapshotsFolder) Readdir(ctx context.Context) (gofuse.DirStream, syscall.Errno) {
	r, err := f.t.record(ctx, f.id)
	if err != nil {
		return nil, f.t.fail("list the snapshots of image", f.id, err)
	}
	entries := []fuse.DirEntry{
		{Name: ".", Ino: ino(f.serial, snapshotsKind), Mode: fuse.S_IFDIR},
		{Name: "..", Ino: ino(f.serial, folderKind), Mode: fuse.S_IFDIR},
	}
	for i, s := range r.snapshots() {
		entries = append(entries, fuse.DirEntry{Name: s.Name, Ino: snapshotIno(f.serial, i), Mode: fuse.S_IFREG})
	}
	return gofuse.NewListDirStream(entries), 0
}

func (f *snapshotsFolder) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	r, err := f.t.record(ctx, f.id)
	if err != nil {
		return nil, f.t.fail("look into the snapshots of image", f.id, err)
	}
	for i, s := range r.snapshots() {
		if s.Name != name {
			continue
		}
		data := &dataFile{described: f.described, view: catalog.View{Snapshot: name}}
		if errno := data.attr(ctx, r, &out.Attr); errno != 0 {
			return nil, errno
		}
		return f.NewInode(ctx, data, gofuse.StableAttr{Mode: fuse.S_IFREG, Ino: snapshotIno(f.serial, i)}), 0
	}
	return nil, syscall.ENOENT
}
