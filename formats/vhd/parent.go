package vhd

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"

	"glanced/backends/stored"
	"glanced/formats"
)

// Platform codes ("Parent Locator Entries") of names that are text.
const (
	platformW2ru = 0x57327275 // Windows path relative to the child, UTF-16 little-endian
	platformW2ku = 0x57326b75 // absolute Windows path, the same
	platformMacX = 0x4d616358 // file URL, UTF-8
)

// maxLocator bounds what is read of a parent's name, bytes. In UTF-8 it stays
// within what a Ref may have.
const maxLocator = 2 << 10

// parent is the reference to the parent of a differencing disk. Its identity is
// the parent's unique id; the time stamp that the header has of the parent's file
// says nothing in a store, where files are copies and do not change.
//
// The parent's name is in the header, for all platforms; the locators say where
// to look for it, and are asked only where the header does not name it.
func (h *header) parent(ctx context.Context, src stored.Bytes, end int64) (formats.Ref, error) {
	ref := formats.Ref{Kind: formats.RefParent, Format: "vhd", Identity: identity(h.parentID)}
	if ref.Identity == "" {
		return ref, fmt.Errorf("%w: a differencing vhd without its parent's unique id", formats.ErrCorrupt)
	}
	ref.Name = fromUTF16(binary.BigEndian, h.parentName)
	for _, platform := range []uint32{platformW2ru, platformW2ku, platformMacX} {
		for _, l := range h.locators {
			if ref.Name != "" || l.platform != platform {
				continue
			}
			var err error
			if ref.Name, err = l.name(ctx, src, end); err != nil {
				return ref, err
			}
		}
	}
	if ref.Name == "" {
		ref.Name = ref.Identity // so that there is something to call it by
	}
	return ref, nil
}

// name reads the text that l points at.
func (l *locator) name(ctx context.Context, src stored.Bytes, end int64) (string, error) {
	if l.off > uint64(end) || int64(l.length) > end-int64(l.off) {
		return "", fmt.Errorf("%w: the name of the vhd's parent (%d bytes at %d) is not before its footer (at %d)", formats.ErrCorrupt, l.length, l.off, end)
	}
	b := make([]byte, min(l.length, maxLocator))
	if err := src.ReadAt(ctx, b, int64(l.off)); err != nil {
		return "", fmt.Errorf("read the name of the vhd's parent: %w", err)
	}
	if l.platform == platformMacX {
		b, _, _ = bytes.Cut(b, []byte{0})
		return strings.ToValidUTF8(string(b), "\uFFFD"), nil
	}
	return fromUTF16(binary.LittleEndian, b), nil
}

// fromUTF16 decodes b up to its first NUL; what is no text becomes U+FFFD.
func fromUTF16(order binary.ByteOrder, b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := order.Uint16(b)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
