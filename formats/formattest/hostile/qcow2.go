package hostile

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"math"

	"glanced/formats"
)

var be = binary.BigEndian

// Fields of the qcow2 header ("Header" in QEMU's docs/interop/qcow2.rst).
const (
	qVersion, qBackingOff, qBackingLen, qClusterBits, qSize, qCrypt = 4, 8, 16, 20, 24, 32
	qL1Size, qL1Off, qSnapshots, qSnapshotsOff                      = 36, 40, 60, 64
	qFeatures, qRefcountOrder, qHeaderLength, qCompression          = 72, 96, 100, 104

	qCluster    = 4 << 10
	qL1         = 1 * qCluster
	qL2         = 2 * qCluster
	qData       = 3 * qCluster
	qPacked     = 4 * qCluster
	qLength     = 5 * qCluster
	qCompressed = 1 << 62
)

// qcow2 is a small image of version 3: a disk of 2 MiB with a cluster of data, a
// compressed one, and holes.
func qcow2() []byte {
	b := make([]byte, qLength)
	copy(b, "QFI\xfb")
	be.PutUint32(b[qVersion:], 3)
	be.PutUint32(b[qClusterBits:], 12)
	be.PutUint64(b[qSize:], 2<<20)
	be.PutUint32(b[qL1Size:], 1)
	be.PutUint64(b[qL1Off:], qL1)
	be.PutUint32(b[qRefcountOrder:], 4)
	be.PutUint32(b[qHeaderLength:], 112)
	be.PutUint64(b[qL1:], qL2|1<<63)
	be.PutUint64(b[qL2:], qData|1<<63)
	copy(b[qData:], bytes.Repeat([]byte("guest data. "), qCluster/12))
	qcow2Pack(b, deflated(bytes.Repeat([]byte{'x'}, qCluster)))
	return b
}

// qcow2Pack makes packed the compressed bytes of the second cluster.
func qcow2Pack(b, packed []byte) {
	clear(b[qPacked:])
	sectors := (copy(b[qPacked:], packed)+511)/512 - 1
	be.PutUint64(b[qL2+8:], qPacked|uint64(max(sectors, 0))<<58|qCompressed)
}

func deflated(b []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestCompression) // the level is a good one
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// qcow2Extension appends a header extension to an image without any other.
func qcow2Extension(b []byte, kind uint32, content []byte) {
	be.PutUint32(b[112:], kind)
	be.PutUint32(b[116:], uint32(len(content)))
	copy(b[120:], content)
}

func qcow2Backing(b []byte, name string) []byte {
	be.PutUint64(b[qBackingOff:], 2048)
	be.PutUint32(b[qBackingLen:], uint32(copy(b[2048:4096], name)))
	return b
}

