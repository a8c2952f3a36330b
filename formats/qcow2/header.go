package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"glanced/backends/stored"
	"glanced/formats"
)

const (
	magic    = "QFI\xfb"
	lengthV2 = 72  // bytes of a version 2 header
	lengthV3 = 104 // bytes of the shortest version 3 header

	minClusterBits = 9
	maxClusterBits = 21
	minExtendedL2  = 14 // cluster bits that extended L2 entries need at least

	maxL1Bytes     = 32 << 20 // QEMU's own limit
	maxBackingName = 1023     // bytes; QEMU's own limit, as in the specification
)

// Values of crypt_method.
const (
	cryptNone = 0
	cryptAES  = 1
	cryptLUKS = 2
)

// Bits of incompatible_features.
const (
	dirty           = 0 // refcounts are not to be trusted; a reader needs none
	corrupt         = 1
	externalData    = 2
	compressionType = 3
	extendedL2      = 4
	knownFeatures   = 5 // bits from here on are not known
)

// header is what the metadata in front of an image says, checked.
type header struct {
	version     uint32
	clusterBits uint
	crypt       uint32
	features    uint64 // incompatible features
	autoclear   uint64 // autoclear features
	codec       formats.Codec
	disk        table // the active disk
	snapshots   []snapshot
	bitmapNames []string
	refs        []formats.Ref // as found; the backing file first

	featureNames  map[int]string // of incompatible features, as the image calls them
	headerLength  int64
	backingOff    int64
	backingLen    int64
	snapshotsOff  int64
	snapshotCount int64
	bitmaps       bitmapDirectory

	// refused is why the image cannot be opened whatever its references are.
	refused error
}

// table is one disk inside the image: the active one, or a snapshot.
type table struct {
	size int64 // virtual size, bytes
	l1   int64 // host offset of its L1 table
	l1N  int64 // entries of that table
}

func (h *header) clusterSize() int64    { return int64(1) << h.clusterBits }
func (h *header) has(feature uint) bool { return h.features>>feature&1 != 0 }

// entrySize is the size of an L2 entry in bytes.
func (h *header) entrySize() int64 {
	if h.has(extendedL2) {
		return 16
	}
	return 8
}

// bytesPerTable is how much of the guest disk one L2 table maps: at most
// 2 MiB / 8 entries of 2 MiB.
func (h *header) bytesPerTable() int64 { return h.clusterSize() / h.entrySize() << h.clusterBits }

// readHeader reads the header, its extensions and the lists of snapshots and
// bitmaps. It fails where there is no qcow2 header to speak of; all else that is
// wrong is kept in refused.
func readHeader(ctx context.Context, src stored.Bytes) (*header, error) {
	if src.Size() < lengthV2 {
		return nil, fmt.Errorf("%w: %d bytes are too few for a qcow2 header", formats.ErrFormat, src.Size())
	}
	b := make([]byte, min(src.Size(), 112))
	if err := src.ReadAt(ctx, b, 0); err != nil {
		return nil, fmt.Errorf("read the qcow2 header: %w", err)
	}
	if !probe(b) {
		return nil, fmt.Errorf("%w: no qcow2 magic at the beginning", formats.ErrFormat)
	}
	h := &header{version: binary.BigEndian.Uint32(b[4:])}
	if h.version != 2 && h.version != 3 {
		h.refused = fmt.Errorf("%w: qcow2 version %d (2 and 3 are known)", formats.ErrUnsupported, h.version)
		return h, nil
	}
	bitsField := binary.BigEndian.Uint32(b[20:])
	if bitsField < minClusterBits || bitsField > maxClusterBits {
		return nil, corruptf("cluster_bits is %d, not %d to %d", bitsField, minClusterBits, maxClusterBits)
	}
	h.clusterBits = uint(bitsField)
	size := binary.BigEndian.Uint64(b[24:])
	if size > math.MaxInt64 {
		return nil, corruptf("a virtual size of %d bytes", size)
	}
	h.disk.size = int64(size)
	h.crypt = binary.BigEndian.Uint32(b[32:])

	err := h.read(ctx, b, src)
	if err != nil && !formats.IsRefusal(err) {
		return nil, err
	}
	h.refused = err
	return h, nil
}

// read reads the rest, given the first bytes; the first fault decides. What the
// image refers to comes first, so that it is reported beside most faults.
func (h *header) read(ctx context.Context, b []byte, src stored.Bytes) error {
	if err := h.fields(b); err != nil {
		return err
	}
	if err := h.backing(ctx, src); err != nil {
		return err
	}
	if err := h.extensions(ctx, src); err != nil {
		return err
	}
	if err := h.unknownFeatures(); err != nil {
		return err
	}
	if err := h.marks(); err != nil {
		return err
	}
	if err := h.l1(b, src.Size()); err != nil {
		return err
	}
	if err := h.readSnapshots(ctx, src); err != nil {
		return err
	}
	return h.readBitmaps(ctx, src)
}

