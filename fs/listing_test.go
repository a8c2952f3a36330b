package fs

import "testing"

func TestAListingUnderWaySeesWhatStaysOnce(t *testing.T) {
	var l listing[int]
	for i := range 1000 {
		l.add(uint64(firstSerial+i), i)
	}
	seen := make(map[int]int)
	next := uint64(1000)
	for pos := uint64(2); ; {
		serial, item, ok := l.after(pos)
		if !ok {
			break
		}
		if serial <= pos {
			t.Fatalf("offset %d follows %d", serial, pos)
		}
		pos = serial
		seen[item]++
		if item < 1000 {
			if item%2 == 0 {
				l.remove(serial) // the item itself
				l.remove(firstSerial + uint64(999-item))
			}
			if item%10 == 0 {
				l.add(firstSerial+next, int(next))
				next++
			}
		}
	}
	for i := range 500 {
		if seen[i] != 1 {
			t.Errorf("item %d, there when the listing passed it, was seen %d times", i, seen[i])
		}
	}
	n := 0
	for pos := uint64(0); ; n++ {
		serial, _, ok := l.after(pos)
		if !ok {
			break
		}
		pos = serial
	}
	if n != l.len() {
		t.Errorf("len says %d, a listing shows %d", l.len(), n)
	}
}

func TestRemovedItemsGiveTheirMemoryBack(t *testing.T) {
	var l listing[int]
	for i := range 10000 {
		l.add(uint64(i), i)
	}
	for i := range 9999 {
		l.remove(uint64(i))
		l.remove(uint64(i)) // again: nothing happens
	}
	if l.len() != 1 || len(l.items) > 3 {
		t.Errorf("1 item is left; len says %d, the slice holds %d", l.len(), len(l.items))
	}
}
