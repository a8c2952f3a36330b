package nbd

import (
	"errors"

	"glanced/formats"
	"glanced/formats/engine"
)

// inline is what the reading goroutine answers by itself: replies that are not
// pushed yet.
type inline struct {
	plan    *engine.Plan // of the READ at hand
	block   *buffer      // headers and short data, one after the other
	filled  int          // bytes of block in use
	cut     int          // … of which so many are in pending already
	pending []segment    // what comes before block[cut:filled]
	guest   int64        // guest bytes in them
}

// blockSize is how many bytes of short replies are written together.
const blockSize = 64 << 10

// hasRoom reports whether n bytes fit into the block, or into one that is there for
// the taking.
func (t *transmission) hasRoom(n int) bool {
	in := &t.inline
	if in.block == nil {
		size := bufferSize(blockSize)
		if t.share.TryTake(size, size) == 0 {
			return false
		}
		in.block = t.session.srv.pool.get(blockSize, t.share, size)
	}
	return in.filled+n <= blockSize
}

// room makes sure that n bytes fit into the block, which may flush. n is at
// most blockSize.
func (t *transmission) room(n int) error {
	if t.hasRoom(n) {
		return nil
	}
	if err := t.flushInline(); err != nil {
		return err
	}
	size := bufferSize(blockSize)
	if err := t.wait(t.share, size); err != nil {
		return err
	}
	t.inline.block = t.session.srv.pool.get(blockSize, t.share, size)
	return nil
}

// flushInline writes what the reader has answered.
func (t *transmission) flushInline() error {
	if !t.finishInline() {
		return nil
	}
	t.replies.flush()
	return t.replies.wait(maxQueue)
}

// finishInline pushes what the reader has answered; false if there was nothing.
func (t *transmission) finishInline() bool {
	in := &t.inline
	if in.block == nil {
		return false
	}
	in.pending = append(in.pending, segment{
		mem: in.block.b[in.cut:in.filled], buf: in.block, done: &t.session.served, data: in.guest,
	})
	t.replies.push(in.pending...)
	clear(in.pending)
	in.pending, in.block, in.filled, in.cut, in.guest = in.pending[:0], nil, 0, 0, 0
	return true
}

// doneInline answers a request that has no data with success. A simple reply is
// right for everything but READ, whatever was negotiated.
func (t *transmission) doneInline(r request) error {
	if err := t.room(simpleSize); err != nil {
		return err
	}
	in := &t.inline
	putSimple(in.block.b[in.filled:], r.Handle, 0)
	in.filled += simpleSize
	return nil
}

func (t *transmission) failInline(r request, errno uint32, text string) error {
	b := errorReply(t.structured, r.Handle, errno, text, nil)
	if err := t.room(len(b)); err != nil {
		if !t.revoked.Load() {
			return err
		}
		// The withdrawal has ended the waiting for memory; this little is free.
		t.replies.push(segment{mem: b})
		t.replies.flush()
		return t.replies.wait(maxQueue)
	}
	t.inline.filled += copy(t.inline.block.b[t.inline.filled:], b)
	return nil
}

// readInline answers a READ on the reader's goroutine if nothing has to be waited
// for: all of it is zeros, cached clusters, or in the page cache. False: a worker has
// to, with the plan as far as it was made.
func (t *transmission) readInline(r request) (done bool, err error) {
	p, off, n := t.inline.plan, int64(r.Offset), int64(r.Length)
	err = t.export.Plan(t.ctx, p, off, n, engine.PlanOptions{WithoutIO: true})
	if errors.Is(err, formats.ErrWouldWait) {
		return false, nil
	}
	if err != nil {
		o := t.outcome(r, err)
		return true, t.failInline(r, o.errno, o.text)
	}
	if n < sendfileMin {
		done, err = t.shortInline(r, p, int(n))
	} else {
		done, err = t.longInline(r, p)
	}
	if done || err != nil {
		p.Release()
	}
	if err != nil && t.revoked.Load() {
		return true, t.turnedAway(r, err)
	}
	return done, err
}

