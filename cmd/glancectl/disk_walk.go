package main

import (
	"context"

	"glanced/formats"
)

// walkUnit is the step past a bad place where the format has no clusters, bytes.
const walkUnit = 64 << 10

// unitOf is what a disk is looked at in, at the least: a cluster.
func unitOf(d *formats.Disk) int64 {
	if n := d.Info().ClusterSize; n > 0 {
		return n
	}
	return walkUnit
}

// walkMap hands visit the extents of the whole disk, in order, some at a time.
// Where the map cannot be read, bad gets the smallest part that fails, of a
// cluster at most; it says whether to go on behind it. An error of either ends
// the walk.
func walkMap(ctx context.Context, d *formats.Disk, visit func([]formats.Extent) error, bad func(off, n int64, err error) error) error {
	const most = 16 << 10 // extents at a time: some 1.5 MiB
	batch := make([]formats.Extent, 0, most)
	unit, size := unitOf(d), d.Size()
	span := size // how much is asked for at once
	for at := int64(0); at < size; {
		n := min(span, size-at)
		batch = batch[:0]
		err := d.Extents(ctx, at, n, func(x formats.Extent) bool {
			batch = append(batch, x)
			return len(batch) < most
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil:
			if err := visit(batch); err != nil {
				return err
			}
			at = batch[len(batch)-1].End()
			if span *= 2; span <= 0 || span > size {
				span = size
			}
		case n <= unit-at%unit:
			if err := bad(at, n, err); err != nil {
				return err
			}
			at += n
		default: // somewhere in it: look at half
			span = max(unit-at%unit, n/2/unit*unit-at%unit)
		}
	}
	return nil
}

// piece is a part of the guest disk that holds data.
type piece struct{ off, n int64 }

// readSize is how much is read at once, bytes: enough clusters for all cores.
const readSize = 512 << 10

// walkData hands each the parts of the disk that hold data, in order and cut at
// multiples of size. bad: see walkMap.
func walkData(ctx context.Context, d *formats.Disk, size int64, each func(piece) error, bad func(off, n int64, err error) error) error {
	var p piece // not yet handed on
	flush := func() error {
		if p.n == 0 {
			return nil
		}
		done := p
		p.n = 0
		return each(done)
	}
	err := walkMap(ctx, d, func(batch []formats.Extent) error {
		for _, x := range batch {
			if !x.Kind.Stored() {
				continue
			}
			for x.Len > 0 {
				if p.n > 0 && (p.off+p.n != x.Off || x.Off%size == 0) {
					if err := flush(); err != nil {
						return err
					}
				}
				if p.n == 0 {
					p.off = x.Off
				}
				n := min(x.Len, size-x.Off%size)
				p.n += n
				x.Off, x.Len = x.Off+n, x.Len-n
			}
		}
		return nil
	}, bad)
	if err != nil {
		return err
	}
	return flush()
}

// pieceSize is readSize, or as much as a compressed cluster of d has.
func pieceSize(d *formats.Disk) int64 {
	const most = 16 << 20 // what the engine decodes at once at most
	return max(readSize, min(unitOf(d), most))
}
