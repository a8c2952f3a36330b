package keystone

import (
	"container/list"
	"sync"
	"time"

	"glanced/backends/budget"
)

// entryBytes is about what an answer takes beside its words: the entry, its places in
// two lists and in the table.
const entryBytes = 512

// Cache keeps what Keystone has said of tokens, within a budget of bytes. A project has a
// share of it (package budget), and all refusals have one together, so that who brings
// many tokens, good or bad, displaces their own first. Safe for concurrent use.
type Cache struct {
	b *budget.Budget

	mu      sync.Mutex
	entries map[question]*entry
	used    list.List // of *entry, the last used first
	owners  map[string]*account
}

// account is what one owner has in the cache.
type account struct {
	name  string
	share *budget.Share
	used  list.List // of *entry, the last used first
}

// answer is one of Keystone's.
type answer struct {
	token   token
	refused bool
	fresh   time.Time // until then it is not asked again
	until   time.Time // and until then it holds when it does not answer
}

type entry struct {
	answer
	q           question
	account     *account
	bytes       int64
	at, ofOwner *list.Element
}

// NewCache keeps at most what b has, which nobody else takes of.
func NewCache(b *budget.Budget) *Cache {
	return &Cache{b: b, entries: map[question]*entry{}, owners: map[string]*account{}}
}

// get is what is known.
func (c *Cache) get(q question) (answer, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[q]
	if e == nil {
		return answer{}, false
	}
	c.used.MoveToFront(e.at)
	e.account.used.MoveToFront(e.ofOwner)
	return e.answer, true
}

// claim lets one of those who find an answer no longer fresh ask anew; for the others it
// is fresh until then.
func (c *Cache) claim(q question, now, until time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[q]
	if e == nil || now.Before(e.fresh) {
		return false
	}
	e.fresh = until
	return true
}

// put keeps an answer for an owner, in the place of others where room is scarce. One
// that would take an eighth of all is not kept.
func (c *Cache) put(q question, owner string, known answer, now time.Time) {
	bytes := int64(entryBytes + 2*len(owner) + len(known.token.who.User) + len(known.token.who.Project))
	for _, role := range known.token.who.Roles {
		bytes += int64(16 + len(role))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[q]; e != nil {
		c.remove(e)
	}
	if bytes > c.b.Size()/8 {
		return
	}
	a := c.owners[owner]
	if a == nil {
		a = &account{name: owner, share: c.b.Share()}
	}
	for a.share.TryTake(bytes, bytes) == 0 {
		c.remove(c.victim(a, now))
	}
	e := &entry{answer: known, q: q, account: a, bytes: bytes}
	e.at, e.ofOwner = c.used.PushFront(e), a.used.PushFront(e)
	c.entries[q], c.owners[owner] = e, a
}

// victim is what goes first to make room for an answer of a: what no longer holds, then
// a's own, then anybody's. There is one, or there would be room.
func (c *Cache) victim(a *account, now time.Time) *entry {
	last := c.used.Back().Value.(*entry)
	if own := a.used.Back(); own != nil && now.Before(last.until) {
		return own.Value.(*entry)
	}
	return last
}

func (c *Cache) remove(e *entry) {
	delete(c.entries, e.q)
	c.used.Remove(e.at)
	e.account.used.Remove(e.ofOwner)
	e.account.share.Give(e.bytes)
	if e.account.used.Len() == 0 {
		delete(c.owners, e.account.name)
	}
}
