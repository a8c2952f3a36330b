package cache

import (
	"crypto/sha256"
	"encoding/hex"
	"os"

	"glanced/backends/stored"
)

// block is what file systems allocate in, bytes.
const block = 4 << 10

// object is the bytes of one identity, as far as the cache has to do with them: some
// of it is on disk, or somebody has it open. All but what never changes is Cache.mu's.
type object struct {
	c    *Cache
	id   stored.Identity
	name string // of its folder
	base uint32 // sumOf the identity
	size int64  // bytes
	n    uint32 // chunks
	dir  string // its folder

	place    string // see Place; "" = not known
	chunks   map[uint32]*chunk
	good     uint32 // of them verified, and not dropped
	bytes    int64  // allocated for chunks
	flights  map[uint32]*flight
	open     map[*reader]struct{} // who has it open
	whole    int                  // holds of all of it
	users    int                  // who needs data open: readers, and who holds or changes something
	pinned   bool                 // nothing of it is evicted
	drops    int                  // how often all was dropped: a flight from before keeps nothing
	sums     int64                // allocated for the file of sums, with what is on its way
	recorded bool                 // the folder and its files are there; changed with Cache.files held too
	data     *os.File
	counts   Counts
}

func (c *Cache) newObject(id stored.Identity, size int64) *object {
	o := &object{c: c, id: id, name: folderOf(id), base: sumOf([]byte(id)), size: size, chunks: map[uint32]*chunk{}, flights: map[uint32]*flight{}, open: map[*reader]struct{}{}}
	o.n = uint32(header{chunk: c.cfg.ChunkSize, size: size}.chunks())
	o.dir = c.dir + "/" + o.name
	return o
}

// folderOf is the name of an identity's folder: it may hold any bytes.
func folderOf(id stored.Identity) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// at is the chunk that byte off lies in.
func (o *object) at(off int64) uint32 { return uint32(off / o.c.cfg.ChunkSize) }

// start is where chunk i begins; that of the one after the last is the size.
func (o *object) start(i uint32) int64 { return min(int64(i)*o.c.cfg.ChunkSize, o.size) }

// span is the bytes of n chunks from first on.
func (o *object) span(first, n uint32) int64 { return o.start(first+n) - o.start(first) }

// allocated is what chunk i takes on disk.
func (o *object) allocated(i uint32) int64 {
	return (o.span(i, 1) + block - 1) &^ (block - 1)
}

// zeros reports whether chunk i is known to be zeros. Cache.mu.
func (o *object) zeros(i uint32) bool {
	ch := o.chunks[i]
	return ch != nil && ch.zeros && !ch.dropped
}

// hold holds the chunks from first on that can be read now, at most n, and says how
// many these are. Cache.mu.
func (o *object) hold(first, n uint32, now uint32) (held uint32) {
	if o.data == nil {
		return 0
	}
	for ; held < n; held++ {
		ch := o.chunks[first+held]
		if ch == nil || !ch.verified || ch.dropped {
			break
		}
		ch.holds++
		ch.use(now)
	}
	if held > 0 {
		o.users++
	}
	return held
}

// release gives back what hold held. Cache.mu, of which the file that nobody uses any
// more is to be closed outside.
func (o *object) release(first, n uint32) *os.File {
	for i := first; i < first+n; i++ {
		ch := o.chunks[i]
		if ch.holds--; ch.dropped && !ch.busy() {
			o.c.purgeLater(ch)
		}
	}
	return o.leave()
}

// holdWhole holds all of it, if all is there and verified. Cache.mu.
func (o *object) holdWhole() bool {
	if o.data == nil || o.good < o.n {
		return false
	}
	now := o.c.second()
	for _, ch := range o.chunks {
		ch.use(now)
	}
	o.whole++
	o.users++
	return true
}

// releaseWhole gives back what holdWhole held; see release.
func (o *object) releaseWhole() *os.File {
	if o.whole--; o.whole == 0 && o.good < uint32(len(o.chunks)) {
		for _, ch := range o.chunks {
			if ch.dropped && !ch.busy() {
				o.c.purgeLater(ch)
			}
		}
	}
	return o.leave()
}

// leave takes a user away; what it returns is to be closed, outside of Cache.mu.
func (o *object) leave() (closes *os.File) {
	if o.users--; o.users == 0 {
		closes, o.data = o.data, nil
		if len(o.open) == 0 && len(o.chunks) == 0 && !o.pinned {
			o.forget()
		}
	}
	return closes
}

// forget takes an object of which nothing is here out of the index. Cache.mu.
func (o *object) forget() {
	if o.c.objects[o.id] == o && len(o.flights) == 0 && !o.recorded {
		delete(o.c.objects, o.id)
		if o.c.places[o.place] == o {
			delete(o.c.places, o.place)
		}
	}
}

// add enters a chunk that is on disk. Cache.mu.
func (o *object) add(i, sum uint32, verified, zeros bool) {
	ch := &chunk{o: o, i: i, sum: sum, verified: verified, zeros: zeros, used: o.c.second()}
	o.chunks[i] = ch
	if verified {
		o.good++
	}
	o.bytes += o.allocated(i)
	o.c.queues.add(ch)
}

// unlink takes a chunk that left the queues out of the index. What it takes on disk
// stays counted until that is freed. Cache.mu.
func (o *object) unlink(ch *chunk) {
	delete(o.chunks, ch.i)
	if ch.verified && !ch.dropped {
		o.good--
	}
	o.bytes -= o.allocated(ch.i)
}

// dropAll has nothing of an object read any more: what nobody holds is returned, to
// be purged with Cache.files held, and the rest is when it is given back. Cache.mu.
func (o *object) dropAll() (gone []*chunk) {
	o.drops++
	for _, ch := range o.chunks {
		if ch.dropped {
			continue
		}
		if ch.verified {
			o.good--
		}
		ch.dropped = true
		if !ch.busy() {
			gone = append(gone, ch)
		}
	}
	return gone
}

// purgeLater has a dropped chunk purged in the background. Cache.mu.
func (c *Cache) purgeLater(ch *chunk) {
	c.purge = append(c.purge, ch)
	select {
	case c.kick <- struct{}{}:
	default:
	}
}