func qcow2Images() []Image {
	m := &maker{format: "qcow2", container: "bare"}
	edit := func(class Class, name string, want error, step Step, change func(b []byte)) {
		b := qcow2()
		change(b)
		m.add(class, name, want, step, b)
	}
	set32 := func(at int, v uint32) func([]byte) { return func(b []byte) { be.PutUint32(b[at:], v) } }
	set64 := func(at int, v uint64) func([]byte) { return func(b []byte) { be.PutUint64(b[at:], v) } }
	corrupt, limit, unsupported := formats.ErrCorrupt, formats.ErrLimit, formats.ErrUnsupported

	edit(Chain, "its own backing file", formats.ErrReference, Open, func(b []byte) { qcow2Backing(b, "hostile.img") })

	edit(Sizes, "an L1 table of 32 GiB", limit, Open, set32(qL1Size, math.MaxUint32))
	edit(Sizes, "an L1 table longer than the file", corrupt, Open, set32(qL1Size, 4<<20))
	edit(Sizes, "an L1 table at the end of the numbers", corrupt, Open, set64(qL1Off, math.MaxUint64&^(qCluster-1)))
	edit(Sizes, "an L1 table that overflows", corrupt, Open, set64(qL1Off, math.MaxInt64&^(qCluster-1)))
	edit(Sizes, "an L1 table shorter than the disk", corrupt, Open, set64(qSize, 1<<40))
	edit(Sizes, "the largest disk", corrupt, Open, set64(qSize, math.MaxInt64))
	edit(Sizes, "a negative disk", corrupt, Open, set64(qSize, 1<<63))
	edit(Sizes, "an extension of 4 GiB", corrupt, Open, func(b []byte) { qcow2Extension(b, 0x6803f857, nil); be.PutUint32(b[116:], math.MaxUint32) })
	edit(Sizes, "a header of 4 GiB", corrupt, Open, set32(qHeaderLength, math.MaxUint32&^7))
	edit(Sizes, "a backing name of 4 GiB", corrupt, Open, func(b []byte) { qcow2Backing(b, "x"); be.PutUint32(b[qBackingLen:], math.MaxUint32) })
	edit(Sizes, "four billion snapshots", limit, Open, func(b []byte) { be.PutUint32(b[qSnapshots:], math.MaxUint32); be.PutUint64(b[qSnapshotsOff:], qData) })
	edit(Sizes, "snapshots past the end", corrupt, Open, func(b []byte) { be.PutUint32(b[qSnapshots:], 1); be.PutUint64(b[qSnapshotsOff:], 1<<40) })
	edit(Sizes, "a snapshot with 4 GiB of extra data", limit, Open, func(b []byte) {
		be.PutUint32(b[qSnapshots:], 1)
		be.PutUint64(b[qSnapshotsOff:], qData)
		be.PutUint32(b[qData+36:], math.MaxUint32)
	})
	b := qcow2()
	be.PutUint32(b[qSnapshots:], 65536)
	be.PutUint64(b[qSnapshotsOff:], qLength)
	m.addFile(Sizes, "65536 empty snapshots of a sparse file", nil, Open, holed(b, 16<<20))
	b = bytes.Clone(b)
	be.PutUint32(b[qL1Size:], 4<<20)
	be.PutUint64(b[qSize:], 4<<20*2<<20)
	be.PutUint64(b[qL1Off:], 1<<20)
	be.PutUint32(b[qSnapshots:], 0)
	m.addFile(Sizes, "an L1 table of 32 MiB that is there, of a disk of 8 TiB", nil, Open, holed(b, 33<<20))

	for _, bits := range []uint32{0, 8, 22, 31, 32, 63, 64, math.MaxUint32} {
		edit(Clusters, "clusters of 2^"+decimal(bits), corrupt, Open, set32(qClusterBits, bits))
	}
	edit(Clusters, "extended entries in small clusters", corrupt, Open, set64(qFeatures, 1<<4))
	edit(Clusters, "refcounts of 2^32 bits", corrupt, Open, set32(qRefcountOrder, 32))

	edit(Entries, "version 4", unsupported, Open, set32(qVersion, 4))
	edit(Entries, "the corrupt bit", corrupt, Open, set64(qFeatures, 1<<1))
	edit(Entries, "an unknown feature", unsupported, Open, set64(qFeatures, 1<<40))
	edit(Entries, "an unknown compression", unsupported, Open, func(b []byte) { b[qFeatures+7], b[qCompression] = 1<<3, 9 })
	edit(Entries, "a compression type without its feature", corrupt, Open, func(b []byte) { b[qCompression] = 1 })
	edit(Entries, "an L2 table past the end", corrupt, Map, set64(qL1, 1<<40))
	edit(Entries, "an unaligned L2 table", corrupt, Map, set64(qL1, qL2+512))
	edit(Entries, "reserved bits of an L1 entry", corrupt, Map, set64(qL1, qL2|1))
	edit(Entries, "a cluster past the end", corrupt, Map, set64(qL2, 1<<40))
	edit(Entries, "the farthest cluster", corrupt, Map, set64(qL2, 1<<56-qCluster))
	edit(Entries, "an unaligned cluster", corrupt, Map, set64(qL2, qData+512))
	edit(Entries, "reserved bits of an L2 entry", corrupt, Map, set64(qL2, qData|1<<57))
	edit(Entries, "the zero flag in version 2", corrupt, Map, func(b []byte) { be.PutUint32(b[qVersion:], 2); be.PutUint64(b[qL2:], 1) })
	edit(Entries, "compressed bytes past the end", corrupt, Map, set64(qL2+8, math.MaxUint64))

	edit(Aliasing, "an L2 table that is the L1 table", nil, Open, set64(qL1, qL1))
	edit(Aliasing, "an L2 table that points to itself", nil, Open, set64(qL2, qL2))
	edit(Aliasing, "all clusters in one", nil, Open, func(b []byte) {
		for i := range qCluster / 8 {
			be.PutUint64(b[qL2+8*i:], qData)
		}
	})
	m.add(Time, "a disk of 512 GiB of one empty L2 table", corrupt, Map, qcow2Aliased(0))
	m.add(Time, "a disk of 512 GiB of one cluster", corrupt, Map, qcow2Aliased(qData))

	edit(Streams, "deflate of noise", corrupt, Read, func(b []byte) { qcow2Pack(b, bytes.Repeat([]byte("\xff\x00\xa5"), 300)) })
	edit(Streams, "deflate that is too short", corrupt, Read, func(b []byte) { qcow2Pack(b, deflated([]byte("short"))) })
	cut := qcow2()
	qcow2Pack(cut, []byte{0x00, 0xff, 0x0f, 0x00, 0xf0, 'x'}) // a stored block of 4095 bytes
	m.add(Streams, "deflate that is cut off by the end of the file", corrupt, Read, cut[:qPacked+6])
	edit(Streams, "deflate of 16 MiB for one cluster", corrupt, Read, func(b []byte) { qcow2Pack(b, deflated(make([]byte, 16<<20))[:4000]) })
	edit(Streams, "deflate of nothing", corrupt, Read, func(b []byte) { qcow2Pack(b, nil) })
	zstd := func(b []byte) { b[qFeatures+7], b[qCompression] = 1<<3, 1 }
	edit(Streams, "zstd of noise", corrupt, Read, func(b []byte) { zstd(b); qcow2Pack(b, bytes.Repeat([]byte("\xff\x00\xa5"), 300)) })
	edit(Streams, "zstd with a window of 3.75 TiB", corrupt, Read, func(b []byte) { zstd(b); qcow2Pack(b, zstdRepeats(0xff, 64)) })
	edit(Streams, "zstd with a window of 3.75 TiB, of the right size", corrupt, Read, func(b []byte) { zstd(b); qcow2Pack(b, zstdRepeats(0xff, qCluster)) })
	edit(Streams, "zstd of more than a cluster", corrupt, Read, func(b []byte) { zstd(b); qcow2Pack(b, zstdRepeats(0x50, 100<<10)) })
	edit(Streams, "zstd of empty frames", corrupt, Read, func(b []byte) { zstd(b); qcow2Pack(b, bytes.Repeat(zstdRepeats(0, 0), 300)) })

	m.add(Amplification, "1 GiB from one compressed cluster", nil, Open, qcow2Amplified(512))
	return m.images
}

