package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"glanced/formats"
)

// checker looks at all of a guest disk: at its map, at whether parts of it lie
// on each other, and at its data. What is wrong becomes a fault, and the check
// goes on. Its memory does not grow with the disk.
type checker struct {
	disk   *formats.Disk
	counts mapCounts
	read   atomic.Int64 // bytes
	faults faults
	gaveUp string // why it ended early; "" = it did not
}

// mapCounts adds up a map.
type mapCounts struct {
	bytes, extents [formats.Compressed + 1]int64
}

// maxBad is after how many bad parts in the map it is given up: each costs time.
const maxBad = 1 << 16

func (k *checker) run(c *cli.Context, s streams) error {
	ctx := c.Context
	var bad int64
	layout := newOverlaps(k.disk)
	err := walkMap(ctx, k.disk, func(batch []formats.Extent) error {
		for i := range batch {
			k.counts.bytes[batch[i].Kind] += batch[i].Len
			k.counts.extents[batch[i].Kind]++
			layout.learn(&batch[i])
		}
		return nil
	}, func(off, n int64, err error) error {
		k.faults.add(off, n, err)
		if bad++; bad == maxBad {
			k.gaveUp = fmt.Sprintf("given up at guest offset %d, after %d bad parts of the map", off, bad)
			return errGaveUp
		}
		return nil
	})
	if err != nil && k.gaveUp == "" {
		return err
	}
	if k.gaveUp != "" {
		return nil
	}
	shared, err := layout.find(ctx)
	if err != nil {
		return err
	}
	k.faults.merge(shared)
	bar := startProgress(c, s, "check", k.counts.bytes[formats.Data]+k.counts.bytes[formats.Compressed])
	unread, err := k.readAll(ctx, bar)
	bar.finish()
	k.faults.merge(unread)
	return err
}

var errGaveUp = fmt.Errorf("given up: %w", formats.ErrCorrupt)

// skip goes on behind a bad part of the map, which was noted before.
func skip(int64, int64, error) error { return nil }

// readAll reads all data, on all cores, and returns what cannot be read.
func (k *checker) readAll(ctx context.Context, bar *progress) (faults, error) {
	var (
		mu  sync.Mutex
		all faults
	)
	group, ctx := errgroup.WithContext(ctx)
	size := pieceSize(k.disk)
	pieces := make(chan piece)
	group.Go(func() error {
		defer close(pieces)
		return walkData(ctx, k.disk, size, func(p piece) error {
			select {
			case pieces <- p:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, skip)
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf := make([]byte, size)
			for p := range pieces {
				found := k.readPiece(ctx, p, buf)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				bar.Update(p.n)
				if found.count > 0 {
					mu.Lock()
					all.merge(found)
					mu.Unlock()
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return all, err
}

// readPiece reads p, and where that fails each cluster of it alone.
func (k *checker) readPiece(ctx context.Context, p piece, buf []byte) (found faults) {
	if k.disk.ReadAt(ctx, buf[:p.n], p.off) == nil {
		k.read.Add(p.n)
		return found
	}
	unit := unitOf(k.disk)
	for off, end := p.off, p.off+p.n; off < end && ctx.Err() == nil; {
		n := min(unit-off%unit, end-off)
		if err := k.disk.ReadAt(ctx, buf[:n], off); err != nil {
			found.add(off, n, err)
		} else {
			k.read.Add(n)
		}
		off += n
	}
	return found
}

// fault is a bad place of the guest disk.
type fault struct {
	Offset int64  `json:"offset"` // guest, bytes
	Length int64  `json:"length"` // bytes
	Reason string `json:"reason"`
}

// faults are bad places: all are counted, the first that are found are kept.
type faults struct {
	count int64 // places; neighbours found one after the other are one
	bytes int64
	end   int64 // guest offset just past the last place
	list  []fault
}

const (
	maxFaults = 100 // that are kept
	maxReason = 300 // bytes of one
)

// add notes a bad place.
func (f *faults) add(off, n int64, err error) {
	f.bytes += n
	if f.count > 0 && f.end == off {
		f.end += n
		if f.count <= maxFaults {
			f.list[len(f.list)-1].Length += n
		}
		return
	}
	f.count++
	f.end = off + n
	if len(f.list) < maxFaults {
		f.list = append(f.list, fault{off, n, shortened(err.Error(), maxReason)})
	}
}

// merge takes in what another look at the disk found.
func (f *faults) merge(more faults) {
	f.count += more.count
	f.bytes += more.bytes
	f.end = more.end
	f.list = append(f.list, more.list[:min(len(more.list), maxFaults-len(f.list))]...)
	slices.SortStableFunc(f.list, func(a, b fault) int { return cmp.Compare(a.Offset, b.Offset) })
}
