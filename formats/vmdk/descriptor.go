package vmdk

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"glanced/backends/stored"
	"glanced/formats"
)

// Limits on a descriptor.
const (
	maxDescriptor = 1 << 20 // bytes; qemu's and OpenStack's limit
	maxExtents    = 4096    // extent lines; 8 TiB in VMware's 2 GB pieces
	maxName       = 4 << 10 // bytes of a name that is handed on
)

// noParent is the parentCID of a disk that is not a delta.
const noParent = 0xffffffff

// descriptor is the text that says what a disk is made of ("The Descriptor
// File"). Names in it are never opened.
type descriptor struct {
	createType string
	cid        *uint32 // nil = it does not say
	parentCID  uint32
	parentHint string
	extents    []extentLine
	sectors    int64 // of all extents together
}

// extentLine is one line such as `RW 4192256 SPARSE "disk-s001.vmdk"`.
type extentLine struct {
	access  string // upper case: RW, RDONLY, NOACCESS
	sectors int64
	kind    string // upper case: SPARSE, FLAT, ZERO, VMFS, …
	name    string // "" where the line has none (ZERO)
	tail    string // what follows the name
	offset  int64  // sectors into the file; FLAT in a descriptor file that was checked
}

// flat reports whether the extent's file holds its sectors as they are. VMFS is
// what ESX calls that on its own file system.
func (x *extentLine) flat() bool { return x.kind == "FLAT" || x.kind == "VMFS" }

// createTypes are the values of createType that the technical note and VMware's
// products know. Other text is not repeated to who asks for the variant.
var createTypes = []string{
	"monolithicSparse", "streamOptimized", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
	"vmfs", "vmfsSparse", "vmfsThin", "vmfsEagerZeroedThick", "vmfsPreallocated", "vmfsRaw", "vmfsRDM",
	"vmfsRawDeviceMap", "vmfsRDMP", "vmfsPassthroughRawDeviceMap", "seSparse", "fullDevice", "partitionedDevice", "custom",
}

// isDescriptor reports whether head begins a descriptor: VMware's first line, or,
// as qemu recognises it, comments and then the version.
func isDescriptor(head []byte) bool {
	const title = "# disk descriptorfile"
	if len(head) >= len(title) && strings.EqualFold(string(head[:len(title)]), title) {
		return true
	}
	for len(head) > 0 {
		var line []byte
		line, head, _ = bytes.Cut(head, []byte("\n"))
		line = bytes.TrimRight(line, " \r")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		return string(line) == "version=1" || string(line) == "version=2" || string(line) == "version=3"
	}
	return false
}

// readEmbedded reads the descriptor inside a sparse extent.
func readEmbedded(ctx context.Context, src stored.Bytes, h *header) (*descriptor, error) {
	if h.descriptorOff == 0 || h.descriptorSize == 0 {
		return nil, fmt.Errorf("%w: this vmdk is one piece of a disk (it has no descriptor); upload the disk as one streamOptimized file", formats.ErrUnsupported)
	}
	if err := h.checkDescriptor(src.Size()); err != nil {
		return nil, err
	}
	text := make([]byte, h.descriptorSize*sector)
	if err := src.ReadAt(ctx, text, int64(h.descriptorOff)*sector); err != nil {
		return nil, fmt.Errorf("read the vmdk descriptor: %w", err)
	}
	return parseDescriptor(text)
}

