package fs

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"syscall"

	"glanced/catalog"
	"glanced/catalog/fields"
)

// Limits of extended attributes, xattr(7): names with their prefix, one value,
// and the list of all names of a file.
const (
	xattrPrefix   = "user.glance."
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrList  = 64 << 10
)

// ownFields yields an image's own fields by the names that they have in the tree, the same
// field under each of its names. A custom property of one of these names, or of another
// field of the API, is never shown in its place, not even where the field is null.
func ownFields(img *catalog.Image) iter.Seq2[string, fields.Value] {
	return func(yield func(string, fields.Value) bool) {
		for _, f := range fields.All() {
			if !f.Base() {
				continue
			}
			for _, name := range f.Xattr {
				if !yield(name, f.Of(img)) {
					return
				}
			}
		}
	}
}

// aliases are the names of own fields in the tree that are not those of the API.
var aliases = func() map[string]bool {
	names := make(map[string]bool)
	for name := range ownFields(new(catalog.Image)) {
		if !fields.IsBase(name) {
			names[name] = true
		}
	}
	return names
}()

// hidden tells whether a custom property of this name is not shown.
func hidden(name string) bool { return fields.IsBase(name) || aliases[name] }

// leftOut is a field that has no attribute, and why.
type leftOut struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// xattrs are an image's extended attributes, the same on its folder, its disk
// and its file.
type xattrs struct {
	values  map[string]string // by full name
	list    []byte            // full names, each ended by NUL, as listxattr(2) wants
	leftOut []leftOut
}

// newXattrs makes them: the image's own fields first, then the custom properties by
// name. Null fields are absent.
func newXattrs(img *catalog.Image) *xattrs {
	x := &xattrs{values: make(map[string]string)}
	for name, v := range ownFields(img) {
		if !v.Null {
			x.add(name, v.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(img.Properties)) {
		if hidden(name) {
			x.skip(name, "a custom property cannot replace an image's own field")
			continue
		}
		x.add(name, img.Properties[name])
	}
	return x
}

func (x *xattrs) add(name, value string) {
	full := xattrPrefix + name
	switch {
	case name == "":
		x.skip(name, "an attribute needs a name")
	case strings.ContainsRune(name, 0):
		x.skip(name, "an attribute's name cannot hold NUL")
	case len(full) > maxXattrName:
		x.skip(name, fmt.Sprintf("the name is %d bytes with its prefix; Linux allows %d", len(full), maxXattrName))
	case len(value) > maxXattrValue:
		x.skip(name, fmt.Sprintf("the value is %d bytes; Linux allows %d", len(value), maxXattrValue))
	case len(x.list)+len(full)+1 > maxXattrList:
		x.skip(name, fmt.Sprintf("the list of names would be longer than the %d bytes Linux allows", maxXattrList))
	default:
		x.values[full] = value
		x.list = append(append(x.list, full...), 0)
	}
}

func (x *xattrs) skip(name, reason string) {
	x.leftOut = append(x.leftOut, leftOut{name, reason})
}

// described is embedded in the nodes that carry an image's attributes.
type described struct {
	t  *tree
	id string
}

// Getxattr answers getxattr(2): the size alone when dest is empty, ERANGE when
// the value does not fit, ENODATA for a name the image does not have.
func (d described) Getxattr(ctx context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	if !strings.HasPrefix(name, xattrPrefix) {
		return 0, syscall.ENODATA
	}
	r, err := d.t.record(ctx, d.id)
	if err != nil {
		return 0, d.t.fail("read the attributes of image", d.id, err)
	}
	value, ok := r.xattrs().values[name]
	if !ok {
		return 0, syscall.ENODATA
	}
	return fit(dest, value)
}

// Listxattr answers listxattr(2), as Getxattr does.
func (d described) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	r, err := d.t.record(ctx, d.id)
	if err != nil {
		return 0, d.t.fail("list the attributes of image", d.id, err)
	}
	return fit(dest, r.xattrs().list)
}

func fit[T string | []byte](dest []byte, value T) (uint32, syscall.Errno) {
	if len(dest) < len(value) {
		return uint32(len(value)), syscall.ERANGE // go-fuse makes it a success for a probe of the size
	}
	return uint32(copy(dest, value)), 0
}
