package encode

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"

	"glanced/formats"
	"glanced/formats/codec"
)

const (
	// batchLen is how many grains are read at once. It divides tableLen.
	batchLen = 8
	// mapSpan is how much of the disk's map is looked at in one go, bytes.
	mapSpan = 1 << 30
	// maxWorkers bounds memory where there are very many cores.
	maxWorkers = 16
)

// batch is grains that follow each other, all of one aligned group of batchLen,
// on their way from the disk into the file. It is used again and again.
type batch struct {
	first, n int64            // grains
	sectors  [batchLen]uint16 // that each takes in coded, padding included; 0 = it is zeros, and not there
	coded    []byte           // the grains with their markers, one after the other
	ready    chan struct{}    // told when coded is
}

// copyGrains hands the grains of d that are not all zeros to write, in order. They
// are read and compressed in parallel; when it returns, nothing of it runs on.
func copyGrains(ctx context.Context, d Disk, write func(*batch) error) error {
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	// Twice as many batches as workers, so that one that is slow holds up no other.
	free := make(chan *batch, 2*workers)
	for range cap(free) {
		free <- &batch{ready: make(chan struct{}, 1)}
	}
	queue := make(chan *batch, cap(free)) // in the order of the file
	work := make(chan *batch)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		defer close(work)
		return storedGrains(ctx, d, func(first, n int64) error {
			select {
			case b := <-free:
				b.first, b.n = first, n
				queue <- b // has room for all there are
				select {
				case work <- b:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	for range workers {
		g.Go(func() error {
			var e codec.Encoder
			defer e.Close()
			buf := make([]byte, batchLen*grainSize)
			for b := range work {
				if err := b.fill(ctx, d, &e, buf); err != nil {
					return err
				}
				b.ready <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error {
		for b := range queue {
			select {
			case <-b.ready:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := write(b); err != nil {
				return err
			}
			free <- b
		}
		return nil
	})
	return g.Wait()
}

// storedGrains yields the runs of grains, within groups of batchLen, that d's map
// does not say are zeros. The map is asked for mapSpan at a time: a writer that is
// slow must not keep the disk in the middle of its map.
func storedGrains(ctx context.Context, d Disk, yield func(first, n int64) error) error {
	stored := make([]bool, mapSpan/grainSize)
	for base := int64(0); base < d.Size(); base += mapSpan {
		if err := ctx.Err(); err != nil {
			return err
		}
		at, end := base, min(base+mapSpan, d.Size())
		some := false
		err := d.Extents(ctx, base, end-base, func(x formats.Extent) bool {
			at = x.End()
			for i := (x.Off - base) / grainSize; x.Kind.Stored() && i < ceil(x.End()-base, grainSize); i++ {
				stored[i], some = true, true
			}
			return true
		})
		if err != nil {
			return fmt.Errorf("write a vmdk: %w", err)
		}
		if at != end {
			return fmt.Errorf("write a vmdk: the map of the disk up to %d breaks off at %d", end, at)
		}
		if !some {
			continue
		}
		if err := groups(stored, base/grainSize, yield); err != nil {
			return err
		}
		clear(stored)
	}
	return nil
}

// groups yields for each group of batchLen grains what lies from its first stored
// one to its last; the first of all is number base.
func groups(stored []bool, base int64, yield func(first, n int64) error) error {
	for group := 0; group < len(stored); group += batchLen {
		from, to := group, group+batchLen
		for from < to && !stored[from] {
			from++
		}
		for from < to && !stored[to-1] {
			to--
		}
		if from < to {
			if err := yield(base+int64(from), int64(to-from)); err != nil {
				return err
			}
		}
	}
	return nil
}

// fill reads and compresses the batch's grains; buf has room for them all. A grain
// that the disk ends in is filled up with zeros: some readers want it whole.
func (b *batch) fill(ctx context.Context, d Disk, e *codec.Encoder, buf []byte) error {
	off := b.first * grainSize
	buf = buf[:b.n*grainSize]
	stored := min(int64(len(buf)), d.Size()-off)
	if err := d.ReadAt(ctx, buf[:stored], off); err != nil {
		return err
	}
	clear(buf[stored:])

	b.coded, b.sectors = b.coded[:0], [batchLen]uint16{}
	for i := range b.n {
		grain := buf[i*grainSize : (i+1)*grainSize]
		if isZero(grain) {
			continue
		}
		from := len(b.coded)
		b.coded = binary.LittleEndian.AppendUint64(b.coded, uint64((b.first+i)*(grainSize/sector)))
		b.coded = binary.LittleEndian.AppendUint32(b.coded, 0) // the length, once it is known
		var err error
		if b.coded, err = e.Zlib(b.coded, grain); err != nil {
			return fmt.Errorf("compress the grain at guest offset %d: %w", off+i*grainSize, err)
		}
		n := len(b.coded) - from
		binary.LittleEndian.PutUint32(b.coded[from+8:], uint32(n-grainMarker))
		b.sectors[i] = uint16(ceil(int64(n), sector))
		b.coded = append(b.coded, zeros[:int(b.sectors[i])*sector-n]...)
	}
	return nil
}

var zeros [grainSize]byte

// isZero reports whether a grain is all zeros.
func isZero(grain []byte) bool { return bytes.Equal(grain, zeros[:]) }
