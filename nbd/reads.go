package nbd

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sync/errgroup"

	"glanced/formats"
)

// readInline answers a READ on the reader's goroutine if its bytes lie in one
// piece in a local file and in the page cache, so that nothing is waited for.
// False: a worker has to.
func (t *transmission) readInline(r request) (done bool, err error) {
	off, n := int64(r.Offset), int64(r.Length)
	f, pos, ok := t.export.FileRange(t.ctx, off, n)
	if !ok {
		t.local.Store(false) // a worker sets it again
		return false, nil
	}
	head := simpleSize
	if t.structured {
		head = dataHeaderSize
	}
	if n < sendfileMin {
		if err := t.room(head + int(n)); err != nil {
			return t.revoked.Load(), t.turnedAway(r, err)
		}
		b := t.block.b[t.filled:][:head+int(n)]
		if !readCached(f, b[head:], pos) {
			return false, nil
		}
		t.filled += t.putRead(b, r)
		t.guest += n
		return true, nil
	}
	file := fileRange{f, pos, n}
	if !t.direct || !file.cached() {
		return false, nil
	}
	if err := t.room(head); err != nil {
		return t.revoked.Load(), t.turnedAway(r, err)
	}
	t.putReadHead(t.block.b[t.filled:], r)
	t.filled += head
	t.pending = append(t.pending, segment{mem: t.block.b[t.cut:t.filled]}, segment{file: file})
	t.cut = t.filled
	t.guest += n
	return true, nil
}

