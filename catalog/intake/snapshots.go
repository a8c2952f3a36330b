package intake

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"glanced/catalog/records"
	"glanced/formats"
)

// How many snapshots of an image can be addressed, and how long their names and ids may
// be together, bytes: they are in the image's record.
const (
	maxSnapshots     = 1024
	maxSnapshotBytes = 64 << 10
)

// addressed gives the snapshots of an image the names under which they can be
// opened: their own where that is unique and can be a file's name, else their id.
// A snapshot with neither is left out.
func addressed(found []formats.Snapshot) []records.Snapshot {
	used := map[string]int{}
	for _, s := range found {
		used[s.Name]++
		if s.ID != s.Name {
			used[s.ID]++
		}
	}
	var named []records.Snapshot
	var bytes int
	for _, s := range found {
		// Drivers find a snapshot by its id: an id that others bear finds another, and
		// none at all the active disk.
		if s.ID == "" || used[s.ID] > 1 || len(named) == maxSnapshots {
			continue
		}
		for _, name := range []string{s.Name, s.ID} {
			if used[name] == 1 && fileName(name) {
				if bytes += len(name) + len(s.ID); bytes > maxSnapshotBytes {
					return named
				}
				named = append(named, records.Snapshot{Name: name, ID: s.ID, VirtualSize: s.VirtualSize})
				break
			}
		}
	}
	return named
}

// fileName tells whether a name found in an image can be a file's, and an export's.
func fileName(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 && utf8.ValidString(name) &&
		!strings.ContainsFunc(name, func(r rune) bool { return r == '/' || unicode.IsControl(r) })
}
