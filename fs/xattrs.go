package fs

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"glanced/catalog"
)

// Limits of extended attributes, xattr(7): names with their prefix, one value,
// and the list of all names of a file.
const (
	xattrPrefix   = "user.glance."
	maxXattrName  = 255
	maxXattrValue = 64 << 10
	maxXattrList  = 64 << 10
)

// field is one of an image's own fields, under the name the Images API gives it.
type field struct {
	name  string
	value any // string, int64, bool or []string; nil where the API says null
}

// baseFields are the fields every image has. A custom property of one of these
// names is never shown in its place, not even where the field is null.
func baseFields(img *catalog.Image) []field {
	return []field{
		{"id", img.ID},
		{"name", deref(img.Name)},
		{"status", string(img.Status)},
		{"disk_format", deref(img.DiskFormat)},
		{"container_format", deref(img.ContainerFormat)},
		{"size", deref(img.Size)},
		{"virtual_size", deref(img.VirtualSize)},
		{"checksum", deref(img.Checksum)},
		{"os_hash_algo", deref(img.HashAlgo)},
		{"os_hash_value", deref(img.HashValue)},
		{"visibility", img.Visibility},
		{"owner", unlessEmpty(img.Owner)},
		{"min_disk", img.MinDisk},
		{"min_ram", img.MinRAM},
		{"protected", img.Protected},
		{"os_hidden", img.Hidden},
		{"created_at", img.CreatedAt.UTC().Format(time.RFC3339)},
		{"updated_at", img.UpdatedAt.UTC().Format(time.RFC3339)},
		{"tags", append([]string{}, img.Tags...)}, // an empty list, not null
		{"disk_error", unlessEmpty(img.DiskError)},
	}
}

func deref[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func unlessEmpty(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// text is a field's value as an attribute: strings as they are, lists as JSON.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case bool:
		return strconv.FormatBool(v)
	}
	list, _ := json.Marshal(v) // strings always marshal
	return string(list)
}

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

// newXattrs makes them: the base fields first, then the custom properties by
// name. Null fields are absent.
func newXattrs(img *catalog.Image) *xattrs {
	x := &xattrs{values: make(map[string]string)}
	base := make(map[string]bool)
	for _, f := range baseFields(img) {
		base[f.name] = true
		if f.value != nil {
			x.add(f.name, text(f.value))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(img.Properties)) {
		if base[name] {
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
