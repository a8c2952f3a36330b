package parallels

import (
	"context"
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"math"

	"glanced/backends/stored"
	"glanced/formats"
)

const (
	extensionMagic = 0xab234cef23dcea87
	endOfFeatures  = 0
	dirtyBitmap    = 0x20385fae252cb34a

	featureNecessary = 1 << 0 // bit of a feature's flags

	extensionHeader = 24 // bytes: magic, MD5 of the rest
	featureHeader   = 24 // bytes: magic, flags, data size, padding
	bitmapHeader    = 32 // bytes of a dirty bitmap's data before its table

	// maxExtension bounds the cluster of the Format Extension, bytes: it is read
	// whole, for its checksum. Clusters are 1 MiB.
	maxExtension = 16 << 20
)

// readExtension checks the Format Extension ("Format Extension"), and returns the
// ids of the dirty bitmaps in it. What is in a bitmap is not read. An unknown
// feature is left alone, unless it is said to be necessary. That the extension is
// at a whole cluster is not asked for: ploop puts it at the end of the file.
func (h *header) readExtension(ctx context.Context, src stored.Bytes) ([]string, error) {
	switch {
	case h.extOff > math.MaxInt64/sector, int64(h.extOff)*sector > src.Size()-h.cluster():
		return nil, fmt.Errorf("%w: the ploop Format Extension at sector %d passes the end of the file (%d bytes)", formats.ErrCorrupt, h.extOff, src.Size())
	case int64(h.extOff)*sector < h.dataAt():
		return nil, fmt.Errorf("%w: the ploop Format Extension is said to be at sector %d, before the data, which begins at %d", formats.ErrCorrupt, h.extOff, h.dataAt())
	case h.cluster() > maxExtension:
		return nil, fmt.Errorf("%w: a ploop Format Extension of %d bytes; the most is %d", formats.ErrLimit, h.cluster(), maxExtension)
	}
	b := make([]byte, h.cluster())
	if err := src.ReadAt(ctx, b, int64(h.extOff)*sector); err != nil {
		return nil, fmt.Errorf("read the ploop Format Extension: %w", err)
	}
	if magic := binary.LittleEndian.Uint64(b); magic != extensionMagic {
		return nil, fmt.Errorf("%w: the ploop Format Extension at sector %d has the magic %#x", formats.ErrCorrupt, h.extOff, magic)
	}
	if md5.Sum(b[extensionHeader:]) != [md5.Size]byte(b[8:extensionHeader]) {
		return nil, fmt.Errorf("%w: the ploop Format Extension at sector %d has a wrong checksum", formats.ErrCorrupt, h.extOff)
	}
	return parseFeatures(b[extensionHeader:])
}

// parseFeatures walks the feature sections.
func parseFeatures(b []byte) (bitmaps []string, err error) {
	le := binary.LittleEndian
	for len(b) >= featureHeader {
		magic, flags, size := le.Uint64(b), le.Uint64(b[8:]), int64(le.Uint32(b[16:]))
		if magic == endOfFeatures {
			return bitmaps, nil
		}
		b = b[featureHeader:]
		if size > int64(len(b)) {
			break
		}
		switch {
		case magic == dirtyBitmap && size < bitmapHeader:
			return nil, fmt.Errorf("%w: a ploop dirty bitmap of %d bytes; it has %d at least", formats.ErrCorrupt, size, bitmapHeader)
		case magic == dirtyBitmap:
			id := b[8:24]
			bitmaps = append(bitmaps, fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]))
		case flags&featureNecessary != 0:
			return nil, fmt.Errorf("%w: the ploop feature %#x, which is unknown here and said to be necessary", formats.ErrUnsupported, magic)
		}
		b = b[min((size+7)&^7, int64(len(b))):]
	}
	return nil, fmt.Errorf("%w: the features of the ploop Format Extension do not end within it", formats.ErrCorrupt)
}