// fields takes the fixed fields from b, the first bytes of the image.
func (h *header) fields(b []byte) error {
	backingOff := binary.BigEndian.Uint64(b[8:])
	snapshotsOff := binary.BigEndian.Uint64(b[64:])
	if backingOff > math.MaxInt64 || snapshotsOff > math.MaxInt64 {
		return corruptf("offsets beyond 2^63")
	}
	h.backingOff = int64(backingOff)
	h.backingLen = int64(binary.BigEndian.Uint32(b[16:]))
	h.snapshotCount = int64(binary.BigEndian.Uint32(b[60:]))
	h.snapshotsOff = int64(snapshotsOff)
	h.headerLength = lengthV2
	h.codec = formats.Deflate
	if h.version == 2 {
		return nil
	}
	if len(b) < lengthV3 {
		return corruptf("the image ends within its header")
	}
	h.features = binary.BigEndian.Uint64(b[72:])
	h.autoclear = binary.BigEndian.Uint64(b[88:])
	h.headerLength = int64(binary.BigEndian.Uint32(b[100:]))
	if h.headerLength < lengthV3 || h.headerLength > h.clusterSize() || h.headerLength%8 != 0 {
		return corruptf("header_length is %d", h.headerLength)
	}
	if order := binary.BigEndian.Uint32(b[96:]); order > 6 {
		return corruptf("refcount_order is %d, at most 6", order)
	}
	kind := byte(0)
	if h.headerLength > lengthV3 {
		if len(b) <= lengthV3 {
			return corruptf("the image ends within its header")
		}
		kind = b[lengthV3]
	}
	switch {
	case (kind != 0) != h.has(compressionType):
		return corruptf("compression type %d does not agree with incompatible feature bit %d", kind, compressionType)
	case kind == 1:
		h.codec = formats.Zstd
	case kind > 1:
		return fmt.Errorf("%w: compression type %d (0 = zlib, 1 = zstd are known)", formats.ErrUnsupported, kind)
	}
	if h.has(extendedL2) && h.clusterBits < minExtendedL2 {
		return corruptf("extended L2 entries with clusters of %d bytes, at least %d", h.clusterSize(), 1<<minExtendedL2)
	}
	return nil
}

// marks refuses what the header says of the whole image.
func (h *header) marks() error {
	switch {
	case h.has(corrupt):
		return corruptf("it is marked so; qemu-img check -r all may repair it")
	case h.crypt == cryptAES, h.crypt == cryptLUKS:
		return fmt.Errorf("%w: qcow2 encryption method %d", formats.ErrEncrypted, h.crypt)
	case h.crypt != cryptNone:
		return fmt.Errorf("%w: encryption method %d", formats.ErrUnsupported, h.crypt)
	}
	return nil
}

// backing takes the backing file's name.
func (h *header) backing(ctx context.Context, src stored.Bytes) error {
	if h.backingOff == 0 {
		return nil
	}
	if h.backingLen < 1 || h.backingLen > maxBackingName ||
		h.backingOff < h.headerLength || h.backingOff > min(h.clusterSize(), src.Size())-h.backingLen {
		return corruptf("a backing file name of %d bytes at %d", h.backingLen, h.backingOff)
	}
	name := make([]byte, h.backingLen)
	if err := src.ReadAt(ctx, name, h.backingOff); err != nil {
		return fmt.Errorf("read the backing file's name: %w", err)
	}
	h.refs = append(h.refs, formats.Ref{Kind: formats.RefBacking, Name: text(name)})
	return nil
}

// l1 takes the place of the active L1 table.
func (h *header) l1(b []byte, fileSize int64) error {
	h.disk.l1N = int64(binary.BigEndian.Uint32(b[36:]))
	off := binary.BigEndian.Uint64(b[40:])
	if off > math.MaxInt64 {
		return corruptf("an L1 table at %d", off)
	}
	h.disk.l1 = int64(off)
	return h.checkL1(h.disk, fileSize)
}

// checkL1 checks that a disk's L1 table lies in an image of fileSize bytes, and is
// long enough for the disk.
func (h *header) checkL1(t table, fileSize int64) error {
	if t.l1N > maxL1Bytes/8 {
		return fmt.Errorf("%w: an L1 table of %d entries, at most %d", formats.ErrLimit, t.l1N, maxL1Bytes/8)
	}
	if need := h.l1Entries(t.size); t.l1N < need {
		return corruptf("an L1 table of %d entries, where a disk of %d bytes needs %d", t.l1N, t.size, need)
	}
	if t.l1N == 0 {
		return nil
	}
	if t.l1 < h.clusterSize() || t.l1%h.clusterSize() != 0 {
		return corruptf("an L1 table at %d: not a cluster of its own", t.l1)
	}
	if t.l1N*8 > fileSize-t.l1 {
		return corruptf("an L1 table of %d entries at %d passes the end of the image (%d bytes)", t.l1N, t.l1, fileSize)
	}
	return nil
}

// l1Entries is how many L1 entries a disk of size bytes needs.
func (h *header) l1Entries(size int64) int64 {
	per := h.bytesPerTable()
	n := size / per
	if size%per != 0 {
		n++
	}
	return n
}

// unknownFeatures refuses incompatible features that are not known.
func (h *header) unknownFeatures() error {
	unknown := h.features >> knownFeatures << knownFeatures
	if unknown == 0 {
		return nil
	}
	var names []string
	for f := unknown; f != 0; f &= f - 1 {
		bit := bits.TrailingZeros64(f)
		name := fmt.Sprintf("bit %d", bit)
		if s := h.featureNames[bit]; s != "" {
			name += fmt.Sprintf(" (%q)", s)
		}
		names = append(names, name)
	}
	return fmt.Errorf("%w: unknown incompatible features: %s", formats.ErrUnsupported, strings.Join(names, ", "))
}

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{formats.ErrCorrupt}, args...)...)
}

// text is a name as it may be shown: valid UTF-8.
func text(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// quote shows a name in an error: one line, and not all of a long one.
func quote(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return strconv.Quote(s)
}
