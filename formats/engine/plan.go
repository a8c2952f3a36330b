package engine

import (
	"context"
	"fmt"

	"glanced/backends/stored"
	"glanced/formats"
)

// How says how the bytes of a piece of a plan are come by.
type How uint8

const (
	Zeros    How = iota // they are zeros
	InFile              // they lie as they are in a local file: Piece.File
	InMemory            // they are at hand: Piece.Memory
	Moved               // Plan.Read has to fetch or to decode them
)

// Piece is a part of the guest range of a plan.
type Piece struct {
	Off, Len int64 // guest range
	How      How
	File     stored.FileRange // InFile: Len bytes, held until Plan.Release
	Memory   []byte           // InMemory: Len bytes, not to be changed, valid until Plan.Release
	// Dst, of Len bytes, is where Plan.Read puts the bytes. It is set by the plan's
	// owner; nil: Read leaves the piece out.
	Dst []byte

	at    placed  // of what is stored
	taken *buffer // what Memory is a part of, held
}

// End is the guest offset just past the piece.
func (x *Piece) End() int64 { return x.Off + x.Len }

// TakeFile is File, whose hold is the caller's from here on.
func (x *Piece) TakeFile() stored.FileRange {
	r := x.File
	x.File.Hold = nil
	return r
}

// placed is an extent, and the source that it lies in.
type placed struct {
	formats.Extent
	s *source
}

// Plan is what a read of a guest range comes to, found by one walk of the map:
// zeros, ranges of local files, bytes at hand, and bytes to be moved. Its owner
// takes what the plan says, and calls Read for the rest. The zero value is ready,
// a plan is used again and again, and by one goroutine at a time. Between Disk.Plan
// and Release, the disk and those below it are not closed.
type Plan struct {
	d        *Disk // nil: nothing is planned
	off, end int64
	pieces   []Piece
	still    bool // no piece has to be moved
	scan     bool // the read goes on a sequential run

	walk  walk
	take  sink     // collect, bound once
	found []placed // what the walk yields

	batch batch // of Read
}

// PlanOptions of Disk.Plan.
type PlanOptions struct {
	// WithoutIO has the map read from memory alone, without waiting for anything.
	// Where that does not do, the plan fails with formats.ErrWouldWait. A small range
	// finds clusters that are cached, as InMemory.
	WithoutIO bool
}

const (
	// maxPieces bounds the extents of one plan.
	maxPieces = 256
	// maxAtHand is the longest range that is looked up among the cached clusters,
	// bytes: a plan that nobody releases soon is not to hold many of them.
	maxAtHand = 64 << 10
)

// Plan makes p the plan of guest range [off, off+n), or of its beginning where it
// is in very many pieces: p.End says. What p was before is released. It fails with
// formats.ErrRange, ErrCorrupt or ErrLimit, and with the errors of the sources.
func (d *Disk) Plan(ctx context.Context, p *Plan, off, n int64, o PlanOptions) error {
	p.Release()
	if err := d.inside(off, n); err != nil {
		return err
	}
	if p.take == nil {
		p.take = p.collect
	}
	if o.WithoutIO {
		ctx = withoutIO
	}
	p.d, p.off, p.end, p.found = d, off, off, p.found[:0]
	if err := p.walk.disk(ctx, d, off, n, p.take); err != nil {
		p.Release()
		return fmt.Errorf("map %d bytes at guest offset %d: %w", n, off, err)
	}
	p.place(o.WithoutIO && n <= maxAtHand)
	return nil
}

// collect is what the walk yields to.
func (p *Plan) collect(x formats.Extent, s *source) bool {
	if n := len(p.found); n > 0 {
		if last := &p.found[n-1]; last.s == s && last.Join(&x) {
			return true
		}
		if n == maxPieces {
			return false
		}
	}
	p.found = append(p.found, placed{x, s})
	return true
}

