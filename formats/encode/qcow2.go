package encode

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"glanced/formats"
)

const (
	sector = 512 // bytes

	// Clusters are of 64 KiB, as qemu-img makes them; larger ones, up to the
	// format's largest, where a disk would have more than maxClusters of them, so
	// that the set of them stays small however fragmented: 16 TiB with 64 KiB.
	minClusterBits = 16
	maxClusterBits = 21
	maxClusters    = maxMixed * pageLen

	refcountBits = 16
	headerLength = 104 // bytes of a version 3 header without additional fields

	// QEMU's limits on what an image may have, below those of the format.
	maxL1       = 32 << 20 // bytes of the L1 table
	maxRefTable = 8 << 20  // bytes of the refcount table
	// maxHost is the format's: an L2 entry has bits 9 to 55 for a host offset.
	maxHost = 1 << 56
)

// qcow2 is an image laid out, of which any part can be made.
type qcow2 struct {
	disk     Disk
	cluster  int64 // bytes
	clusters set   // of the guest's clusters, those that are stored
	tables   set   // of the L2 tables, those that are
	header   [headerLength]byte

	parts     []part // in order, without gaps; each begins with a cluster
	refBlocks int64  // number of refcount blocks
	total     int64  // clusters of the image
	// Host offsets.
	refBlocksOff, l2Off, dataOff int64
}

// part is one kind of clusters of an image. fill makes the bytes from at bytes
// into the part on.
type part struct {
	off, end int64
	fill     func(ctx context.Context, p []byte, at int64) error
}

// QCOW2 lays out d as a qcow2 image of version 3 (QEMU's docs/interop/qcow2.txt),
// without a backing file, its clusters not compressed: header, refcount table,
// refcount blocks, L1 table, the L2 tables that are needed, and in guest order the
// clusters that d's map does not say are zeros. It walks the map once and reads no
// data. The same map always gives the same image.
//
// The image's virtual size is d's, rounded up to whole sectors as qemu-img does:
// QEMU cuts off what is beyond the last whole sector. What is kept in memory is
// bounded by some 40 MiB, and small where the disk is not fragmented: 2 MiB for
// the worst disk of 1 TiB. Clusters are of 64 KiB up to a disk of 16 TiB, and
// larger beyond.
//
// It fails with ErrLimit where the disk is larger than QEMU opens, about 2^61
// bytes, or has more than 2^56 bytes stored, or is larger than 512 TiB and too
// fragmented.
func QCOW2(ctx context.Context, d Disk) (Image, error) {
	size := d.Size()
	if size > maxL1/8<<(maxClusterBits+maxClusterBits-3) {
		return nil, fmt.Errorf("%w: a disk of %d bytes is more than a qcow2 can hold", formats.ErrLimit, size)
	}
	clusterBits := minClusterBits
	for clusterBits < maxClusterBits && ceil(size, 1<<clusterBits) > maxClusters {
		clusterBits++
	}
	q := &qcow2{disk: d, cluster: 1 << clusterBits}
	if err := q.walk(ctx); err != nil {
		return nil, fmt.Errorf("lay out a qcow2: %w", err)
	}
	if err := q.layOut(); err != nil {
		return nil, err
	}
	return q, nil
}

// entries is how many entries an L2 table has.
func (q *qcow2) entries() int64 { return q.cluster / 8 }

// walk finds out which clusters and which tables there are to be.
func (q *qcow2) walk(ctx context.Context) error {
	var clusters, tables setBuilder
	at, size := int64(0), q.disk.Size()
	var bad error
	err := q.disk.Extents(ctx, 0, size, func(x formats.Extent) bool {
		at = x.End()
		if !x.Kind.Stored() {
			return true
		}
		from, to := x.Off/q.cluster, ceil(x.End(), q.cluster)
		if bad = clusters.add(from, to); bad == nil {
			bad = tables.add(from/q.entries(), ceil(to, q.entries()))
		}
		return bad == nil
	})
	if bad != nil {
		return bad
	}
	if err != nil {
		return err
	}
	if at != size {
		return fmt.Errorf("the map of a disk of %d bytes breaks off at %d", size, at)
	}
	if q.clusters, err = clusters.done(); err != nil {
		return err
	}
	q.tables, err = tables.done()
	return err
}

// layOut decides where everything lies.
func (q *qcow2) layOut() error {
	size := ceil(q.disk.Size(), sector) * sector
	l1 := ceil(ceil(size, q.cluster), q.entries()) // entries
	l1Clusters := ceil(l1*8, q.cluster)

	// The refcounts count the clusters that they lie in, too.
	rest := 1 + l1Clusters + q.tables.len + q.clusters.len
	refTable := int64(0) // clusters
	for grown := true; grown; {
		q.total = rest + refTable + q.refBlocks
		blocks := ceil(q.total*refcountBits/8, q.cluster)
		grown = blocks != q.refBlocks
		q.refBlocks, refTable = blocks, ceil(blocks*8, q.cluster)
	}
	if refTable*q.cluster > maxRefTable || q.total > maxHost/q.cluster {
		return fmt.Errorf("%w: %d clusters of %d bytes are more than a qcow2 can hold", formats.ErrLimit, q.clusters.len, q.cluster)
	}

	end := int64(0)
	add := func(clusters int64, fill func(context.Context, []byte, int64) error) (off int64) {
		off = end
		end += clusters * q.cluster
		q.parts = append(q.parts, part{off, end, fill})
		return off
	}
	add(1, q.fillHeader)
	refTableOff := add(refTable, q.fillRefTable)
	q.refBlocksOff = add(q.refBlocks, q.fillRefBlocks)
	l1Off := add(l1Clusters, q.fillL1)
	q.l2Off = add(q.tables.len, q.fillL2)
	q.dataOff = add(q.clusters.len, q.fillData)
	if l1 == 0 {
		l1Off = 0
	}

	h, be := q.header[:], binary.BigEndian
	copy(h, "QFI\xfb")
	be.PutUint32(h[4:], 3) // version
	be.PutUint32(h[20:], uint32(bits.TrailingZeros64(uint64(q.cluster))))
	be.PutUint64(h[24:], uint64(size))
	be.PutUint32(h[36:], uint32(l1))
	be.PutUint64(h[40:], uint64(l1Off))
	be.PutUint64(h[48:], uint64(refTableOff))
	be.PutUint32(h[56:], uint32(refTable))
	be.PutUint32(h[96:], uint32(bits.TrailingZeros64(uint64(refcountBits))))
	be.PutUint32(h[100:], headerLength)
	return nil
}

// ceil is a/b, rounded up.
func ceil(a, b int64) int64 {
	n := a / b
	if a%b != 0 {
		n++
	}
	return n
}
