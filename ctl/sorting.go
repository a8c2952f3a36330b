package ctl

import (
	"net/http"
	"slices"
	"strings"

	"glanced/catalog"
	"glanced/catalog/fields"
)

// sorting is the sort parameters as they came, in both of Glance's spellings:
// sort=name:asc,size and sort_key=name&sort_dir=asc.
type sorting struct {
	sort             []string
	oldKeys, oldDirs []string
}

// keys is the whole order. created_at and id are added where they are not named,
// so that equal images keep their places from page to page.
func (o sorting) keys() ([]catalog.SortKey, error) {
	names, dirs := o.oldKeys, o.oldDirs
	switch {
	case len(o.sort) > 0 && len(names)+len(dirs) > 0:
		return nil, fail(http.StatusBadRequest, "Old and new sorting syntax cannot be combined")
	case len(o.sort) > 0:
		names, dirs = nil, nil
		for item := range strings.SplitSeq(strings.Join(o.sort, ","), ",") {
			name, dir, given := strings.Cut(strings.TrimSpace(item), ":")
			if !given {
				dir = "desc"
			}
			names, dirs = append(names, name), append(dirs, dir)
		}
	case len(names) == 0:
		names = []string{"created_at"}
	}
	rest := "desc" // of what is added
	switch {
	case len(dirs) == 0:
		dirs = slices.Repeat([]string{rest}, len(names))
	case len(dirs) == 1:
		rest = dirs[0]
		dirs = slices.Repeat([]string{rest}, len(names))
	case len(dirs) != len(names):
		return nil, fail(http.StatusBadRequest, "Number of sort dirs does not match the number of sort keys")
	}
	for _, name := range []string{"created_at", "id"} {
		if !slices.Contains(names, name) {
			names, dirs = append(slices.Clone(names), name), append(dirs, rest)
		}
	}
	var keys []catalog.SortKey
	for i, name := range names {
		if keys := fields.SortKeys(); !slices.Contains(keys, name) {
			return nil, fail(http.StatusBadRequest, "Invalid sort key: %s. It must be one of the following: %s.", shorten(name), strings.Join(keys, ", "))
		}
		if dirs[i] != "asc" && dirs[i] != "desc" {
			return nil, fail(http.StatusBadRequest, "Invalid sort direction: %s", shorten(dirs[i]))
		}
		keys = append(keys, catalog.SortKey{Key: name, Desc: dirs[i] == "desc"})
	}
	return keys, nil
}
