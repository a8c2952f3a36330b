// Package fs shows the catalog's images as a read-only tree of files over FUSE:
//
//	images/<id>/disk            the guest disk, decoded; absent where there is none
//	images/<id>/file            the bytes as they are stored
//	images/<id>/metadata.json   the image's fields
//	images/<id>/snapshots/<n>   the disks inside, if the image has snapshots
//	by-name/<name>              a symbolic link to ../images/<id>
//	by-name/<name>~<id>         the same, where the name alone is another image's, or nobody's
//
// The image's fields are also extended attributes user.glance.<field> of the
// folder, of disk and of file. The tree follows the catalog: images come and go
// while it is mounted, and what the kernel remembers is taken back when it
// changes.
//
// Vocabulary. Entry: what the index keeps of every image, for listings. Record:
// one image's fields as the catalog has them. Node: a file, folder or link that
// the kernel asked about; it lives until the kernel forgets it. Open file: one
// open(2) of a disk or file, which holds a catalog.Handle until it is closed.
package fs

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"syscall"
	"time"

	"glanced/backends/budget"
	"glanced/catalog"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/time/rate"
)

const blockSize = 4096 // preferred I/O size told to programs, bytes

// loads is how many records are read at a time: each may be long.
const loads = 4

// tree is what all nodes of one mount share. Safe for concurrent use.
type tree struct {
	catalog     *catalog.Catalog
	log         *slog.Logger
	failed      rate.Sometimes // logs what fails: whoever reads can make as much as they like
	passthrough bool
	maxOpen     int // open files at once; 0 = no limit
	index       *index
	records     *recordCache
	loading     chan struct{}  // holds one for each record that is being read
	held        *budget.Budget // for records that are held open
	follower    *follower
	root        *root
	mounted     time.Time

	openMu sync.Mutex
	open   map[*openFile]struct{} // so that none outlives the mount
}

func newTree(cfg Config, log *slog.Logger) *tree {
	t := &tree{
		catalog:     cfg.Catalog,
		log:         log,
		failed:      rate.Sometimes{First: 5, Interval: time.Second},
		passthrough: cfg.Passthrough,
		maxOpen:     cfg.MaxOpen,
		index:       newIndex(),
		records:     newRecordCache(cfg.RecordBytes / 2),
		loading:     make(chan struct{}, loads),
		held:        budget.New(cfg.RecordBytes / 2),
		mounted:     time.Now(),
		open:        make(map[*openFile]struct{}),
	}
	t.root = &root{t: t, acl: newACL(cfg.Users, cfg.Groups)}
	t.root.images = &imagesFolder{t: t}
	t.root.byName = &byNameFolder{t: t}
	t.follower = newFollower(t)
	return t
}

// record is an image's record; catalog.ErrNotFound when it is gone.
func (t *tree) record(ctx context.Context, id string) (*record, error) {
	if r, _ := t.records.get(id); r != nil {
		return r, nil
	}
	p := patiently(ctx)
	defer p.release()
	select {
	case t.loading <- struct{}{}:
		defer func() { <-t.loading }()
	case <-p.Done():
		return nil, context.Cause(p)
	}
	r, changes := t.records.get(id)
	if r != nil { // somebody else read it meanwhile
		return r, nil
	}
	img, err := t.catalog.Get(p, id)
	if err != nil {
		return nil, err
	}
	r = &record{img: img}
	t.records.put(r, changes)
	return r, nil
}

// fail turns an error into an errno, and logs what the errno does not tell.
func (t *tree) fail(what, id string, err error) syscall.Errno {
	errno := errnoOf(err)
	if errno == syscall.EIO {
		t.failed.Do(func() { t.log.Warn("fuse: cannot "+what, "image", id, "error", err) })
	}
	return errno
}

// root is the mountpoint's own folder.
type root struct {
	gofuse.Inode
	readOnly
	t      *tree
	acl    []byte // who may enter beside the user who mounts; nil = nobody
	images *imagesFolder
	byName *byNameFolder
}

// OnAdd makes the two folders, which stay as long as the mount.
func (r *root) OnAdd(ctx context.Context) {
	for name, child := range map[string]struct {
		node gofuse.InodeEmbedder
		ino  uint64
	}{
		"images":  {r.images, imagesIno},
		"by-name": {r.byName, byNameIno},
	} {
		attr := gofuse.StableAttr{Mode: fuse.S_IFDIR, Ino: child.ino}
		r.AddChild(name, r.NewPersistentInode(ctx, child.node, attr), false)
	}
}

// Readdir lists them.
func (r *root) Readdir(context.Context) (gofuse.DirStream, syscall.Errno) {
	return gofuse.NewListDirStream([]fuse.DirEntry{
		{Name: ".", Ino: rootIno, Mode: fuse.S_IFDIR},
		{Name: "..", Mode: fuse.S_IFDIR},
		{Name: "images", Ino: imagesIno, Mode: fuse.S_IFDIR},
		{Name: "by-name", Ino: byNameIno, Mode: fuse.S_IFDIR},
	}), 0
}

func (r *root) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	r.t.folderAttr(&out.Attr, 4, r.t.mounted, r.t.mounted)
	out.Mode = fuse.S_IFDIR | 0o500
	if r.acl != nil {
		out.Mode |= 0o050 // the ACL's mask
	}
	return 0
}

// Statfs says how much is stored; nothing is free, for nothing can be written.
func (r *root) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	images, names, bytes, _ := r.t.index.totals()
	*out = fuse.StatfsOut{
		Bsize:   blockSize,
		Frsize:  blockSize,
		Blocks:  uint64((bytes + blockSize - 1) / blockSize),
		Files:   uint64(3 + images*4 + names),
		NameLen: maxName,
	}
	return 0
}

// folderAttr fills the attributes of a folder with links hard links ("." and the
// ".." of its folders included).
func (t *tree) folderAttr(out *fuse.Attr, links int, modified, changed time.Time) {
	out.Mode = fuse.S_IFDIR | 0o555 // who gets here is told at the root
	out.Nlink = uint32(min(links, math.MaxUint32))
	out.Blksize = blockSize
	out.SetTimes(&modified, &modified, &changed)
}
