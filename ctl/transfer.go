package ctl

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"

	"glanced/backends/budget"
	"glanced/catalog"
	"glanced/formats/engine"
)

// sendPiece is how much is planned, read and then written at a time, bytes: after
// each, we look again whether the image was revoked.
const sendPiece = 1 << 20

// inPlace is from how many bytes on zeros and parts of local files are sent as they
// are, instead of being read together with what is beside them.
const inPlace = 64 << 10

// body is what can be sent, or a range of it: a catalog.Handle, or an image that
// is encoded as it is read.
type body interface {
	Size() int64
	ReadAt(ctx context.Context, p []byte, off int64) error
}

// planner is an ability of a body; see catalog.Handle.
type planner interface {
	Plan(ctx context.Context, p *engine.Plan, off, n int64, o engine.PlanOptions) error
	Prefetch(off, n int64)
}

var (
	_ body    = (*catalog.Handle)(nil)
	_ planner = (*catalog.Handle)(nil)
)

// transfer sends one range of a body: what lies in a local file by sendfile, where
// the body can plan, the rest through a buffer.
type transfer struct {
	w    *patientWriter
	b    body
	from planner   // b, if it has that ability
	rest byteRange // yet to be sent

	plan  engine.Plan
	ready int64         // bytes of rest that are planned and read
	buf   []byte        // what of them was read, at its place in them; nil until needed
	share *budget.Share // of the memory for buffers
	piece int64         // how much is sent at a time, bytes: sendPiece, or what the buffer holds

	source *os.File // as a plan named it
	file   *os.File // source opened again, for a position of its own
}

func newTransfer(w *patientWriter, b body, part byteRange, memory *budget.Budget) *transfer {
	t := &transfer{w: w, b: b, rest: part, share: memory.Share(), piece: sendPiece}
	t.from, _ = b.(planner)
	return t
}

// prepare plans and reads the beginning of rest.
func (t *transfer) prepare(ctx context.Context) error {
	if t.from == nil {
		t.makeBuffer()
		t.ready = min(t.rest.n, t.piece)
		return t.b.ReadAt(ctx, t.buf[:t.ready], t.rest.off)
	}
	if err := t.planPiece(ctx); err != nil {
		return err
	}
	moved := false
	for i := range t.plan.Pieces() {
		if x := &t.plan.Pieces()[i]; !sentInPlace(x) {
			x.Dst = t.buf[x.Off-t.rest.off:][:x.Len]
			moved = moved || x.How == engine.Moved
		}
	}
	if next := t.rest.n - t.ready; moved && next > 0 {
		t.from.Prefetch(t.rest.off+t.ready, min(next, sendPiece))
	}
	return t.plan.Read(ctx)
}

// planPiece plans the beginning of rest, and sees to it that there is a buffer if
// something has to be read.
func (t *transfer) planPiece(ctx context.Context) error {
	for {
		if err := t.from.Plan(ctx, &t.plan, t.rest.off, min(t.rest.n, t.piece), engine.PlanOptions{}); err != nil {
			return err
		}
		t.ready = t.plan.End() - t.rest.off
		if t.buf != nil || !slices.ContainsFunc(t.plan.Pieces(), func(x engine.Piece) bool { return !sentInPlace(&x) }) {
			return nil
		}
		if t.makeBuffer(); t.ready <= t.piece {
			return nil
		}
	}
}

// leastBuffer is what every transfer has, bytes, so that none waits for another one:
// a client may take what it likes of a download's time.
const leastBuffer = 64 << 10

// makeBuffer makes the buffer, as large as is worth it and as there is memory for.
func (t *transfer) makeBuffer() {
	if t.buf != nil {
		return
	}
	t.piece = min(t.rest.n, sendPiece)
	if t.piece > leastBuffer {
		t.piece = max(t.share.TryTake(leastBuffer, t.piece), leastBuffer)
	}
	t.buf = make([]byte, t.piece)
}

func sentInPlace(x *engine.Piece) bool {
	return x.Len >= inPlace && (x.How == engine.Zeros || x.How == engine.InFile)
}

// copy sends rest. It stops when the image is revoked (the handle then plans nothing
// more) or the client is gone, or takes nothing for too long.
func (t *transfer) copy(ctx context.Context) error {
	for t.rest.n > 0 {
		if t.ready == 0 {
			if err := t.prepare(ctx); err != nil {
				return fmt.Errorf("at byte %d: %w", t.rest.off, err)
			}
		}
		if err := t.send(); err != nil {
			return fmt.Errorf("at byte %d: %w", t.rest.off, err)
		}
		t.rest.off += t.ready
		t.rest.n -= t.ready
		t.ready = 0
	}
	return nil
}

// send writes what is ready: the pieces that are sent in place, and between them
// what was read.
func (t *transfer) send() error {
	read := int64(0) // of the buffer, up to here it was written or left out
	write := func(to int64) error {
		if read == to {
			return nil
		}
		_, err := t.w.Write(t.buf[read:to])
		return err
	}
	for i := range t.plan.Pieces() {
		x := &t.plan.Pieces()[i]
		if !sentInPlace(x) {
			continue
		}
		at := x.Off - t.rest.off
		if err := write(at); err != nil {
			return err
		}
		var err error
		if x.How == engine.Zeros {
			err = t.w.zeros(x.Len)
		} else {
			err = t.sendFile(x.File.File, x.File.Pos, x.Len)
		}
		if err != nil {
			return err
		}
		read = at + x.Len
	}
	err := write(t.ready)
	t.plan.Release()
	return err
}

// sendFile sends [pos, pos+n) of f. net/http hands an *os.File to sendfile(2) at
// the file's own position, which all readers of the handle share; so the file is
// opened a second time, by its descriptor, for a position of our own.
func (t *transfer) sendFile(f *os.File, pos, n int64) error {
	if t.source != f {
		t.closeFile()
		again, err := reopen(f)
		if err != nil {
			return err
		}
		t.source, t.file = f, again
	}
	if _, err := t.file.Seek(pos, io.SeekStart); err != nil {
		return err
	}
	return t.w.file(t.file, n)
}

// close lets go of the plan and the file.
func (t *transfer) close() {
	t.plan.Release()
	t.closeFile()
	t.share.Give(t.share.Held())
}

func (t *transfer) closeFile() {
	if t.file != nil {
		t.file.Close()
		t.file = nil
	}
}

func reopen(f *os.File) (again *os.File, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	if e := raw.Control(func(fd uintptr) { again, err = os.Open(fmt.Sprintf("/proc/self/fd/%d", fd)) }); e != nil {
		return nil, e
	}
	return again, err
}

// send answers with b, or the range of it that r asks for. The headers that speak
// of b are set already.
func (s *Server) send(w http.ResponseWriter, r *http.Request, b body, tag string) error {
	header := w.Header()
	part, partial := byteRange{0, b.Size()}, false
	var err error
	if cond := r.Header.Get("If-Range"); cond == "" || cond == tag {
		if part, partial, err = requestedRange(r, b.Size()); err != nil {
			return withoutChecksum(header, err)
		}
	}
	t := newTransfer(s.patient(w), b, part, s.memory)
	defer t.close()
	// Before the header, so that a store that fails at once is an answer still.
	if part.n > 0 {
		if err := t.prepare(r.Context()); err != nil {
			return withoutChecksum(header, err)
		}
	}
	writeHead(w, b.Size(), part, partial, tag)
	if err := t.copy(r.Context()); err != nil {
		s.breakOff(header, r, err)
	}
	return nil
}
