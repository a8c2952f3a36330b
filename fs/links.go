package fs

import (
	"time"

	"glanced/catalog/fields"
)

// nameEntry is one name, as it is spelled in by-name, and the images that have it.
type nameEntry struct {
	file   string
	claims map[string]struct{} // ids
	public string              // the id of the public image that comes first; "" = there is none
	plain  string              // the id that the plain spelling leads to; "" = to none
}

// linkEntry is one link of by-name.
type linkEntry struct {
	file   string
	id     string // that it leads to
	serial uint64
}

// idName is how the name of an image is spelled where it alone does not tell which
// image is meant. No name is spelled so by itself, see fileName.
func idName(e *entry) string {
	file := e.file
	if most := maxName - 1 - len(e.id); len(file) > most {
		file = cut(file, most)
	}
	return file + "~" + e.id
}

// claim moves an image's claim on a name from its old state to its new one
// (either may be nil) and returns the spellings whose link changed. byID has the new
// state already.
func (x *index) claim(old, now *entry) (changed []string) {
	if old != nil && old.named && (now == nil || !now.named || now.file != old.file) {
		changed = append(x.settle(old, false), idName(old)) // which may have been looked up, listed or not
	}
	if now != nil && now.named {
		changed = append(changed, x.settle(now, true)...)
	}
	return changed
}

// settle takes in that e has its name, or no longer has it, and makes the links be as
// by-name's rule says.
func (x *index) settle(e *entry, has bool) (changed []string) {
	n := x.byName[e.file]
	if n == nil {
		n = &nameEntry{file: e.file, claims: map[string]struct{}{}}
		x.byName[e.file] = n
	}
	was := n.plain
	if has {
		n.claims[e.id] = struct{}{}
	} else {
		delete(n.claims, e.id)
	}
	x.elect(n, e, has)
	point := func(file, id string) {
		if x.point(file, id) {
			changed = append(changed, file)
		}
	}
	point(n.file, n.plain)
	for id := range map[string]struct{}{was: {}, e.id: {}, n.plain: {}} {
		if id == "" {
			continue
		}
		own, to := e, id
		if id != e.id {
			own = x.byID[id]
		}
		if _, claims := n.claims[id]; !claims || id == n.plain {
			to = ""
		}
		point(idName(own), to)
	}
	if len(n.claims) == 0 {
		delete(x.byName, n.file)
	}
	return changed
}

// elect decides where the plain spelling of a name leads: to the public image that
// comes first, for only administrators make images public; or, where none is, to the
// only image of that name. e is the image that has just changed.
func (x *index) elect(n *nameEntry, e *entry, has bool) {
	switch {
	case n.public == e.id:
		n.public = ""
		for id := range n.claims {
			if c := x.byID[id]; c.public && (n.public == "" || before(c, x.byID[n.public])) {
				n.public = id
			}
		}
	case has && e.public && (n.public == "" || before(e, x.byID[n.public])):
		n.public = e.id
	}
	n.plain = n.public
	if n.plain == "" && len(n.claims) == 1 {
		for id := range n.claims {
			n.plain = id
		}
	}
}

// before tells whether of two public images of one name a comes first: an active one
// before one that is not, then the older one, then the smaller id.
func before(a, b *entry) bool {
	if a.active != b.active {
		return a.active
	}
	if !a.created.Equal(b.created) {
		return a.created.Before(b.created)
	}
	return a.id < b.id
}

// point makes a link lead to an image, or with id "" be gone, and tells whether that
// changed it.
func (x *index) point(file, id string) bool {
	l := x.links[file]
	switch {
	case l == nil && id == "", l != nil && l.id == id:
		return false
	case l != nil && id == "":
		delete(x.links, file)
		x.names.remove(l.serial)
		x.changed = time.Now()
	case l == nil:
		l = &linkEntry{file: file, id: id, serial: x.nextSerial()}
		x.links[file] = l
		x.names.add(l.serial, l)
		x.changed = time.Now()
	default:
		l.id = id
	}
	return true
}

// link is the image that a spelling in by-name leads to. The one with the id leads
// there whether it is listed or not, so that it is a name that holds.
func (x *index) link(file string) (entry, bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if l := x.links[file]; l != nil {
		return *x.byID[l.id], true
	}
	if at := len(file) - fields.IDLength; at > 0 {
		if e := x.byID[file[at:]]; e != nil && e.named && idName(e) == file {
			return *e, true
		}
	}
	return entry{}, false
}

// linkAfter is the name listed next after the one with this serial, and where it
// leads.
func (x *index) linkAfter(serial uint64) (next uint64, file string, e entry, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	next, l, ok := x.names.after(serial)
	if !ok {
		return 0, "", entry{}, false
	}
	return next, l.file, *x.byID[l.id], true
}
