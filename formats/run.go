package formats

import "fmt"

// Run collects the extents of one call of Layout.Map, for drivers: it clips them
// to the range that was asked for, and joins those that continue each other. A
// driver adds whole blocks, in order and without gaps, until Stopped, and flushes.
type Run struct {
	from, to int64 // guest range asked for
	yield    func(Extent) bool
	last     Extent // not yet yielded; Len 0 = none
	stopped  bool
}

// NewRun begins Map(off, n, yield) on a disk of size bytes; ErrRange.
func NewRun(size, off, n int64, yield func(Extent) bool) (Run, error) {
	if off < 0 || n < 0 || off > size-n {
		return Run{}, fmt.Errorf("%w: %d bytes at %d of a disk of %d", ErrRange, n, off, size)
	}
	return Run{from: off, to: off + n, yield: yield}, nil
}

// End is the guest offset just past what was asked for.
func (r *Run) End() int64 { return r.to }

// Stopped says that no more extents are wanted.
func (r *Run) Stopped() bool { return r.stopped }

// Add takes the next extent, which may reach beyond what was asked for; N of Data
// is set to what is left of Len.
func (r *Run) Add(x Extent) {
	from, to := max(x.Off, r.from), min(x.End(), r.to)
	if from >= to || r.stopped {
		return
	}
	switch x.Kind {
	case Data:
		x.Pos += from - x.Off
		x.N = to - from
	case Compressed:
		x.Skip += from - x.Off
	}
	x.Off, x.Len = from, to-from
	if r.last.Len > 0 && r.last.Join(&x) {
		return
	}
	r.Flush()
	r.last = x
}

// Flush yields what is collected; to be called after the last Add.
func (r *Run) Flush() {
	if r.last.Len > 0 && !r.stopped {
		r.stopped = !r.yield(r.last)
	}
	r.last = Extent{}
}
