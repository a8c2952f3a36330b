package fs

import (
	"sync"
	"time"

	"glanced/catalog"
	"glanced/catalog/access"
)

// Inode numbers: the three fixed directories have their own, an image's five
// nodes follow from its serial. They hold as long as the mount.
const (
	rootIno uint64 = 1 + iota
	imagesIno
	byNameIno
)

// firstSerial leaves the small numbers to the fixed inodes and, as directory
// offsets, to "." and "..".
const firstSerial = 16

// nodeKind tells an image's nodes apart.
type nodeKind uint8

const (
	folderKind nodeKind = iota
	diskKind
	fileKind
	metadataKind
	linkKind
	snapshotsKind
	snapshotKind
)

// ino is the inode number of one node of the image with this serial.
func ino(serial uint64, k nodeKind) uint64 { return serial<<3 | uint64(k) }

// entry is what the index remembers of an image: enough to list it, to stat its
// folder and to decide what its name links to.
type entry struct {
	id      string
	file    string // its name as spelled in by-name
	named   bool   // false: the image's name is null, and file means nothing
	active  bool
	public  bool
	created time.Time
	updated time.Time
	size    int64  // stored bytes, 0 if not known
	serial  uint64 // when the index first saw it
}

// index lists the images and the names, following the catalog. It holds some
// 300 bytes an image and no record. Safe for concurrent use; what it returns are
// copies.
type index struct {
	mu      sync.RWMutex
	last    uint64 // the last serial given
	byID    map[string]*entry
	images  listing[*entry]
	byName  map[string]*nameEntry
	links   map[string]*linkEntry // by spelling
	names   listing[*linkEntry]
	bytes   int64     // sum of the sizes
	changed time.Time // when an image or a name last came or went
}

func newIndex() *index {
	return &index{
		last:    firstSerial - 1,
		byID:    make(map[string]*entry),
		byName:  make(map[string]*nameEntry),
		links:   make(map[string]*linkEntry),
		changed: time.Now(),
	}
}

// shift is what a put or remove changed in the directories.
type shift struct {
	listed bool     // the image came or went
	links  []string // spellings in by-name that came, went or now lead elsewhere
}

// put takes in the present state of an image.
func (x *index) put(img *catalog.Image) shift {
	if !plainName(img.ID) {
		return shift{}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var s shift
	old := x.byID[img.ID]
	e := &entry{id: img.ID, active: img.Status == catalog.Active, public: img.Visibility == access.Public, created: img.CreatedAt, updated: img.UpdatedAt}
	if img.Name != nil {
		e.file, e.named = fileName(*img.Name), true
	}
	if img.Size != nil {
		e.size = *img.Size
	}
	if old == nil {
		e.serial = x.nextSerial()
		x.images.add(e.serial, e)
		x.changed = time.Now()
		s.listed = true
	} else {
		e.serial = old.serial
		x.images.set(e.serial, e)
		x.bytes -= old.size
	}
	x.byID[e.id] = e
	x.bytes += e.size
	s.links = x.claim(old, e)
	return s
}

// remove forgets an image.
func (x *index) remove(id string) shift {
	x.mu.Lock()
	defer x.mu.Unlock()
	old := x.byID[id]
	if old == nil {
		return shift{}
	}
	delete(x.byID, id)
	x.images.remove(old.serial)
	x.bytes -= old.size
	x.changed = time.Now()
	return shift{listed: true, links: x.claim(old, nil)}
}

func (x *index) nextSerial() uint64 {
	x.last++
	return x.last
}

// image is what is known of an image.
func (x *index) image(id string) (entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if e := x.byID[id]; e != nil {
		return *e, true
	}
	return entry{}, false
}

// imageAfter is the image listed next after the one with this serial.
func (x *index) imageAfter(serial uint64) (next uint64, e entry, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	next, p, ok := x.images.after(serial)
	if !ok {
		return 0, entry{}, false
	}
	return next, *p, true
}

// totals are the number of images and names, the stored bytes of all images, and
// when an entry last came or went.
func (x *index) totals() (images, names int, bytes int64, changed time.Time) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.images.len(), x.names.len(), x.bytes, x.changed
}

// ids lists the images now known.
func (x *index) ids() []string {
	x.mu.RLock()
	defer x.mu.RUnlock()
	ids := make([]string, 0, len(x.byID))
	for id := range x.byID {
		ids = append(ids, id)
	}
	return ids
}