// parseDescriptor parses text up to its first NUL. Each line must be a comment,
// a key, a line of the disk database or an extent, as OpenStack's inspector
// demands: what is not understood is not guessed.
func parseDescriptor(text []byte) (*descriptor, error) {
	if i := bytes.IndexByte(text, 0); i >= 0 {
		text = text[:i]
	}
	if !utf8.Valid(text) {
		return nil, fmt.Errorf("%w: the vmdk descriptor is neither ASCII nor UTF-8", formats.ErrUnsupported)
	}
	d := &descriptor{parentCID: noParent}
	seen := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word, _, _ := strings.Cut(line, " ")
		switch strings.ToUpper(word) {
		case "RW", "RDONLY", "NOACCESS":
			if err := d.addExtent(line); err != nil {
				return nil, err
			}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		key = strings.ToLower(strings.TrimSpace(key))
		value = strings.TrimSpace(value)
		switch {
		case strings.HasPrefix(key, "ddb"):
			continue
		case !ok || strings.ContainsAny(key, " \t\"") || key == "":
			return nil, fmt.Errorf("%w: line %s of the vmdk descriptor is not understood", formats.ErrCorrupt, quote(line))
		case seen[key]:
			return nil, fmt.Errorf("%w: the vmdk descriptor says %s twice", formats.ErrCorrupt, quote(key))
		}
		seen[key] = true
		if err := d.set(key, value); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// set takes a key, in lower case, and its value.
func (d *descriptor) set(key, value string) error {
	switch key {
	case "createtype":
		d.createType = strings.Trim(value, `"`)
	case "parentfilenamehint":
		d.parentHint = strings.Trim(value, `"`)
	case "cid", "parentcid":
		n, err := strconv.ParseUint(value, 16, 32)
		if err != nil {
			return fmt.Errorf("%w: the vmdk descriptor's %s is %s, not 8 hexadecimal digits", formats.ErrCorrupt, key, quote(value))
		}
		cid := uint32(n)
		if key == "cid" {
			d.cid = &cid
		} else {
			d.parentCID = cid
		}
	}
	return nil
}

// addExtent takes `ACCESS SECTORS TYPE ["NAME" [OFFSET …]]`.
func (d *descriptor) addExtent(line string) error {
	before, rest, named := strings.Cut(line, `"`)
	name, tail, closed := strings.Cut(rest, `"`)
	fields := strings.Fields(before)
	if len(fields) != 3 || named != closed {
		return fmt.Errorf("%w: extent line %s of the vmdk descriptor is not understood", formats.ErrCorrupt, quote(line))
	}
	n, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%w: extent line %s of the vmdk descriptor has no size", formats.ErrCorrupt, quote(line))
	}
	if len(d.extents) == maxExtents || n > maxSize/sector-d.sectors {
		return fmt.Errorf("%w: the vmdk descriptor has more than %d extents, or more than 64 TiB in them", formats.ErrLimit, maxExtents)
	}
	d.sectors += n
	d.extents = append(d.extents, extentLine{
		access: strings.ToUpper(fields[0]), sectors: n, kind: strings.ToUpper(fields[2]), name: name, tail: strings.TrimSpace(tail),
	})
	return nil
}

// checkEmbedded demands of a descriptor inside a sparse extent that the disk is
// this very file and nothing else, as OpenStack does. The extent's own name is a
// plain name, and not opened.
func (d *descriptor) checkEmbedded(h *header) error {
	if err := d.checkNames(); err != nil {
		return err
	}
	switch {
	case len(d.extents) > 1:
		return fmt.Errorf("%w: the vmdk descriptor lists %d extents; only a disk in one file can be read", formats.ErrReference, len(d.extents))
	case !d.is("monolithicSparse") && !d.is("streamOptimized"):
		return fmt.Errorf("%w: vmdk createType %s; only monolithicSparse and streamOptimized can be read", formats.ErrUnsupported, quote(d.createType))
	case len(d.extents) == 0:
		return fmt.Errorf("%w: the vmdk descriptor lists no extent", formats.ErrCorrupt)
	case d.extents[0].kind != "SPARSE":
		return fmt.Errorf("%w: the vmdk's extent is of type %s and so lies in another file", formats.ErrReference, quote(d.extents[0].kind))
	case h.capacity == 0:
		// qemu then follows the descriptor to other files.
		return fmt.Errorf("%w: the vmdk header says 0 sectors, leaving the disk to what its descriptor names", formats.ErrReference)
	case uint64(d.extents[0].sectors) > h.capacity:
		// Less is allowed: VirtualBox rounds the capacity up to whole grains.
		return fmt.Errorf("%w: the vmdk descriptor says %d sectors, the header %d", formats.ErrCorrupt, d.extents[0].sectors, h.capacity)
	}
	return nil
}

func (d *descriptor) is(createType string) bool { return strings.EqualFold(d.createType, createType) }

// isDelta: VMware goes by the parent's CID, qemu by the hint; either makes it one.
func (d *descriptor) isDelta() bool { return d.parentCID != noParent || d.parentHint != "" }

// identity is the content id, which a delta made on this disk repeats; "" = none.
func (d *descriptor) identity() string {
	if d.cid == nil {
		return ""
	}
	return identity(*d.cid)
}

func identity(cid uint32) string { return fmt.Sprintf("%08x", cid) }

// parent is the reference of a delta.
func (d *descriptor) parent() formats.Ref {
	ref := formats.Ref{Kind: formats.RefParent, Name: clip(d.parentHint), Format: "vmdk"}
	if d.parentCID != noParent {
		ref.Identity = identity(d.parentCID)
	}
	return ref
}

// ref is the reference to an extent's file.
func (x *extentLine) ref() formats.Ref {
	ref := formats.Ref{Kind: formats.RefExtent, Name: clip(x.name)}
	switch {
	case x.flat():
		ref.Format = "raw"
	case x.kind == "SPARSE", x.kind == "VMFSSPARSE", x.kind == "SESPARSE":
		ref.Format = "vmdk"
	}
	return ref
}

// refs lists the names of other files.
func (d *descriptor) refs() []formats.Ref {
	var refs []formats.Ref
	for _, x := range d.extents {
		if x.name != "" {
			refs = append(refs, x.ref())
		}
	}
	if d.isDelta() {
		refs = append(refs, d.parent())
	}
	return refs
}

// variant is the createType, spelled as VMware does; "" if VMware has none such.
func (d *descriptor) variant() string {
	for _, t := range createTypes {
		if d.is(t) {
			return t
		}
	}
	return ""
}

// clip cuts a name to what may be handed on, between two characters.
func clip(name string) string {
	if len(name) <= maxName {
		return name
	}
	n := maxName
	for !utf8.RuneStart(name[n]) {
		n--
	}
	return name[:n]
}

// quote shows untrusted text in an error: one line, and not all of it.
func quote(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return strconv.Quote(s)
}
