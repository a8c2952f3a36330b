package qcow2

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// Types of header extensions that matter to a reader; others are skipped, as the
// specification wants.
const (
	extEnd           = 0
	extBackingFormat = 0xe2792aca
	extFeatureNames  = 0x6803f857
	extDataFile      = 0x44415441
	extBitmaps       = 0x23852875
)

// diskFormat is QEMU's word for a format as Glance has it.
func diskFormat(word string) string {
	switch word {
	case "vpc":
		return "vhd"
	case "parallels":
		return "ploop"
	}
	return word
}

const (
	maxExtensions    = 64 << 10 // bytes of all extensions together; QEMU writes under 1 KiB
	maxBackingFormat = 15       // bytes; QEMU's own limit
	maxDataFileName  = 1023     // bytes; QEMU's own limit
	featureNameSize  = 48       // bytes of an entry in the feature name table: type, bit, name
)

// extensions takes what matters from the header extensions. They lie between the
// header and the backing file's name, or the end of the first cluster.
func (h *header) extensions(ctx context.Context, src stored.Bytes) error {
	end := h.clusterSize()
	if h.backingOff != 0 {
		end = h.backingOff
	}
	end = min(end, src.Size(), h.headerLength+maxExtensions)
	if end <= h.headerLength {
		h.noteDataFile("")
		return nil
	}
	b := make([]byte, end-h.headerLength)
	if err := src.ReadAt(ctx, b, h.headerLength); err != nil {
		return fmt.Errorf("read the header extensions: %w", err)
	}
	name := ""
	for len(b) >= 8 {
		kind, n := binary.BigEndian.Uint32(b), int64(binary.BigEndian.Uint32(b[4:]))
		b = b[8:]
		if kind == extEnd {
			break
		}
		if n > int64(len(b)) {
			return corruptf("a header extension of type %#x and %d bytes does not fit in front of %d", kind, n, end)
		}
		content := b[:n]
		b = b[min((n+7)&^7, int64(len(b))):]
		switch kind {
		case extBackingFormat:
			if n > maxBackingFormat {
				return corruptf("a backing format name of %d bytes, at most %d", n, maxBackingFormat)
			}
			if len(h.refs) > 0 {
				h.refs[0].Format = diskFormat(text(content))
			}
		case extFeatureNames:
			h.nameFeatures(content)
		case extDataFile:
			if n > maxDataFileName {
				return corruptf("a data file name of %d bytes, at most %d", n, maxDataFileName)
			}
			name = text(content)
		case extBitmaps:
			if err := h.bitmapExtension(content); err != nil {
				return err
			}
		}
	}
	h.noteDataFile(name)
	return nil
}

// noteDataFile notes the external data file, where the image has one.
func (h *header) noteDataFile(name string) {
	if h.has(externalData) {
		h.refs = append(h.refs, formats.Ref{Kind: formats.RefDataFile, Name: name, Format: "raw"})
	}
}

// nameFeatures takes the names of incompatible features (type 0) from the
// feature name table.
func (h *header) nameFeatures(b []byte) {
	h.featureNames = make(map[int]string)
	for ; len(b) >= featureNameSize; b = b[featureNameSize:] {
		if b[0] != 0 || b[1] > 63 {
			continue
		}
		name, _, _ := bytes.Cut(b[2:featureNameSize], []byte{0})
		h.featureNames[int(b[1])] = text(name)
	}
}
