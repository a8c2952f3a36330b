package encode

import (
	"context"
	"encoding/binary"
	"fmt"

	"glanced/formats"
)

// copied is set in an L1 or L2 entry whose cluster has a refcount of exactly one,
// as all have here.
const copied = 1 << 63

// Size is the length of the image in bytes.
func (q *qcow2) Size() int64 { return q.total * q.cluster }

// ReadAt makes the bytes of the image from off on. It reads of the disk what lies
// in p, guest clusters that follow each other at once.
func (q *qcow2) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > q.Size()-int64(len(p)) {
		return fmt.Errorf("%w: %d bytes at %d of a qcow2 of %d", formats.ErrRange, len(p), off, q.Size())
	}
	for _, part := range q.parts {
		if off >= part.end || len(p) == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(part.end-off, int64(len(p)))
		if err := part.fill(ctx, p[:n], off-part.off); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

func (q *qcow2) fillHeader(_ context.Context, p []byte, at int64) error {
	clear(p)
	if at < headerLength {
		copy(p, q.header[at:])
	}
	return nil
}

// fillRefTable makes the refcount table: where the refcount blocks lie.
func (q *qcow2) fillRefTable(_ context.Context, p []byte, at int64) error {
	clear(p)
	for i := at / 8; i < min(q.refBlocks, ceil(at+int64(len(p)), 8)); i++ {
		putEntry(p, i*8-at, uint64(q.refBlocksOff+i*q.cluster))
	}
	return nil
}

// fillRefBlocks makes the refcounts: 1 for each cluster of the image, 0 for what
// the last block counts beyond.
func (q *qcow2) fillRefBlocks(_ context.Context, p []byte, at int64) error {
	const size = refcountBits / 8
	for i := range p {
		p[i] = 0
		if n := at + int64(i); n%size == size-1 && n/size < q.total {
			p[i] = 1
		}
	}
	return nil
}

func (q *qcow2) fillL1(_ context.Context, p []byte, at int64) error {
	q.fillEntries(p, at, &q.tables, 0, q.l2Off)
	return nil
}

func (q *qcow2) fillL2(ctx context.Context, p []byte, at int64) error {
	for len(p) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		table, _ := q.tables.run(at/q.cluster, 1)
		in := at % q.cluster
		n := min(q.cluster-in, int64(len(p)))
		q.fillEntries(p[:n], in, &q.clusters, table*q.entries(), q.dataOff)
		p, at = p[n:], at+n
	}
	return nil
}

// fillEntries makes a part of a table, from at bytes into it on. Its first entry
// is for number first of members, which lie one after the other from host offset
// host on.
func (q *qcow2) fillEntries(p []byte, at int64, members *set, first, host int64) {
	clear(p)
	to := first + ceil(at+int64(len(p)), 8)
	for k := members.rank(first + at/8); k < members.len; {
		from, n := members.run(k, q.entries())
		for i := from; i < min(from+n, to); i++ {
			putEntry(p, (i-first)*8-at, copied|uint64(host+k*q.cluster))
			k++
		}
		if from+n >= to {
			return
		}
	}
}

// putEntry writes what of a table entry that begins at offset at of p lies in p.
func putEntry(p []byte, at int64, entry uint64) {
	if at >= 0 && at <= int64(len(p))-8 {
		binary.BigEndian.PutUint64(p[at:], entry)
		return
	}
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], entry)
	if at < 0 {
		copy(p, b[-at:])
	} else {
		copy(p[at:], b[:])
	}
}

// fillData reads guest clusters. The disk itself makes the zeros of what its map
// says is not there, without reading.
func (q *qcow2) fillData(ctx context.Context, p []byte, at int64) error {
	for len(p) > 0 {
		k, in := at/q.cluster, at%q.cluster
		first, n := q.clusters.run(k, ceil(in+int64(len(p)), q.cluster))
		n = min(n*q.cluster-in, int64(len(p)))

		guest := first*q.cluster + in
		stored := min(n, max(q.disk.Size()-guest, 0)) // the disk may end within its last cluster
		if stored > 0 {
			if err := q.disk.ReadAt(ctx, p[:stored], guest); err != nil {
				return err
			}
		}
		clear(p[stored:n])
		p, at = p[n:], at+n
	}
	return nil
}