// qcow2Aliased is a disk of 512 GiB whose L1 entries all name one L2 table, which
// is full of entry.
func qcow2Aliased(entry uint64) []byte {
	const tables = 256 << 10
	b := append(qcow2(), make([]byte, tables*8)...)
	be.PutUint64(b[qSize:], tables*(qCluster/8)*qCluster)
	be.PutUint32(b[qL1Size:], tables)
	be.PutUint64(b[qL1Off:], qLength)
	for i := range tables {
		be.PutUint64(b[qLength+8*i:], qL2)
	}
	for i := range qCluster / 8 {
		be.PutUint64(b[qL2+8*i:], entry)
	}
	return b
}

// qcow2Amplified is a disk of n clusters of 2 MiB, all of them the same 2 KiB.
func qcow2Amplified(n int) []byte {
	const cluster = 2 << 20
	packed := deflated(make([]byte, cluster))
	b := make([]byte, 3*cluster, 3*cluster+len(packed)+512)
	copy(b, qcow2()[:112])
	be.PutUint32(b[qClusterBits:], 21)
	be.PutUint64(b[qSize:], uint64(n)*cluster)
	be.PutUint64(b[qL1Off:], cluster)
	be.PutUint64(b[cluster:], 2*cluster|1<<63)
	for i := range n {
		be.PutUint64(b[2*cluster+8*i:], 3*cluster|uint64((len(packed)-1)/512)<<49|qCompressed)
	}
	b = append(b, packed...)
	return append(b, make([]byte, -len(b)&511)...)
}

// zstdRepeats is a zstd frame (RFC 8878) with this window descriptor, of n times x.
func zstdRepeats(window byte, n int) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0, window}
	if n == 0 {
		return append(b, 1, 0, 0) // the last block, raw, of no bytes
	}
	h := uint32(1 | 1<<1 | n<<3) // the last block, of one byte repeated
	return append(b, byte(h), byte(h>>8), byte(h>>16), 'x')
}

var qcow2Places = []place{
	{"qcow2", "bare", "a backing file", formats.ErrReference, func(name string) []byte { return qcow2Backing(qcow2(), name) }},
	{"qcow2", "bare", "a backing file of version 2", formats.ErrReference, func(name string) []byte {
		b := qcow2()
		be.PutUint32(b[qVersion:], 2)
		clear(b[72:120])
		return qcow2Backing(b, name)
	}},
	{"qcow2", "bare", "a data file", formats.ErrReference, func(name string) []byte {
		b := qcow2()
		b[qFeatures+7] = 1 << 2
		qcow2Extension(b, 0x44415441, []byte(name))
		return b
	}},
	{"qcow2", "bare", "a backing file and a data file", formats.ErrReference, func(name string) []byte {
		b := qcow2()
		b[qFeatures+7] = 1 << 2
		qcow2Extension(b, 0x44415441, []byte(name))
		return qcow2Backing(b, name)
	}},
}
