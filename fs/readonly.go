package fs

import (
	"context"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// readOnly is embedded in every node and answers EROFS to whatever would change
// something. The mount itself is read-only, so the kernel refuses first; this
// holds when somebody remounts it read-write.
type readOnly struct{}

func (readOnly) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofuse.Inode, gofuse.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EROFS
}

func (readOnly) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*gofuse.Inode, gofuse.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EROFS
}

func (readOnly) Mkdir(context.Context, string, uint32, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

func (readOnly) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

func (readOnly) Link(context.Context, gofuse.InodeEmbedder, string, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

func (readOnly) Symlink(context.Context, string, string, *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return nil, syscall.EROFS
}

func (readOnly) Rename(context.Context, string, gofuse.InodeEmbedder, string, uint32) syscall.Errno {
	return syscall.EROFS
}

func (readOnly) Setattr(context.Context, gofuse.FileHandle, *fuse.SetAttrIn, *fuse.AttrOut) syscall.Errno {
	return syscall.EROFS
}

func (readOnly) Setxattr(context.Context, string, []byte, uint32) syscall.Errno {
	return syscall.EROFS
}

func (readOnly) Unlink(context.Context, string) syscall.Errno      { return syscall.EROFS }
func (readOnly) Rmdir(context.Context, string) syscall.Errno       { return syscall.EROFS }
func (readOnly) Removexattr(context.Context, string) syscall.Errno { return syscall.EROFS }

// Fsync has nothing to do; left out, go-fuse would answer EOPNOTSUPP.
func (readOnly) Fsync(context.Context, gofuse.FileHandle, uint32) syscall.Errno { return 0 }
