package ova

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"glanced/formats"
	"glanced/formats/container"
)

// What an OVF descriptor may be: those of large appliances have some 100 KiB.
const (
	maxDescriptor = 1 << 20 // bytes
	maxDepth      = 64      // of elements
)

// file is a File of an OVF's References (DSP0243, 7.1).
type file struct {
	href        string // untrusted: a relative URI, in an OVA the path of a member
	size        int64  // bytes; -1: it does not say
	compression string
	chunked     bool
}

// descriptor is what an OVF says of the files beside it.
type descriptor struct {
	files  map[string]file   // by id
	byHref map[string][]file // the same
	disks  []string          // the fileRefs of those disks that have one, in order
	typed  map[string]bool   // the sections that were there: whether each was a Section of a type
}

// parseDescriptor reads an OVF descriptor (DSP0243, 6 to 9) without following
// anything in it. Elements are known by place and local name, whatever the
// namespace: its address differs between versions and writers.
func parseDescriptor(text []byte) (descriptor, error) {
	d := descriptor{files: map[string]file{}, byHref: map[string][]file{}, typed: map[string]bool{}}
	x := xml.NewDecoder(bytes.NewReader(text))
	var path []string
	seen := false
	for {
		token, err := x.Token()
		if err == io.EOF && seen {
			return d, nil
		}
		if err == io.EOF {
			return d, fmt.Errorf("%w: the OVF descriptor has no Envelope", formats.ErrCorrupt)
		}
		if err != nil {
			return d, fmt.Errorf("%w: the OVF descriptor is not well-formed XML: %v", formats.ErrCorrupt, err)
		}
		switch token := token.(type) {
		case xml.Directive:
			return d, fmt.Errorf("%w: the OVF descriptor declares a document type or entities (<!%.20q), which no OVF does", formats.ErrCorrupt, token)
		case xml.StartElement:
			if len(path) == maxDepth {
				return d, fmt.Errorf("%w: the OVF descriptor's elements are nested deeper than %d", formats.ErrLimit, maxDepth)
			}
			if len(path) == 0 && (seen || token.Name.Local != "Envelope") {
				return d, fmt.Errorf("%w: the OVF descriptor is %.40q where one Envelope was expected", formats.ErrCorrupt, token.Name.Local)
			}
			seen = true
			name := token.Name.Local
			if len(path) == 1 {
				if name, err = d.section(token); err != nil {
					return d, err
				}
			}
			path = append(path, name)
			if err := d.element(strings.Join(path, "/"), token.Attr); err != nil {
				return d, err
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		}
	}
}

// schema is the namespace of the attribute that says an element's type (XML Schema
// 1.0, part 1, 2.6.1).
const schema = "http://www.w3.org/2001/XMLSchema-instance"

// section is what an element right inside the Envelope is called in OVF 1.0 and later.
// OVF 0.9 and oVirt call it Section, and say which it is by its type:
// <Section xsi:type="ovf:DiskSection_Type">. One that says two things, and a
// descriptor with sections of both kinds, would show readers of one version another
// disk than those of the other.
func (d *descriptor) section(e xml.StartElement) (string, error) {
	kind, err := typeOf(e)
	if err != nil {
		return "", err
	}
	name, typed := e.Name.Local, false
	if name == "Section" && isRead(kind) {
		name, typed = kind, true
	}
	switch before, twice := d.typed[name]; {
	case !isRead(name) && !isRead(kind):
		return name, nil
	case kind != "" && kind != name:
		return "", fmt.Errorf("%w: the OVF descriptor has a %.40q of the type %.40q", formats.ErrCorrupt, name, kind)
	case twice && before != typed:
		return "", fmt.Errorf("%w: the OVF descriptor has a %s of OVF 0.9 and one of a later version", formats.ErrCorrupt, name)
	}
	d.typed[name] = typed
	return name, nil
}

// isRead reports whether a section of this name has something that is wanted.
func isRead(name string) bool { return name == "References" || name == "DiskSection" }

// typeOf is the section that an element's type is for: the NAME of the type
// PREFIX:NAME_Type; "" where it says none.
func typeOf(e xml.StartElement) (string, error) {
	said, found := "", false
	for _, a := range e.Attr {
		if a.Name.Local != "type" || a.Name.Space != schema && a.Name.Space != "xsi" { // some never declare the prefix
			continue
		}
		if found && said != a.Value {
			return "", fmt.Errorf("%w: the OVF descriptor gives the type of a %.40q twice", formats.ErrCorrupt, e.Name.Local)
		}
		said, found = a.Value, true
	}
	name := strings.TrimSpace(said)
	if _, local, ok := strings.Cut(name, ":"); ok {
		name = local
	}
	name, ok := strings.CutSuffix(name, "_Type")
	if !ok {
		return "", nil
	}
	return name, nil
}

// element takes what is wanted of one element.
func (d *descriptor) element(path string, attrs []xml.Attr) error {
	if path != "Envelope/References/File" && path != "Envelope/DiskSection/Disk" {
		return nil
	}
	has := map[string]string{}
	for _, a := range attrs {
		if a.Name.Space == "xmlns" || a.Name.Local == "xmlns" {
			continue
		}
		if old, twice := has[a.Name.Local]; twice && old != a.Value {
			return fmt.Errorf("%w: the OVF descriptor gives %s of a %s twice", formats.ErrCorrupt, a.Name.Local, path)
		}
		has[a.Name.Local] = a.Value
	}
	if path == "Envelope/DiskSection/Disk" {
		if ref := has["fileRef"]; ref != "" {
			d.disks = append(d.disks, ref)
		}
		return nil
	}
	f := file{href: has["href"], size: -1, compression: has["compression"]}
	_, f.chunked = has["chunkSize"]
	if s, ok := has["size"]; ok {
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil || n < 0 {
			return fmt.Errorf("%w: the OVF descriptor says that %.200q has the size %.40q", formats.ErrCorrupt, f.href, s)
		}
		f.size = n
	}
	id := has["id"]
	if _, twice := d.files[id]; twice || id == "" {
		return fmt.Errorf("%w: the OVF descriptor has a File without an id of its own (%.200q)", formats.ErrCorrupt, id)
	}
	d.files[id] = f
	d.byHref[f.href] = append(d.byHref[f.href], f)
	return inside(f.href)
}

// inside refuses names that are more than a path from the top of the archive down:
// nothing outside of it is ever looked at.
func inside(href string) error {
	first, _, deeper := strings.Cut(href, "/")
	bad := canonical(href) == "" || leadsUp(href) || strings.ContainsAny(href, "\\\x00") || !utf8.ValidString(href) ||
		deeper && (first == "" || strings.Contains(first, ":")) || // absolute, or with a scheme (RFC 3986, 4.2)
		strings.Contains(href, "//") || strings.HasSuffix(href, "/")
	if bad {
		return fmt.Errorf("%w: the OVF descriptor names %.200q, where only files in the archive may be named", formats.ErrReference, href)
	}
	return nil
}

// file is the file that a disk's fileRef says: by its id, and in oVirt's descriptors
// by its href. Those have for its size what the disk takes in oVirt's storage.
func (d descriptor) file(ref string) (file, bool) {
	if f, ok := d.files[ref]; ok {
		return f, true
	}
	if fs := d.byHref[ref]; len(fs) == 1 {
		f := fs[0]
		f.size = -1
		return f, true
	}
	return file{}, false
}

// member is the member that an href names, as it is or percent-encoded.
func (f file) member(members map[string]member) (member, error) {
	m, ok := members[canonical(f.href)]
	if decoded, err := url.PathUnescape(f.href); !ok && err == nil {
		if err := inside(decoded); err != nil {
			return m, err
		}
		m, ok = members[canonical(decoded)]
	}
	switch {
	case !ok:
		return m, fmt.Errorf("%w: the OVF descriptor names the disk %.200q, which is not in the archive", formats.ErrCorrupt, f.href)
	case f.size >= 0 && f.size != m.size:
		return m, fmt.Errorf("%w: the OVF descriptor says that %.200q has %d bytes; in the archive it has %d", formats.ErrCorrupt, f.href, f.size, m.size)
	}
	return m, nil
}

// image is the member that holds the first disk, and the names of those with others.
func (d descriptor) image(members map[string]member) (member, []string, error) {
	var (
		image  member
		others []string
	)
	taken := map[string]bool{}
	for i, id := range d.disks {
		f, ok := d.file(id)
		if !ok {
			return member{}, nil, fmt.Errorf("%w: a Disk in the OVF descriptor has the fileRef %.200q, which is the id of no File, and the href of no one", formats.ErrCorrupt, id)
		}
		m, err := f.member(members)
		if err == nil && i == 0 {
			err = f.served()
		}
		if err != nil {
			return member{}, nil, err
		}
		if i == 0 {
			image = m
		} else if !taken[m.name] {
			others = append(others, m.name)
		}
		taken[m.name] = true
	}
	if len(taken) == 0 {
		return member{}, nil, fmt.Errorf("%w: the OVF descriptor has no Disk with a fileRef", container.ErrNoDisk)
	}
	return image, others, nil
}

// served refuses a disk that does not lie in the archive as it is (DSP0243, 7.1).
func (f file) served() error {
	switch {
	case f.chunked:
		return fmt.Errorf("%w: the disk %.200q is split into chunks: join them (cat), and upload the disk without the OVA", formats.ErrUnsupported, f.href)
	case f.compression != "" && f.compression != "identity":
		return fmt.Errorf("%w: the disk %.200q is compressed (%.40q) inside the OVA: unpack and decompress it, and upload the disk without the OVA", formats.ErrUnsupported, f.href, f.compression)
	}
	return nil
}
