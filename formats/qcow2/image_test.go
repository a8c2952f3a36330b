package qcow2_test

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"testing"
)

// image is a hand-made qcow2 image: the header's fields, and clusters appended
// one after the other. Its zero fields are those of a plain version 3 image.
type image struct {
	version      uint32
	clusterBits  uint32
	size         uint64
	crypt        uint32
	l1Size       uint32
	l1Off        uint64
	backingOff   uint64
	backingLen   uint32
	snapshots    uint32
	snapshotsOff uint64
	features     uint64
	autoclear    uint64
	refcountBits uint32 // refcount_order
	headerLength uint32
	compression  byte
	extensions   []byte // from the header's end
	b            []byte // the whole file; bytes writes the header over its beginning
}

const (
	clusterBits = 12
	cluster     = 1 << clusterBits
	copied      = 1 << 63
	compressed  = 1 << 62
)

// Where newImage puts things.
const (
	l1At   = 1 * cluster
	l2At   = 2 * cluster
	dataAt = 3 * cluster // two clusters, in one piece
	packAt = 5 * cluster // a compressed cluster
)

// newImage is a small valid disk of 3 MiB, mapped by two L2 tables of which one
// is there: two clusters of data, one absent, one zero, one zero with a
// preallocated cluster, one compressed, the rest absent.
func newImage(t testing.TB) *image {
	img := &image{
		version: 3, clusterBits: clusterBits, size: 3 << 20,
		l1Size: 2, l1Off: l1At, refcountBits: 4, headerLength: 112,
		b: make([]byte, 6*cluster),
	}
	img.set(l1At, l2At|copied)
	img.set(l2At, dataAt|copied)
	img.set(l2At+8, dataAt+cluster|copied)
	img.set(l2At+3*8, 1)
	img.set(l2At+4*8, dataAt+cluster|1)
	content := bytes.Repeat([]byte("some text. "), 2*cluster/11+1)
	copy(img.b[dataAt:], content[:2*cluster])
	packed := deflated(t, content[:cluster])
	copy(img.b[packAt+100:], packed)
	sectors := (100+len(packed)-1)/512 + 1
	img.set(l2At+5*8, uint64(packAt+100)|uint64(sectors-1)<<(62-(clusterBits-8))|compressed)
	return img
}

func deflated(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.BestCompression)
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// set writes a big-endian 64-bit number, growing the file as needed.
func (img *image) set(off int, v uint64) {
	if need := off + 8; need > len(img.b) {
		img.b = append(img.b, make([]byte, need-len(img.b))...)
	}
	binary.BigEndian.PutUint64(img.b[off:], v)
}

// extend appends a header extension.
func (img *image) extend(kind uint32, content []byte) {
	img.extensions = binary.BigEndian.AppendUint32(img.extensions, kind)
	img.extensions = binary.BigEndian.AppendUint32(img.extensions, uint32(len(content)))
	img.extensions = append(img.extensions, content...)
	img.extensions = append(img.extensions, make([]byte, -len(content)&7)...)
}

// name puts a backing file's name behind the extensions.
func (img *image) name(backing string) {
	img.backingOff, img.backingLen = 2048, uint32(len(backing))
	copy(img.b[2048:], backing)
}

// snapshotTable appends a table of snapshots with these names, ids 1, 2, ….
func (img *image) snapshotTable(names ...string) {
	img.b = append(img.b, make([]byte, -len(img.b)&(cluster-1))...)
	img.snapshots, img.snapshotsOff = uint32(len(names)), uint64(len(img.b))
	for i, name := range names {
		e := make([]byte, 40+16)
		binary.BigEndian.PutUint64(e, l1At)
		binary.BigEndian.PutUint32(e[8:], img.l1Size)
		binary.BigEndian.PutUint16(e[12:], 1)
		binary.BigEndian.PutUint16(e[14:], uint16(len(name)))
		binary.BigEndian.PutUint32(e[36:], 16)
		binary.BigEndian.PutUint64(e[48:], img.size)
		e = append(e, byte('1'+i))
		e = append(e, name...)
		img.b = append(img.b, e...)
		img.b = append(img.b, make([]byte, -len(e)&7)...)
	}
}

// bytes is the finished file.
func (img *image) bytes() []byte {
	h := make([]byte, 0, 112)
	u32 := func(v uint32) { h = binary.BigEndian.AppendUint32(h, v) }
	u64 := func(v uint64) { h = binary.BigEndian.AppendUint64(h, v) }
	h = append(h, "QFI\xfb"...)
	u32(img.version)
	u64(img.backingOff)
	u32(img.backingLen)
	u32(img.clusterBits)
	u64(img.size)
	u32(img.crypt)
	u32(img.l1Size)
	u64(img.l1Off)
	u64(0) // refcount table: of no interest to a reader
	u32(0)
	u32(img.snapshots)
	u64(img.snapshotsOff)
	if img.version >= 3 {
		u64(img.features)
		u64(0) // compatible
		u64(img.autoclear)
		u32(img.refcountBits)
		u32(img.headerLength)
		h = append(h, img.compression, 0, 0, 0, 0, 0, 0, 0)
	}
	if img.version >= 3 && img.headerLength == 104 {
		h = h[:104]
	}
	copy(img.b, append(h, img.extensions...))
	return img.b
}