// putReadHead writes what comes before the data of a READ that is answered whole.
func (t *transmission) putReadHead(b []byte, r request) {
	if t.structured {
		putData(b, chunkDone, r.Handle, int64(r.Offset), int64(r.Length))
	} else {
		putSimple(b, r.Handle, 0)
	}
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

// smallRead is up to how many bytes a read is not worth asking for extents: zeros
// are seen in the data, and no part is long enough for sendfile.
const smallRead = sendfileMin - 1

// read answers a READ; it may take long. A worker's.
func (t *transmission) read(r request, l *lease) {
	off, n := int64(r.Offset), int64(r.Length)
	if n <= smallRead {
		t.readWhole(r, l)
		if !t.local.Load() {
			if _, _, ok := t.export.FileRange(t.ctx, off, n); ok {
				t.local.Store(true)
			}
		}
		return
	}
	runs, err := t.plan(off, n)
	if err != nil {
		t.fail(r, err, nil)
		return
	}
	// A simple reply and one with DF come in one piece, which may be a file, or,
	// as a chunk, a hole.
	whole := !t.structured || r.CommandFlags&cmdFlagDF != 0
	only := runs[0].kind
	if len(runs) == 1 && only == memory || len(runs) > 1 && whole || only == hole && !t.structured {
		t.readWhole(r, l)
		return
	}
	t.pushRuns(r, l, runs)
}

// readWhole answers a READ in one piece, from memory.
func (t *transmission) readWhole(r request, l *lease) {
	head := simpleSize
	if t.structured {
		head = dataHeaderSize
	}
	buf := l.buffer(head + int(r.Length))
	b := buf.b[:head+int(r.Length)]
	if err := t.readAt(b[head:], int64(r.Offset)); err != nil {
		buf.release()
		t.fail(r, err, nil)
		return
	}
	t.replies.push(segment{mem: b[:t.putRead(b, r)], buf: buf, done: &t.session.served, data: int64(r.Length)})
}

// readAt reads from the export; nothing counts once that is withdrawn.
func (t *transmission) readAt(p []byte, off int64) error {
	err := t.export.ReadAt(t.ctx, p, off)
	if t.revoked.Load() {
		return ErrRevoked
	}
	return err
}

// How a run of a read is answered.
type runKind uint8

const (
	hole   runKind = iota // with a hole chunk
	memory                // from a buffer that ReadAt fills
	file                  // by sendfile
)

// run is a piece of a READ.
type run struct {
	kind   runKind
	off, n int64     // guest range
	file   fileRange // if kind is file
}

const (
	minHole = 512                   // bytes; a shorter run of zeros is sent as data
	maxRuns = headerRoom / holeSize // per reply; the rest of a disk more fragmented is one run of memory
)

// plan cuts a guest range into runs of different kinds, by the export's extents.
func (t *transmission) plan(off, n int64) ([]run, error) {
	runs := make([]run, 0, 8)
	add := func(x run) {
		if i := len(runs) - 1; i >= 0 && (runs[i].kind == x.kind && x.kind != file || i+1 == maxRuns) {
			runs[i].n += x.n
			if i+1 == maxRuns {
				runs[i].kind, runs[i].file = memory, fileRange{}
			}
			return
		}
		runs = append(runs, x)
	}
	// Asked only after the walk: an export may hold a lock during it.
	var data []run
	at := off
	err := t.export.Extents(t.ctx, off, n, func(x formats.Extent) bool {
		if x.Off != at || x.Len <= 0 || x.Len > off+n-at {
			return false // no map to go by: ReadAt has the last word
		}
		at = x.End()
		kind := memory
		switch {
		case !x.Kind.Stored() && x.Len >= minHole:
			kind = hole
		case x.Kind == formats.Data && x.Len >= sendfileMin && t.direct:
			kind = file
		}
		data = append(data, run{kind: kind, off: x.Off, n: x.Len})
		return len(data) <= 4*maxRuns
	})
	if err != nil {
		return nil, err
	}
	if at != off+n { // also when it is too fragmented to be worth it
		return []run{{kind: memory, off: off, n: n}}, nil
	}
	for _, x := range data {
		if x.kind == file {
			x.kind = memory
			if f, pos, ok := t.export.FileRange(t.ctx, x.off, x.n); ok {
				t.local.Store(true)
				if r := (fileRange{f, pos, x.n}); r.cached() {
					x.kind, x.file = file, r
				}
			}
		}
		add(x)
	}
	return runs, nil
}

// readers is how many runs of one request are read at once.
const readers = 4

// pushRuns answers a READ run by run: with a chunk each, or with the one file run
// of a simple reply.
func (t *transmission) pushRuns(r request, l *lease, runs []run) {
	total := 0
	for _, x := range runs {
		total += dataHeaderSize
		switch x.kind {
		case hole:
			total += holeSize - dataHeaderSize
		case memory:
			total += int(x.n)
		}
	}
	l.shrink(total - headerRoom) // holes and files take no memory for data
	buf := l.buffer(total)
	b := buf.b[:total]

	var reading errgroup.Group
	reading.SetLimit(readers)
	segs := make([]segment, 0, 2*len(runs))
	used, cut := 0, 0
	for i, x := range runs {
		flags := uint16(0)
		if i == len(runs)-1 {
			flags = chunkDone
		}
		switch {
		case x.kind == hole:
			putHole(b[used:], flags, r.Handle, x.off, x.n)
			used += holeSize
			continue
		case t.structured:
			putData(b[used:], flags, r.Handle, x.off, x.n)
			used += dataHeaderSize
		default:
			putSimple(b[used:], r.Handle, 0)
			used += simpleSize
		}
		if x.kind == file {
			segs = append(segs, segment{mem: b[cut:used]}, segment{file: x.file})
			cut = used
			continue
		}
		p := b[used:][:x.n]
		used += int(x.n)
		reading.Go(func() error {
			if err := t.readAt(p, x.off); err != nil {
				return &runError{x.off, err}
			}
			return nil
		})
	}
	if err := reading.Wait(); err != nil {
		buf.release()
		failed := err.(*runError)
		t.fail(r, failed.err, &failed.off)
		return
	}
	segs = append(segs, segment{mem: b[cut:used], buf: buf, done: &t.session.served, data: int64(r.Length)})
	t.replies.push(segs...)
}

// runError is a read that failed, and where.
type runError struct {
	off int64
	err error
}

func (e *runError) Error() string { return e.err.Error() }
