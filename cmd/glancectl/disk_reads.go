package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sort"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"glanced/formats"
	"glanced/formats/check"
	"glanced/formats/engine"
)

// readsDone is what a job of bench has read.
type readsDone struct{ bytes, reads int64 }

// benchRun does the reads of a bench, and can do them again.
type benchRun func(ctx context.Context, bar *progress) (readsDone, error)

// benchJob makes the job that b asks for, of total bytes.
func benchJob(ctx context.Context, g *engine.Disk, b benchOptions) (job benchRun, total int64, err error) {
	if b.random > 0 {
		runs, err := dataRuns(ctx, g, b.block)
		if err != nil {
			return nil, 0, err
		}
		job = func(ctx context.Context, bar *progress) (readsDone, error) { return readRandom(ctx, g, runs, b, bar) }
		return job, int64(b.random) * b.block, nil
	}
	if total, err = allocatedBytes(ctx, g); err != nil {
		return nil, 0, err
	}
	job = func(ctx context.Context, bar *progress) (readsDone, error) {
		return readInOrder(ctx, g, b.workers, bar)
	}
	return job, total, nil
}

// readInOrder reads all data in order. Several readers, each with the next piece,
// keep all cores busy without read-ahead, which would cost a copy of each cluster.
func readInOrder(ctx context.Context, g *engine.Disk, workers int, bar *progress) (readsDone, error) {
	var bytes, reads atomic.Int64
	size := check.PieceSize(g)
	group, ctx := errgroup.WithContext(ctx)
	pieces := make(chan check.Piece, workers)
	group.Go(func() error {
		defer close(pieces)
		return check.WalkData(ctx, g, size, func(p check.Piece) error {
			select {
			case pieces <- p:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}, func(_, _ int64, err error) error { return err })
	})
	for range workers {
		group.Go(func() error {
			buf := make([]byte, size)
			for p := range pieces {
				if err := g.ReadAt(ctx, buf[:p.N], p.Off); err != nil {
					return err
				}
				bytes.Add(p.N)
				reads.Add(1)
				bar.Update(p.N)
			}
			return nil
		})
	}
	err := group.Wait()
	return readsDone{bytes.Load(), reads.Load()}, err
}

// blockRun is blocks of the guest disk that hold data.
type blockRun struct {
	first  int64 // block number
	before int64 // how many blocks are in the runs before
}

// maxRuns bounds the runs that are remembered, 16 MiB of them.
const maxRuns = 1 << 20

var errNoData = errors.New("the disk holds no data to read")

// dataRuns lists the whole blocks that data reaches into; the last run is empty
// and ends the list. Of too many runs, those near each other are taken together,
// with the holes between them.
func dataRuns(ctx context.Context, g *engine.Disk, block int64) ([]blockRun, error) {
	type span struct{ from, to int64 } // blocks
	var spans []span
	blocks := g.Size() / block
	near := int64(0) // what lies between two runs that are taken together, blocks
	join := func(list []span) []span {
		kept := list[:0]
		for _, x := range list {
			if n := len(kept); n > 0 && x.from <= kept[n-1].to+near {
				kept[n-1].to = max(kept[n-1].to, x.to)
			} else {
				kept = append(kept, x)
			}
		}
		return kept
	}
	err := check.Walk(ctx, g, func(batch []formats.Extent) error {
		for _, x := range batch {
			if !x.Kind.Stored() {
				continue
			}
			from, to := x.Off/block, min((x.End()+block-1)/block, blocks)
			if n := len(spans); n > 0 && from <= spans[n-1].to+near {
				spans[n-1].to = max(spans[n-1].to, to)
			} else if from < to {
				spans = append(spans, span{from, to})
			}
		}
		for len(spans) > maxRuns {
			near = 2*near + 1
			spans = join(spans)
		}
		return nil
	}, func(_, _ int64, err error) error { return err })
	if err != nil {
		return nil, err
	}
	if len(spans) == 0 {
		return nil, fmt.Errorf("%w in blocks of %d bytes", errNoData, block)
	}
	runs := make([]blockRun, 0, len(spans)+1)
	total := int64(0)
	for _, x := range spans {
		runs = append(runs, blockRun{x.from, total})
		total += x.to - x.from
	}
	return append(runs, blockRun{before: total}), nil
}

// readRandom reads b.random blocks. Which, is decided by the seed alone, however
// many readers there are.
func readRandom(ctx context.Context, g *engine.Disk, runs []blockRun, b benchOptions, bar *progress) (readsDone, error) {
	var next, reads atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	total := runs[len(runs)-1].before
	for range b.workers {
		group.Go(func() error {
			buf := make([]byte, b.block)
			r := rand.NewPCG(0, 0)
			for i := next.Add(1) - 1; i < int64(b.random); i = next.Add(1) - 1 {
				r.Seed(b.seed, uint64(i))
				nth := int64(r.Uint64() % uint64(total))
				at := sort.Search(len(runs)-1, func(k int) bool { return runs[k+1].before > nth })
				if err := g.ReadAt(ctx, buf, (runs[at].first+nth-runs[at].before)*b.block); err != nil {
					return err
				}
				reads.Add(1)
				bar.Update(b.block)
			}
			return nil
		})
	}
	err := group.Wait()
	return readsDone{reads.Load() * b.block, reads.Load()}, err
}
