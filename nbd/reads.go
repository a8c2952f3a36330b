package nbd

import (
	"bytes"
	"context"
	"encoding/binary"

	"glanced/formats/engine"
)

// inOnePiece reports whether a READ is answered in one piece: by a simple reply, or
// because the client wants no fragments ("Command flags", NBD_CMD_FLAG_DF).
func (t *transmission) inOnePiece(r request) bool {
	return !t.structured || r.CommandFlags&cmdFlagDF != 0
}

// readHead is the length of what comes before the data of a READ that is answered
// in one piece.
func (t *transmission) readHead() int {
	if t.structured {
		return dataHeaderSize
	}
	return simpleSize
}

// putReadHead writes it, and is its length.
func (t *transmission) putReadHead(b []byte, r request) int {
	if t.structured {
		putData(b, chunkDone, r.Handle, int64(r.Offset), int64(r.Length))
	} else {
		putSimple(b, r.Handle, 0)
	}
	return t.readHead()
}

// putRead completes the answer to a READ whose data is at the end of b already,
// and says how many bytes of b it takes. Zeros become a hole where they may.
func (t *transmission) putRead(b []byte, r request) int {
	if t.structured && isZero(b[dataHeaderSize:]) {
		putHole(b, chunkDone, r.Handle, int64(r.Offset), int64(r.Length))
		return holeSize
	}
	t.putReadHead(b, r)
	return len(b)
}

// isZero reports whether b, longer than a hole chunk, is all zeros. On data it
// looks at a few bytes.
func isZero(b []byte) bool {
	if len(b) <= holeSize {
		return false
	}
	return binary.NativeEndian.Uint64(b) == 0 && bytes.Equal(b[8:], b[:len(b)-8])
}

// putPieceHead writes a hole chunk for zeros, and for other pieces what comes before
// their data; it is the length of what was written.
func putPieceHead(b []byte, r request, x *engine.Piece, last bool) int {
	flags := uint16(0)
	if last {
		flags = chunkDone
	}
	if x.How == engine.Zeros {
		putHole(b, flags, r.Handle, x.Off, x.Len)
		return holeSize
	}
	putData(b, flags, r.Handle, x.Off, x.Len)
	return dataHeaderSize
}

const (
	// maxPart is how much of a long read is read, and then sent, at a time, bytes. The
	// next part is read while the client takes this one, and a client that takes
	// nothing holds few of them.
	maxPart = 1 << 20
	// minPart is the least that such a part is worth, bytes.
	minPart = 64 << 10
)

// read answers a READ; it may take long.
func (w *worker) read(r request) {
	n := int64(r.Length)
	switch {
	case n < sendfileMin:
		w.readShort(r)
	case w.t.inOnePiece(r):
		w.readWhole(r)
	default:
		w.readInParts(r)
	}
}

// piecesAt are the pieces of the plan from off on, which is where the last ones ended;
// the plan is made where there is none, and goes up to end at most.
func (w *worker) piecesAt(off, end int64) ([]engine.Piece, error) {
	all := w.plan.Pieces()
	for i := range all {
		if all[i].Off == off {
			return all[i:], nil
		}
	}
	return w.replan(off, end)
}

func (w *worker) replan(off, end int64) ([]engine.Piece, error) {
	err := w.t.export.Plan(w.t.ctx, w.plan, off, end-off, engine.PlanOptions{})
	return w.plan.Pieces(), err
}

// move reads the pieces that have a Dst; nothing counts once the export is withdrawn.
func (w *worker) move() error {
	err := w.plan.Read(w.t.ctx)
	if w.t.revoked.Load() {
		return ErrRevoked
	}
	return err
}

// fill reads [off, off+len(dst)), in as many plans as that takes.
func (w *worker) fill(dst []byte, off int64) error {
	for end := off + int64(len(dst)); off < end; {
		pieces, err := w.piecesAt(off, end)
		if err == nil && pieces[0].End() > end { // of a plan that went further
			pieces, err = w.replan(off, end)
		}
		if err != nil {
			return err
		}
		base := off
		for i := range pieces {
			if x := &pieces[i]; x.End() <= end {
				x.Dst = dst[x.Off-base:][:x.Len]
				off = x.End()
			}
		}
		if err := w.move(); err != nil {
			return err
		}
		for i := range pieces {
			pieces[i].Dst = nil
		}
		dst = dst[off-base:]
	}
	return nil
}

