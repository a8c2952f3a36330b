package fs

import (
	"context"
	"syscall"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// directory is one open of a large folder. It reads the index as it goes and
// keeps nothing but its position, so a listing of 100,000 images costs no memory
// and one that is under way sees each image that stays exactly once.
type directory struct {
	self, parent uint64 // inode numbers
	pos          uint64 // offset of the entry returned last: 1 is ".", 2 is "..", then serials
	// after is the first entry with an offset larger than pos.
	after func(pos uint64) (fuse.DirEntry, bool)
	// lookup makes the node of a name, for a listing with attributes (READDIRPLUS).
	lookup func(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno)
}

var (
	_ gofuse.FileReaddirenter = (*directory)(nil)
	_ gofuse.FileSeekdirer    = (*directory)(nil)
	_ gofuse.FileLookuper     = (*directory)(nil)
)

// Readdirent is the next entry, nil at the end. go-fuse calls one at a time.
func (d *directory) Readdirent(context.Context) (*fuse.DirEntry, syscall.Errno) {
	var e fuse.DirEntry
	switch d.pos {
	case 0:
		e = fuse.DirEntry{Name: ".", Ino: d.self, Mode: fuse.S_IFDIR, Off: 1}
	case 1:
		e = fuse.DirEntry{Name: "..", Ino: d.parent, Mode: fuse.S_IFDIR, Off: 2}
	default:
		var ok bool
		if e, ok = d.after(d.pos); !ok {
			return nil, 0
		}
	}
	d.pos = e.Off
	return &e, 0
}

// Seekdir goes to an offset that Readdirent gave, or to 0.
func (d *directory) Seekdir(_ context.Context, off uint64) syscall.Errno {
	d.pos = off
	return 0
}

// Lookup looks up the name Readdirent returned last.
func (d *directory) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*gofuse.Inode, syscall.Errno) {
	return d.lookup(ctx, name, out)
}
