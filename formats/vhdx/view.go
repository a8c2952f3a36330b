package vhdx

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"glanced/backends/stored"
	"glanced/formats"
)

// view is the file as it is once its log is played back: a Source that reads
// through to the file wherever the log wrote nothing. Nothing in it changes after
// replay. Safe for concurrent use.
type view struct {
	src     stored.Bytes // the file; not the view's to close
	size    int64        // bytes, played back: the log may make the file longer
	patches []patch      // what the log wrote: ascending, none overlapping another
	pages   logPages     // the bytes that it wrote
}

// patch is a range of the file that the log wrote.
type patch struct {
	span
	page int64 // where its bytes lie in view.pages; zeros where it is negative
}

// origin says where a part of a view comes from.
type origin uint8

const (
	fromFile origin = iota
	fromLog         // view.pages
	zeros           // the log wrote zeros, or made the file that much longer
)

// stored is the length of the file as it is stored, in bytes.
func (v *view) stored() int64 { return v.src.Size() }

// parts yields what the range [off, off+n), within the view, is made of, until
// yield returns false; pos is where in the file or in the pages the part lies.
func (v *view) parts(off, n int64, yield func(from origin, off, n, pos int64) bool) {
	end := off + n
	for i := sort.Search(len(v.patches), func(i int) bool { return v.patches[i].end > off }); off < end; i++ {
		gap := end // where the next patch begins
		if i < len(v.patches) {
			gap = min(end, v.patches[i].begin)
		}
		if stop := min(gap, v.stored()); off < stop {
			if !yield(fromFile, off, stop-off, off) {
				return
			}
			off = stop
		}
		if off < gap {
			if !yield(zeros, off, gap-off, 0) {
				return
			}
			off = gap
		}
		if off < end {
			p := v.patches[i]
			from, pos := zeros, int64(0)
			if p.page >= 0 {
				from, pos = fromLog, p.page+off-p.begin
			}
			stop := min(end, p.end)
			if !yield(from, off, stop-off, pos) {
				return
			}
			off = stop
		}
	}
}

// ReadAt fills p from off or fails.
func (v *view) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > v.size-int64(len(p)) {
		return fmt.Errorf("%w: %d bytes at %d of a vhdx file of %d", formats.ErrRange, len(p), off, v.size)
	}
	var err error
	begin := off
	v.parts(off, int64(len(p)), func(from origin, off, n, pos int64) bool {
		dst := p[off-begin:][:n]
		switch from {
		case fromFile:
			err = v.src.ReadAt(ctx, dst, pos)
		case fromLog:
			copy(dst, v.pages[pos:])
		case zeros:
			clear(dst)
		}
		return err == nil
	})
	return err
}

// Size is the length of the file in bytes, once its log is played back.
func (v *view) Size() int64 { return v.size }

// Identity is the file's: what the log in it makes of it is always the same. It is
// told apart, as other bytes lie at the same offsets.
func (v *view) Identity() stored.Identity { return v.src.Identity().Section(-1, v.size) }

// Close does nothing: the file is its opener's.
func (v *view) Close() error { return nil }

// logPages are what a log wrote, as a source in memory.
type logPages []byte

// ReadAt fills p from off or fails.
func (m logPages) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > int64(len(m)-len(p)) {
		return fmt.Errorf("%w: %d bytes at %d of the %d that a vhdx log wrote", formats.ErrRange, len(p), off, len(m))
	}
	copy(p, m[off:])
	return ctx.Err()
}

// Identity is none: nobody keeps these bytes elsewhere.
func (m logPages) Identity() stored.Identity { return "" }

// Size is the number of bytes.
func (m logPages) Size() int64 { return int64(len(m)) }

// Close does nothing.
func (m logPages) Close() error { return nil }

// write is one descriptor of the log: bytes of the log, or zeros, to a range of
// the file.
type write struct {
	span
	page []byte // as long as the span; nil = zeros
}

// lastWins turns writes, in the order they were made, into patches: where they
// overlap the later counts. The time it takes grows with n log n.
func lastWins(writes []write) ([]patch, logPages) {
	// The borders of all writes cut the file into cells. Going backwards through
	// the writes, each takes the cells in it that no later one has.
	borders := make([]int64, 0, 2*len(writes))
	for _, w := range writes {
		borders = append(borders, w.begin, w.end)
	}
	slices.Sort(borders)
	borders = slices.Compact(borders)
	owner := make([]int32, len(borders)) // of the cell behind each border; -1 = none
	next := make([]int32, len(borders)+1)
	for i := range next {
		next[i] = int32(i) // the first cell from here on that may have no owner yet
	}
	for i := range owner {
		owner[i] = -1
	}
	for i := len(writes) - 1; i >= 0; i-- {
		w := &writes[i]
		cell, _ := slices.BinarySearch(borders, w.begin)
		for c := follow(next, cell); borders[c] < w.end; c = follow(next, c) {
			owner[c] = int32(i)
			next[c] = int32(c + 1)
		}
	}

	var patches []patch
	var pages logPages
	for c, o := range owner {
		if o < 0 {
			continue
		}
		w := &writes[o]
		p := patch{span: span{borders[c], borders[c+1]}, page: -1}
		if w.page != nil {
			p.page = int64(len(pages))
			pages = append(pages, w.page[p.begin-w.begin:p.end-w.begin]...)
		}
		if len(patches) > 0 && patches[len(patches)-1].extend(p) {
			continue
		}
		patches = append(patches, p)
	}
	return patches, pages
}

// follow is the first cell from c on without an owner; the way there is shortened
// for the next one who asks.
func follow(next []int32, c int) int {
	for int(next[c]) != c {
		next[c] = next[next[c]]
		c = int(next[c])
	}
	return c
}

// extend makes p longer by q, where q continues it.
func (p *patch) extend(q patch) bool {
	if q.begin != p.end || (p.page < 0) != (q.page < 0) || p.page >= 0 && p.page+p.len() != q.page {
		return false
	}
	p.end = q.end
	return true
}
