package all

import "slices"

// near are the kinds of store whose objects are files of this machine: to read them
// needs no cache.
var near = []string{"file"}

// Far reports whether the store's objects are dear to come by, and worth a cache on a
// local disk. Of some kinds the store's own configuration says so; every other kind is far
// that nobody knows to be near.
func (c Config) Far() bool {
	if own, ok := c.Own.(interface{ Far() bool }); ok {
		return own.Far()
	}
	return !slices.Contains(near, c.Type)
}
