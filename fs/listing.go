package fs

import "sort"

// listing is a directory's entries in the order they came, each under a rising
// serial number that is never used again. A reader that stopped after a serial
// goes on with the next larger one, whatever was added or removed meanwhile:
// that is what makes a serial usable as a directory offset (telldir(3)). Not
// safe for concurrent use.
type listing[T any] struct {
	items []listed[T] // by serial
	dead  int         // how many items were removed and are still in the slice
}

type listed[T any] struct {
	serial uint64
	alive  bool
	item   T
}

// add appends an item; serial must be larger than every one before.
func (l *listing[T]) add(serial uint64, item T) {
	l.items = append(l.items, listed[T]{serial, true, item})
}

// set replaces the item under a serial that is in the listing.
func (l *listing[T]) set(serial uint64, item T) {
	l.items[l.search(serial)].item = item
}

// remove takes an item out, in amortized constant time after the search.
func (l *listing[T]) remove(serial uint64) {
	i := l.search(serial)
	if i == len(l.items) || l.items[i].serial != serial || !l.items[i].alive {
		return
	}
	l.items[i] = listed[T]{serial: serial}
	if l.dead++; l.dead > len(l.items)/2 {
		live := make([]listed[T], 0, len(l.items)-l.dead)
		for _, x := range l.items {
			if x.alive {
				live = append(live, x)
			}
		}
		l.items, l.dead = live, 0
	}
}

// after is the first item whose serial is larger than serial.
func (l *listing[T]) after(serial uint64) (next uint64, item T, ok bool) {
	for i := l.search(serial + 1); i < len(l.items); i++ {
		if x := l.items[i]; x.alive {
			return x.serial, x.item, true
		}
	}
	return 0, item, false
}

func (l *listing[T]) len() int { return len(l.items) - l.dead }

// search is the index of the first item with this serial or a larger one.
func (l *listing[T]) search(serial uint64) int {
	return sort.Search(len(l.items), func(i int) bool { return l.items[i].serial >= serial })
}
