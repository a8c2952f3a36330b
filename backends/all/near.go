package all

import "slices"

// near are the kinds of store whose objects are files of this machine: to read them
// needs no cache.
var near = []string{"file"}

// Far reports whether the store's objects are dear to come by, and worth a cache on a
// local disk. Every kind is far that nobody knows to be near.
func (c Config) Far() bool { return !slices.Contains(near, c.Type) }