// place makes pieces of what was found. atHand: compressed clusters are looked for
// in the cache.
func (p *Plan) place(atHand bool) {
	p.still = true
	coded := false
	for i := range p.found {
		coded = coded || p.found[i].Kind == formats.Compressed
	}
	n := int64(0)
	if last := len(p.found) - 1; last >= 0 {
		p.end = p.found[last].End()
		n = p.end - p.off
	}
	p.scan = (coded || p.d.prefetches) && p.d.noteRead(p.off, n, coded)
	for i := range p.found {
		x := &p.found[i]
		switch x.Kind {
		case formats.Data:
			p.placeData(x)
		case formats.Compressed:
			p.placeCoded(x, atHand)
		default:
			p.pieces = append(p.pieces, Piece{Off: x.Off, Len: x.Len, How: Zeros})
		}
	}
	if !p.still { // it has to wait for the others anyway
		p.Unpin()
	}
}

// placeData makes one piece of data, or two where only its beginning is in a local
// file.
func (p *Plan) placeData(x *placed) {
	rest := *x
	if x.s.files != nil {
		if r, ok := x.s.files.FileRange(x.Pos, x.N); ok {
			first := *x
			first.Len, first.N = r.Len, r.Len
			p.pieces = append(p.pieces, Piece{Off: x.Off, Len: r.Len, How: InFile, File: r, at: first})
			rest.Off, rest.Len = x.Off+r.Len, x.Len-r.Len
			rest.Pos, rest.N = x.Pos+r.Len, rest.Len
			if rest.Len == 0 {
				return
			}
		}
	}
	p.still = false
	p.pieces = append(p.pieces, Piece{Off: rest.Off, Len: rest.Len, How: Moved, at: rest})
}

func (p *Plan) placeCoded(x *placed, atHand bool) {
	piece := Piece{Off: x.Off, Len: x.Len, How: Moved, at: *x}
	if atHand {
		if b := x.s.e.clusters.hit(x.key(), !p.scan); b != nil {
			piece.How, piece.Memory, piece.taken = InMemory, b.bytes[x.Skip:][:x.Len], b
		}
	}
	p.still = p.still && piece.How == InMemory
	p.pieces = append(p.pieces, piece)
}

// Pieces are what the range is made of, in order and without gaps; not all pieces
// of one kind that follow each other are one. They are valid until Release.
func (p *Plan) Pieces() []Piece { return p.pieces }

// End is the guest offset up to which the plan goes.
func (p *Plan) End() int64 { return p.end }

// Still reports whether no piece has to be moved.
func (p *Plan) Still() bool { return p.still }

// Unpin lets go of the cached clusters that the plan holds, whatever the cache has
// made of them since; Read looks for them again. It is for who is going to wait before
// it takes what is at hand.
func (p *Plan) Unpin() {
	for i := range p.pieces {
		if x := &p.pieces[i]; x.taken != nil {
			x.taken.release()
			x.How, x.Memory, x.taken = Moved, nil, nil
			p.still = false
		}
	}
}

// ReadNow fills dst, as long as the plan's range, without waiting for a disk or a
// decoder. False: something is not at hand, or not in the page cache.
func (p *Plan) ReadNow(dst []byte) bool {
	if !p.still {
		return false
	}
	for i := range p.pieces {
		x := &p.pieces[i]
		part := dst[x.Off-p.off:][:x.Len]
		switch x.How {
		case Zeros:
			clear(part)
		case InMemory:
			copy(part, x.Memory)
		case InFile:
			if !x.File.ReadCached(part) {
				return false
			}
		}
	}
	return true
}

// ReadInto is Read with dst, as long as the plan's range, for all pieces.
func (p *Plan) ReadInto(ctx context.Context, dst []byte) error {
	for i := range p.pieces {
		x := &p.pieces[i]
		x.Dst = dst[x.Off-p.off:][:x.Len]
	}
	return p.Read(ctx)
}

// ReadError is a failed Plan.Read: the guest offset from which on bytes could not
// be had, and why.
type ReadError struct {
	Off int64
	Err error
}

func (e *ReadError) Error() string {
	return fmt.Sprintf("read at guest offset %d: %v", e.Off, e.Err)
}
func (e *ReadError) Unwrap() error { return e.Err }

// Release gives back all that the plan holds, and leaves the disks. A plan that was
// not released keeps its disk from closing. More than once is the same as once.
func (p *Plan) Release() {
	p.walk.release()
	for i := range p.pieces {
		x := &p.pieces[i]
		x.File.Release()
		if x.taken != nil {
			x.taken.release()
		}
	}
	clear(p.pieces)
	clear(p.found)
	p.d, p.pieces, p.found = nil, p.pieces[:0], p.found[:0]
}
