package vhdx

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"

	"glanced/formats"
)

// The parent locator, "Parent Locator" (2.6.2.6): pairs of UTF-16 strings.
const (
	locatorType    = guid("b04aefb7-d19e-4a81-b789-25b8e9445913") // of a parent that is a vhdx file
	locatorHeader  = 20                                           // bytes
	locatorEntry   = 12                                           // bytes
	linkageKey     = "parent_linkage"
	linkage2Key    = "parent_linkage2"
	longestKey     = 2 * len("absolute_win32_path") // bytes, of those that are known
	longestRefName = 4 << 10                        // bytes, formats.Ref
)

// pathKeys are the keys of paths to the parent, the best first (2.6.2.6.3).
func pathKeys() [3]string { return [3]string{"relative_path", "volume_path", "absolute_win32_path"} }

// locator reads the parent locator: which disk a differencing file was made on.
func (m *metadata) locator(ctx context.Context) (formats.Ref, error) {
	b, err := m.item(ctx, parentLocator, "parent locator, which a differencing disk must have", locatorHeader)
	if err != nil {
		return formats.Ref{}, err
	}
	le := binary.LittleEndian
	if id := parseGUID(b); id != locatorType {
		return formats.Ref{}, fmt.Errorf("%w: a vhdx parent locator of type %s (only parents that are vhdx files are known)", formats.ErrUnsupported, id)
	}
	n := int(le.Uint16(b[18:]))
	if locatorHeader+n*locatorEntry > len(b) {
		return formats.Ref{}, fmt.Errorf("%w: a vhdx parent locator of %d bytes with %d entries", formats.ErrCorrupt, len(b), n)
	}
	values := make(map[string]string)
	for i := range n {
		e := b[locatorHeader+i*locatorEntry:][:locatorEntry]
		keyLen, valueLen := int(le.Uint16(e[8:])), int(le.Uint16(e[10:]))
		if keyLen > longestKey {
			continue // not one that is known
		}
		key, err := locatorText(b, int64(le.Uint32(e)), keyLen)
		if err != nil {
			return formats.Ref{}, err
		}
		switch key {
		case linkageKey, linkage2Key, pathKeys()[0], pathKeys()[1], pathKeys()[2]:
		default:
			continue
		}
		if _, twice := values[key]; twice {
			return formats.Ref{}, fmt.Errorf("%w: the vhdx parent locator says %s twice", formats.ErrCorrupt, key)
		}
		if values[key], err = locatorText(b, int64(le.Uint32(e[4:])), valueLen); err != nil {
			return formats.Ref{}, err
		}
	}
	return parentOf(values)
}

// parentOf makes sense of a locator's pairs.
func parentOf(values map[string]string) (formats.Ref, error) {
	p := formats.Ref{Kind: formats.RefParent, Format: "vhdx"}
	linkage, ok := guidOfText(values[linkageKey])
	if !ok || linkage == "" {
		return p, fmt.Errorf("%w: the vhdx parent locator's %s %q is not the identity of a disk", formats.ErrCorrupt, linkageKey, values[linkageKey])
	}
	p.Identity = linkage
	if text, there := values[linkage2Key]; there {
		if p.Alternative, ok = guidOfText(text); !ok {
			return p, fmt.Errorf("%w: the vhdx parent locator's %s %q is not the identity of a disk", formats.ErrCorrupt, linkage2Key, text)
		}
	}
	for _, key := range pathKeys() {
		if p.Name == "" {
			p.Name = values[key]
		}
	}
	switch {
	case p.Name == "":
		return p, fmt.Errorf("%w: the vhdx parent locator has no path", formats.ErrCorrupt)
	case len(p.Name) > longestRefName:
		return p, fmt.Errorf("%w: the vhdx parent locator has a path of %d bytes (at most %d)", formats.ErrLimit, len(p.Name), longestRefName)
	}
	return p, nil
}

// locatorText is n bytes of UTF-16 at off of the locator b, as valid UTF-8.
func locatorText(b []byte, off int64, n int) (string, error) {
	if off == 0 || n == 0 || n%2 != 0 || off > int64(len(b)-n) {
		return "", fmt.Errorf("%w: a string of %d bytes at %d of a vhdx parent locator of %d", formats.ErrCorrupt, n, off, len(b))
	}
	units := make([]uint16, n/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[off+int64(2*i):])
		if units[i] == 0 {
			return "", fmt.Errorf("%w: a NUL in a string of the vhdx parent locator", formats.ErrCorrupt)
		}
	}
	return string(utf16.Decode(units)), nil
}

// guidOfText reads a GUID written with or without braces and in either case; ok
// is false where it is none. The one of zeros is "".
func guidOfText(s string) (id guid, ok bool) {
	if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
		s = s[1 : len(s)-1]
	}
	parts := strings.Split(s, "-")
	if len(parts) != 5 {
		return "", false
	}
	for i, digits := range [5]int{8, 4, 4, 4, 12} {
		if _, err := hex.DecodeString(parts[i]); err != nil || len(parts[i]) != digits {
			return "", false
		}
	}
	if strings.Trim(s, "0-") == "" {
		return "", true
	}
	return strings.ToLower(s), true
}
