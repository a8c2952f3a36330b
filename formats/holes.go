package formats

import (
	"context"
	"fmt"

	"glanced/backends/stored"
)

const (
	// maxRuns bounds the holes that are remembered of one image: 1 MiB of memory.
	maxRuns = 64 << 10
	// maxAsked bounds the runs that the source is asked for; what lies after them
	// is told as data.
	maxAsked = 1 << 20
)

// hole is a guest range without data.
type hole struct{ off, end int64 }

// findHoles asks the source once for all its holes, so that no read has to. Of
// more than limit, the smallest are told as data: a hole is only worth knowing
// for what it saves.
func findHoles(ctx context.Context, src stored.Extenter, size int64, limit int) ([]hole, error) {
	var (
		holes    []hole
		smallest int64 // holes under this are left out
		asked    int
		next     int64
		bad      error
	)
	err := src.Extents(ctx, 0, size, func(off, n int64, isHole bool) bool {
		if off != next || n <= 0 || n > size-off {
			bad = fmt.Errorf("the source says that a run of %d bytes is at %d, where %d of %d was next", n, off, next, size)
			return false
		}
		next = off + n
		asked++
		if isHole {
			if last := len(holes) - 1; last >= 0 && holes[last].end == off {
				holes[last].end = next
			} else if n >= smallest {
				holes = append(holes, hole{off, next})
			}
			for len(holes) > limit {
				smallest = max(2*smallest, 4<<10)
				holes = without(holes, smallest)
			}
		}
		return asked < maxAsked
	})
	if bad != nil {
		err = bad
	}
	if err != nil {
		return nil, fmt.Errorf("ask the source for its holes: %w", err)
	}
	return holes, nil
}

// without leaves out the holes smaller than n.
func without(holes []hole, n int64) []hole {
	kept := holes[:0]
	for _, h := range holes {
		if h.end-h.off >= n {
			kept = append(kept, h)
		}
	}
	return kept
}