// shortInline copies a short read into the block.
func (t *transmission) shortInline(r request, p *engine.Plan, n int) (done bool, err error) {
	if pieces := p.Pieces(); t.structured && len(pieces) == 1 && pieces[0].How == engine.Zeros {
		return true, t.holeInline(r)
	}
	if !p.Still() {
		return false, nil
	}
	head := t.readHead()
	if !t.hasRoom(head + n) {
		// The wait may be as long as the client likes; clusters that the plan holds
		// are memory that nobody counts.
		p.Release()
		if err := t.room(head + n); err != nil {
			return false, err
		}
		return t.readInline(r)
	}
	b := t.inline.block.b[t.inline.filled:][:head+n]
	if !p.ReadNow(b[head:]) {
		return false, nil
	}
	t.inline.filled += t.putRead(b, r)
	t.inline.guest += int64(n)
	return true, nil
}

// holeInline answers a READ of zeros with a hole chunk.
func (t *transmission) holeInline(r request) error {
	if err := t.room(holeSize); err != nil {
		return err
	}
	in := &t.inline
	putHole(in.block.b[in.filled:], chunkDone, r.Handle, int64(r.Offset), int64(r.Length))
	in.filled += holeSize
	in.guest += int64(r.Length)
	return nil
}

// longInline answers a long read with headers in the block and ranges of files, if
// it is made of such and of zeros.
func (t *transmission) longInline(r request, p *engine.Plan) (done bool, err error) {
	if p.End() != int64(r.Offset)+int64(r.Length) || !t.sentInPlace(p.Pieces()) {
		return false, nil
	}
	heads := len(p.Pieces())
	if t.inOnePiece(r) {
		heads = 1
	}
	if heads*holeSize > blockSize {
		return false, nil
	}
	if err := t.room(heads * holeSize); err != nil {
		return false, err
	}
	in := &t.inline
	t.putInPlace(r, p, in.block.b, &in.filled, func(x *engine.Piece) {
		in.pending = append(in.pending, segment{mem: in.block.b[in.cut:in.filled]})
		in.cut = in.filled
		in.pending = appendInPlace(in.pending, x)
	})
	in.guest += int64(r.Length)
	return true, nil
}

// putInPlace writes what comes before and between the pieces of a READ that is
// answered with them as they lie, into b from *used on. send is called for each piece
// whose bytes follow.
func (t *transmission) putInPlace(r request, p *engine.Plan, b []byte, used *int, send func(*engine.Piece)) {
	pieces := p.Pieces()
	hole := t.structured && len(pieces) == 1 && pieces[0].How == engine.Zeros
	if t.inOnePiece(r) && !hole {
		*used += t.putReadHead(b[*used:], r)
		for i := range pieces {
			send(&pieces[i])
		}
		return
	}
	for i := range pieces {
		x := &pieces[i]
		last := i == len(pieces)-1
		*used += putPieceHead(b[*used:], r, x, last)
		if x.How != engine.Zeros {
			send(x)
		}
	}
}

// appendInPlace adds the bytes of a piece as they lie.
func appendInPlace(segs []segment, x *engine.Piece) []segment {
	if x.How == engine.InFile {
		return append(segs, segment{file: x.TakeFile()})
	}
	for n := x.Len; n > 0; n -= int64(len(zeros)) {
		segs = append(segs, segment{mem: zeros[:min(n, int64(len(zeros)))]})
	}
	return segs
}

// zeros are what holes are sent as where they cannot be told.
var zeros [1 << 20]byte

// sentInPlace reports whether pieces are zeros and ranges of files in the page cache
// that are worth a sendfile, and nothing else.
func (t *transmission) sentInPlace(pieces []engine.Piece) bool {
	for i := range pieces {
		if x := &pieces[i]; x.How != engine.Zeros && !t.fileInPlace(x) {
			return false
		}
	}
	return true
}

// fileInPlace reports whether a piece is to be sent by sendfile: it will not hold up
// the connection for a disk.
func (t *transmission) fileInPlace(x *engine.Piece) bool {
	return t.direct && x.How == engine.InFile && x.Len >= sendfileMin && x.File.Cached()
}