// buffer is memory for n bytes, or for as much as there is now, least bytes at the
// least.
func (w *worker) buffer(least, n int) (*buffer, error) {
	taken, err := w.t.take(bufferSize(least), bufferSize(n))
	if err != nil {
		return nil, err
	}
	for bufferSize(n) > taken {
		n = 1 << (classOf(n) - 1)
	}
	w.t.share.Give(taken - bufferSize(n))
	return w.t.session.srv.pool.get(n+headerRoom, w.t.share, bufferSize(n)), nil
}

// room is how many bytes of data a buffer has room for, beside headers.
func (b *buffer) room() int64 { return int64(len(b.b)) - headerRoom }

// readShort answers a READ that is short enough to be read whole.
func (w *worker) readShort(r request) {
	t, n := w.t, int(r.Length)
	buf, err := w.buffer(n, n)
	if err != nil {
		t.fail(r, err)
		return
	}
	b := buf.b[:t.readHead()+n]
	if err := w.fill(b[t.readHead():], int64(r.Offset)); err != nil {
		buf.release()
		t.fail(r, err)
		return
	}
	t.replies.push(segment{mem: b[:t.putRead(b, r)], buf: buf, done: &t.session.served, data: int64(n)})
}

// readInParts answers a long READ with a chunk for each piece, some at a time.
func (w *worker) readInParts(r request) {
	off, end := int64(r.Offset), int64(r.Offset)+int64(r.Length)
	for off < end {
		// What comes next need not look at the context: a decoder does not.
		next, err := off, context.Cause(w.t.ctx)
		if err == nil {
			next, err = w.part(r, off, end)
		}
		if err != nil {
			w.t.fail(r, err)
			return
		}
		if off = next; off < end {
			w.t.replies.flush()
		}
	}
}

// part answers a READ from off on, as far as the memory goes that it gets, and is the
// guest offset just past what it has answered.
func (w *worker) part(r request, off, end int64) (int64, error) {
	pieces, err := w.piecesAt(off, end)
	if err != nil {
		return 0, err
	}
	_, want := w.fitting(pieces, maxPart)
	if want == 0 && !w.inPlace(&pieces[0]) { // the first alone is longer
		want = maxPart
	}
	buf, err := w.buffer(int(min(want, minPart)), int(want))
	if err != nil {
		return 0, err
	}
	pieces, _ = w.fitting(pieces, buf.room())
	if len(pieces) == 0 {
		if pieces, err = w.replan(off, min(off+buf.room(), end)); err == nil {
			pieces, _ = w.fitting(pieces, buf.room())
		}
	}
	if err == nil {
		err = w.sendPart(r, pieces, buf, end)
	}
	if err != nil {
		buf.release()
		return 0, err
	}
	return pieces[len(pieces)-1].End(), nil
}

// minHole is from how many bytes on zeros are a chunk of their own.
const minHole = 512

// inPlace reports whether a piece needs no memory for its bytes.
func (w *worker) inPlace(x *engine.Piece) bool {
	return x.How == engine.Zeros && x.Len >= minHole || w.t.fileInPlace(x)
}

// fitting are the pieces that room bytes of memory are enough for, beside their
// headers, and how many they need.
func (w *worker) fitting(pieces []engine.Piece, room int64) (fit []engine.Piece, need int64) {
	for i := range pieces {
		x := &pieces[i]
		more := x.Len
		if w.inPlace(x) {
			more = 0
		}
		if need+more > room || (i+1)*holeSize > headerRoom {
			return pieces[:i], need
		}
		need += more
	}
	return pieces, need
}

