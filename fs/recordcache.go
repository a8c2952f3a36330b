package fs

import (
	"container/list"
	"slices"
	"sync"

	"glanced/catalog"
)

// cachedRecords bounds the cache, besides its bytes: a listing with attributes asks some
// twenty questions about one image before it turns to the next.
const cachedRecords = 512

// attributeBytes is what an extended attribute takes beside its value, which it shares
// with the record.
const attributeBytes = 512

// record is one image's record with what is made of it on demand. It does not
// change.
type record struct {
	img catalog.Image

	xattrsOnce sync.Once
	xattrsMade *xattrs
	docOnce    sync.Once
	docMade    document
}

// bytes is about what the record takes in memory, with its extended attributes. Those of
// lists are texts of their own.
func (r *record) bytes() int64 {
	lists := 0
	for _, s := range r.img.Snapshots {
		lists += len(s.Name)
	}
	for _, tag := range r.img.Tags {
		lists += len(tag)
	}
	// A character is six at most in JSON, and a longer value than an attribute is not kept.
	return r.img.Bytes() + attributeBytes*int64(len(r.img.Properties)) + int64(min(6*lists, 2*maxXattrValue))
}

func (r *record) xattrs() *xattrs {
	r.xattrsOnce.Do(func() { r.xattrsMade = newXattrs(&r.img) })
	return r.xattrsMade
}

func (r *record) document() *document {
	r.docOnce.Do(func() { r.docMade = newDocument(r) })
	return &r.docMade
}

// hasData tells whether the image's bytes are there: whether it has a file.
func (r *record) hasData() bool {
	return r.img.Status == catalog.Active || r.img.Status == catalog.Deactivated
}

// hasDisk tells whether it has a guest disk.
func (r *record) hasDisk() bool { return r.hasData() && r.img.DiskError == "" }

// flat are the formats whose images are the disk itself, byte for byte.
var flat = []string{"raw", "iso", "ami", "ari", "aki"}

// storedIsDisk tells whether the stored bytes are the guest disk, and not decoded or
// taken out of a container to become it.
func (r *record) storedIsDisk() bool {
	return r.hasDisk() && r.img.DiskFormat != nil && slices.Contains(flat, *r.img.DiskFormat) &&
		r.img.Size != nil && r.img.VirtualSize != nil && *r.img.Size == *r.img.VirtualSize
}

// snapshots are the disks inside the image that can be opened.
func (r *record) snapshots() []catalog.Snapshot {
	if !r.hasDisk() {
		return nil
	}
	return r.img.Snapshots
}

// snapshotSize is the virtual size of the snapshot called name, bytes; nil where
// there is none.
func (r *record) snapshotSize(name string) *int64 {
	for _, s := range r.snapshots() {
		if s.Name == name {
			return &s.VirtualSize
		}
	}
	return nil
}

// recordCache keeps the records asked for last. Safe for concurrent use.
type recordCache struct {
	max int64 // bytes

	mu      sync.Mutex
	changes uint64 // how many changes the catalog told of
	held    int64  // bytes of those kept
	lru     list.List
	byID    map[string]*list.Element // of *record
}

func newRecordCache(maxBytes int64) *recordCache {
	return &recordCache{max: maxBytes, byID: make(map[string]*list.Element)}
}

// get is the record if it is kept; otherwise changes is to be given to put with
// the record read after this call.
func (c *recordCache) get(id string) (r *record, changes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el, ok := c.byID[id]; ok {
		c.lru.MoveToFront(el)
		return el.Value.(*record), 0
	}
	return nil, c.changes
}

// put keeps a record, unless something changed while it was being read: it may
// be the old state then.
func (c *recordCache) put(r *record, changes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if changes != c.changes || c.byID[r.img.ID] != nil {
		return
	}
	c.byID[r.img.ID] = c.lru.PushFront(r)
	c.held += r.bytes()
	for c.lru.Len() > 1 && (c.lru.Len() > cachedRecords || c.held > c.max) {
		c.remove(c.lru.Back())
	}
}

// drop forgets a record that changed.
func (c *recordCache) drop(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	if el, ok := c.byID[id]; ok {
		c.remove(el)
	}
}

// remove takes a record out; c.mu is held.
func (c *recordCache) remove(el *list.Element) {
	r := c.lru.Remove(el).(*record)
	delete(c.byID, r.img.ID)
	c.held -= r.bytes()
}
