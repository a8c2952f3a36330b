package check

import (
	"cmp"
	"slices"
	"unicode/utf8"
)

// Fault is a bad place of the guest disk.
type Fault struct {
	Offset int64  `json:"offset"` // guest, bytes
	Length int64  `json:"length"` // bytes
	Reason string `json:"reason"`
}

// Faults are bad places: all are counted, the first that are found are kept.
type Faults struct {
	Count int64 // places; neighbours found one after the other are one
	Bytes int64
	List  []Fault // at most maxFaults
	end   int64   // guest offset just past the last place
}

const (
	maxFaults = 100 // that are kept
	maxReason = 300 // bytes of one
)

// add notes a bad place.
func (f *Faults) add(off, n int64, err error) {
	f.Bytes += n
	if f.Count > 0 && f.end == off {
		f.end += n
		if f.Count <= maxFaults {
			f.List[len(f.List)-1].Length += n
		}
		return
	}
	f.Count++
	f.end = off + n
	if len(f.List) < maxFaults {
		f.List = append(f.List, Fault{off, n, shortened(err.Error(), maxReason)})
	}
}

// merge takes in what another look at the disk found.
func (f *Faults) merge(more Faults) {
	f.Count += more.Count
	f.Bytes += more.Bytes
	f.end = more.end
	f.List = append(f.List, more.List[:min(len(more.List), maxFaults-len(f.List))]...)
	slices.SortStableFunc(f.List, func(a, b Fault) int { return cmp.Compare(a.Offset, b.Offset) })
}

// shortened is s cut to n bytes, between two characters.
func shortened(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
