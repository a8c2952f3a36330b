package qcow2

import (
	"encoding/binary"
	"math/bits"

	"glanced/formats"
)

// Parts of L1 and L2 entries ("Cluster mapping" in the specification).
const (
	offsetMask     = 0x00fffffffffffe00 // bits 9 to 55
	l1Reserved     = 0x7f000000000001ff // bits 0 to 8, 56 to 62
	l2Reserved     = 0x3f000000000001fe // bits 1 to 8, 56 to 61
	compressedFlag = 1 << 62
	copiedFlag     = 1 << 63
	zeroFlag       = 1 // version 3, standard entries
)

const subclusters = 32 // of a cluster with an extended entry

// mapCluster adds the cluster at a guest offset, of entry i of the slice b of an L2
// table, and those after it that nothing is stored of either, by the same entry. It is
// how many it has added.
func (l *layout) mapCluster(r *formats.Run, guest int64, b []byte, i int) (int64, error) {
	size := int(l.entrySize())
	entry := binary.BigEndian.Uint64(b[i*size:])
	if entry&compressedFlag != 0 {
		return 1, l.mapCompressed(r, guest, entry)
	}
	reserved := uint64(l2Reserved)
	if l.version < 3 || l.has(extendedL2) {
		reserved |= zeroFlag
	}
	if entry&reserved != 0 {
		return 1, corruptf("L2 entry %#x: reserved bits are set", entry)
	}
	host := int64(entry & offsetMask)
	if host%l.clusterSize() != 0 {
		return 1, corruptf("L2 entry %#x points to %d: not aligned to a cluster", entry, host)
	}
	// In a data file, a cluster may lie at 0; the copied flag tells it from none.
	allocated := host != 0 || l.dataFile != nil && entry&copiedFlag != 0
	if l.has(extendedL2) {
		return 1, l.mapSubclusters(r, guest, host, allocated, binary.BigEndian.Uint64(b[i*size+8:]))
	}
	kind := formats.Absent
	switch {
	case entry&zeroFlag != 0:
		kind = formats.Zero
	case allocated:
		return 1, l.mapData(r, guest, l.clusterSize(), host, 0)
	}
	n := formats.Same(b, size, i, (r.End()-guest-1)>>l.clusterBits+1)
	r.Add(formats.Extent{Off: guest, Len: min(n<<l.clusterBits, l.disk.size-guest), Kind: kind})
	return n, nil
}

// mapSubclusters adds a cluster with an extended L2 entry: the low half of bitmap
// says which subclusters are allocated, the high half which read as zeros.
func (l *layout) mapSubclusters(r *formats.Run, guest, host int64, allocated bool, bitmap uint64) error {
	alloc, zero := uint32(bitmap), uint32(bitmap>>32)
	if alloc&zero != 0 {
		return corruptf("subclusters %#x are both allocated and zero", alloc&zero)
	}
	if alloc != 0 && !allocated {
		return corruptf("subclusters %#x are allocated in a cluster that is not", alloc)
	}
	size := l.clusterSize() / subclusters
	for i := 0; i < subclusters; {
		// A run of equals ends where either bitmap changes.
		n := min(sameBits(alloc>>i), sameBits(zero>>i), subclusters-i)
		off, length := int64(i)*size, int64(n)*size
		switch {
		case alloc>>i&1 != 0:
			if err := l.mapData(r, guest+off, length, host, off); err != nil {
				return err
			}
		case zero>>i&1 != 0:
			r.Add(formats.Extent{Off: guest + off, Len: length, Kind: formats.Zero})
		default:
			r.Add(formats.Extent{Off: guest + off, Len: length, Kind: formats.Absent})
		}
		i += n
	}
	return nil
}

// sameBits is how many of the lowest bits are equal.
func sameBits(b uint32) int {
	if b&1 != 0 {
		b = ^b
	}
	return bits.TrailingZeros32(b)
}

// mapData adds n bytes that lie skip bytes into the cluster at a host offset.
//
// The file's last cluster may be short: what is missing reads as zeros, as in
// QEMU. A cluster that is missing whole is corruption.
func (l *layout) mapData(r *formats.Run, guest, n, host, skip int64) error {
	src, number := l.clusters()
	if host >= src.Size() {
		return corruptf("it lies at %d, past the end of the file (%d bytes)", host, src.Size())
	}
	stored := min(n, max(0, src.Size()-host-skip))
	r.Add(formats.Extent{Off: guest, Len: stored, Kind: formats.Data, Src: number, Pos: host + skip, N: stored})
	r.Add(formats.Extent{Off: guest + stored, Len: n - stored, Kind: formats.Zero})
	return nil
}

// mapCompressed adds a compressed cluster. Its entry holds a byte offset, and
// above it the number of sectors beyond the one in which the bytes begin.
func (l *layout) mapCompressed(r *formats.Run, guest int64, entry uint64) error {
	if l.dataFile != nil {
		return corruptf("L2 entry %#x: a compressed cluster in an image with a data file", entry)
	}
	offsetBits := 62 - (l.clusterBits - 8)
	host := int64(entry & (1<<offsetBits - 1))
	more := int64(entry &^ copiedFlag &^ compressedFlag >> offsetBits)
	if host >= l.image.Size() {
		return corruptf("its compressed bytes lie at %d, past the end of the image (%d bytes)", host, l.image.Size())
	}
	r.Add(formats.Extent{
		Off: guest, Len: l.clusterSize(), Kind: formats.Compressed,
		Pos: host, N: min((more+1)*512-host%512, l.image.Size()-host),
		Codec: l.codec, Full: l.clusterSize(),
	})
	return nil
}