// sendPart reads pieces into buf, with their headers, and pushes them. buf stays the
// caller's if it fails.
func (w *worker) sendPart(r request, pieces []engine.Piece, buf *buffer, end int64) error {
	t := w.t
	segs := make([]segment, 0, 2*len(pieces)+1)
	used, cut := 0, 0
	for i := 0; i < len(pieces); i++ {
		x := &pieces[i]
		if w.inPlace(x) {
			used += putPieceHead(buf.b[used:], r, x, x.End() == end)
			if x.How == engine.InFile {
				segs = append(segs, segment{mem: buf.b[cut:used]})
				segs = appendInPlace(segs, x)
				cut = used
			}
			continue
		}
		// What has to be read is one chunk, as far as it goes.
		run := i
		for run+1 < len(pieces) && !w.inPlace(&pieces[run+1]) {
			run++
		}
		flags, until := uint16(0), pieces[run].End()
		if until == end {
			flags = chunkDone
		}
		putData(buf.b[used:], flags, r.Handle, x.Off, until-x.Off)
		used += dataHeaderSize
		for ; i < run; i++ {
			used += setDst(&pieces[i], buf.b[used:])
		}
		used += setDst(&pieces[i], buf.b[used:])
	}
	if err := w.move(); err != nil {
		for i := range segs {
			segs[i].release()
		}
		return err
	}
	for i := range pieces {
		pieces[i].Dst = nil // what comes later of this plan is read by itself
	}
	guest := pieces[len(pieces)-1].End() - pieces[0].Off
	segs = append(segs, segment{mem: buf.b[cut:used], buf: buf, done: &t.session.served, data: guest})
	t.replies.push(segs...)
	return nil
}

// setDst has a piece read to the beginning of b, and is its length.
func setDst(x *engine.Piece, b []byte) int {
	x.Dst = b[:x.Len]
	return int(x.Len)
}

// maxWhole is how much of a READ that is answered in one piece is read before the
// answer begins, bytes: what Linux's nbd asks for at most where it is not told to ask
// for more.
const maxWhole = 2 << 20

// readWhole answers a long READ in one piece.
func (w *worker) readWhole(r request) {
	t, n := w.t, int(r.Length)
	off, end := int64(r.Offset), int64(r.Offset)+int64(n)
	pieces, err := w.piecesAt(off, end)
	if err != nil {
		t.fail(r, err)
		return
	}
	if w.plan.End() == end && t.sentInPlace(pieces) {
		w.sendInPlace(r)
		return
	}
	if n <= maxWhole && bufferSize(n) <= t.session.srv.mem.Size()/8 {
		w.readShort(r)
		return
	}
	if err := w.stream(r); err != nil {
		t.fail(r, err)
	}
}

// sendInPlace answers with zeros and ranges of files, as the plan has them.
func (w *worker) sendInPlace(r request) {
	t := w.t
	buf, err := w.buffer(0, 0)
	if err != nil {
		t.fail(r, err)
		return
	}
	var segs []segment
	used, cut := 0, 0
	t.putInPlace(r, w.plan, buf.b, &used, func(x *engine.Piece) {
		segs = append(segs, segment{mem: buf.b[cut:used]})
		cut = used
		segs = appendInPlace(segs, x)
	})
	segs = append(segs, segment{mem: buf.b[cut:used], buf: buf, done: &t.session.served, data: int64(r.Length)})
	t.replies.push(segs...)
}

// stream answers a READ that is too long to be read whole: its beginning is read, and
// then, part by part, it has the connection to itself. What fails after the first
// part ends the connection, as the answer has promised all of it. It fails where
// nothing was promised yet.
func (w *worker) stream(r request) error {
	t := w.t
	off, end := int64(r.Offset), int64(r.Offset)+int64(r.Length)
	buf, err := w.buffer(minPart, maxPart)
	if err != nil {
		return err
	}
	defer buf.release()
	head := t.readHead()
	part := buf.b[head:][:min(buf.room(), end-off)]
	if err := w.fill(part, off); err != nil {
		return err
	}
	t.putReadHead(buf.b, r)
	first := true
	t.replies.alone(func(out outlet) error {
		for {
			begin := head
			if first {
				begin, first = 0, false
			}
			if err := out.send([]segment{{mem: buf.b[begin : head+len(part)]}}); err != nil {
				return err
			}
			t.session.served.Add(int64(len(part)))
			if off += int64(len(part)); off == end {
				return nil
			}
			part = buf.b[head:][:min(buf.room(), end-off)]
			if err := w.fill(part, off); err != nil {
				t.log.Warn("NBD read failed in the middle of its answer", "offset", off, "error", err)
				return err
			}
		}
	})
	return nil
}
