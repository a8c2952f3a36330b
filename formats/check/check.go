// Package check looks at all of a guest disk, at its map and at its data, and says
// what is wrong with it.
package check

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"glanced/formats"
	"glanced/formats/engine"
)

// Result is what was found.
type Result struct {
	// Bytes and Extents add up the map, by kind.
	Bytes, Extents [formats.Compressed + 1]int64
	Read           int64  // bytes
	Faults         Faults // what is wrong
	GaveUp         string // why the check ended early; "" = it did not
}

// maxBad is after how many bad parts in the map it is given up: each costs time.
const maxBad = 1 << 16

// Progress is told how many bytes will be read, and then of those that were, from
// several goroutines at once. Its functions may be nil.
type Progress struct {
	Begin func(total int64)
	Read  func(n int64)
}

// Disk checks d: its map, whether parts of it lie on each other, and its data. What
// is wrong becomes a fault, and the check goes on; it fails when ctx ends. Its
// memory does not grow with the disk.
func Disk(ctx context.Context, d *engine.Disk, p Progress) (*Result, error) {
	k := &checker{disk: d, progress: p}
	err := k.run(ctx)
	k.Result.Read = k.read.Load()
	return &k.Result, err
}

// checker is one check under way.
type checker struct {
	Result
	disk     *engine.Disk
	progress Progress
	read     atomic.Int64 // bytes
}

func (k *checker) run(ctx context.Context) error {
	var bad int64
	layout := newOverlaps(k.disk)
	err := Walk(ctx, k.disk, func(batch []formats.Extent) error {
		for i := range batch {
			k.Bytes[batch[i].Kind] += batch[i].Len
			k.Extents[batch[i].Kind]++
			layout.learn(&batch[i])
		}
		return nil
	}, func(off, n int64, err error) error {
		k.Faults.add(off, n, err)
		if bad++; bad == maxBad {
			k.GaveUp = fmt.Sprintf("given up at guest offset %d, after %d bad parts of the map", off, bad)
			return errGaveUp
		}
		return nil
	})
	if err != nil && k.GaveUp == "" {
		return err
	}
	if k.GaveUp != "" {
		return nil
	}
	shared, err := layout.find(ctx)
	if err != nil {
		return err
	}
	k.Faults.merge(shared)
	if k.progress.Begin != nil {
		k.progress.Begin(k.Bytes[formats.Data] + k.Bytes[formats.Compressed])
	}
	unread, err := k.readAll(ctx)
	k.Faults.merge(unread)
	return err
}

var errGaveUp = fmt.Errorf("given up: %w", formats.ErrCorrupt)

// skip goes on behind a bad part of the map, which was noted before.
func skip(int64, int64, error) error { return nil }

// readAll reads all data, on all cores, and returns what cannot be read.
func (k *checker) readAll(ctx context.Context) (Faults, error) {
	var (
		mu  sync.Mutex
		all Faults
	)
	group, ctx := errgroup.WithContext(ctx)
	size := PieceSize(k.disk)
	pieces := make(chan Piece)
	group.Go(func() error {
		defer close(pieces)
		return WalkData(ctx, k.disk, size, func(p Piece) error {
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
				if k.progress.Read != nil {
					k.progress.Read(p.N)
				}
				if found.Count > 0 {
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
func (k *checker) readPiece(ctx context.Context, p Piece, buf []byte) (found Faults) {
	if k.disk.ReadAt(ctx, buf[:p.N], p.Off) == nil {
		k.read.Add(p.N)
		return found
	}
	unit := unitOf(k.disk)
	for off, end := p.Off, p.Off+p.N; off < end && ctx.Err() == nil; {
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
