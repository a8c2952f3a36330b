package check

import (
	"context"

	"glanced/formats"
	"glanced/formats/engine"
)

// walkUnit is the step past a bad place where the format has no clusters, bytes.
const walkUnit = 64 << 10

// unitOf is what a disk is looked at in, at the least: a cluster.
func unitOf(d *engine.Disk) int64 {
	if n := d.Info().ClusterSize; n > 0 {
		return n
	}
	return walkUnit
}

// Walk hands visit the extents of the whole disk, in order, some at a time.
// Where the map cannot be read, bad gets the smallest part that fails, of a
// cluster at most; it says whether to go on behind it. An error of either ends
// the walk.
func Walk(ctx context.Context, d *engine.Disk, visit func([]formats.Extent) error, bad func(off, n int64, err error) error) error {
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

// Piece is a part of the guest disk that holds data: N bytes at Off.
type Piece struct{ Off, N int64 }

// readSize is how much is read at once, bytes: enough clusters for all cores.
const readSize = 512 << 10

// WalkData hands each the parts of the disk that hold data, in order and cut at
// multiples of size. bad: see Walk.
func WalkData(ctx context.Context, d *engine.Disk, size int64, each func(Piece) error, bad func(off, n int64, err error) error) error {
	var p Piece // not yet handed on
	flush := func() error {
		if p.N == 0 {
			return nil
		}
		done := p
		p.N = 0
		return each(done)
	}
	err := Walk(ctx, d, func(batch []formats.Extent) error {
		for _, x := range batch {
			if !x.Kind.Stored() {
				continue
			}
			for x.Len > 0 {
				if p.N > 0 && (p.Off+p.N != x.Off || x.Off%size == 0) {
					if err := flush(); err != nil {
						return err
					}
				}
				if p.N == 0 {
					p.Off = x.Off
				}
				n := min(x.Len, size-x.Off%size)
				p.N += n
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

// PieceSize is how much of d is read at once: readSize, or as much as a compressed cluster of d has.
func PieceSize(d *engine.Disk) int64 {
	const most = 16 << 20 // what the engine decodes at once at most
	return max(readSize, min(unitOf(d), most))
}
