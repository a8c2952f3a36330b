package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// transmission is the second phase of a session: one goroutine reads requests
// and answers what needs no waiting; workers do the rest. See doc.go.
type transmission struct {
	*deal
	session *session
	conn    net.Conn
	size    uint64
	log     *slog.Logger
	mem     *budget
	replies *replies
	direct  bool // files can be sent by sendfile
	stall   atomic.Int64
	failed  rate.Sometimes // logs reads that fail: a client can make as many as it likes

	ctx     context.Context // of every read; ends with the connection. Held because this type owns the goroutines.
	cancel  context.CancelCauseFunc
	revoked atomic.Bool
	slots   chan struct{} // one for each worker
	workers sync.WaitGroup

	// local: lately, reads turned out to lie in a local file, so asking on the
	// reader's goroutine is worth it and waits for no network.
	local atomic.Bool

	// Of the reading goroutine alone: replies that are not pushed yet.
	block   *buffer   // headers and short data, one after the other
	filled  int       // bytes of block in use
	cut     int       // … of which so many are in pending already
	pending []segment // what comes before block[cut:filled]
	guest   int64     // guest bytes in them
}

// blockSize is how many bytes of short replies are written together.
const blockSize = 64 << 10

// failureInterval is how often a session logs that a read has failed.
const failureInterval = 10 * time.Second

// maxQueue is how many segments may wait for the writer before the reader
// waits, too.
const maxQueue = 128

func newTransmission(x *session, d *deal, ctx context.Context, cancel context.CancelCauseFunc, log *slog.Logger) *transmission {
	cfg := x.srv.cfg
	t := &transmission{
		deal: d, session: x, conn: x.conn, size: uint64(d.export.Size()), log: log,
		mem: newBudget(cfg.ConnBytes, x.srv.mem), ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, cfg.MaxInFlight),
	}
	t.failed.First, t.failed.Interval = 1, failureInterval
	t.stall.Store(int64(cfg.StallTimeout))
	var out outlet = &stream{x.conn, &t.stall}
	if s := newSocket(x.conn, &t.stall); s != nil {
		out, t.direct = s, true
	}
	t.replies = newReplies(out, func(err error) {
		cancel(fmt.Errorf("%w: %w", ErrHangUp, err))
		x.conn.Close() // wakes the reader
	})
	t.local.Store(true)
	return t
}

// run serves requests until the connection is to be closed, no worker runs, and
// nothing refers to the export's files.
func (t *transmission) run() error {
	over := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { t.watch(over) })
	err := t.readRequests()
	if err != nil && err != errDisconnect {
		// Nobody waits for an answer: stop what is under way.
		t.cancel(err)
		t.conn.Close()
	}
	t.finishInline()
	// After DISC, a client that sends no more is as it should be.
	stop := t.watchHangUp(err != errDisconnect)
	t.workers.Wait()
	failed := t.replies.drain()
	stop()
	close(over)
	watcher.Wait()
	if err == nil || err == errDisconnect {
		err = failed
	}
	return err
}

// watch ends the session when its export is withdrawn: the client is told by
// EPERM for a moment, then by the end of the connection.
func (t *transmission) watch(over <-chan struct{}) {
	select {
	case <-t.export.Revoked():
	case <-over:
		return
	}
	t.revoked.Store(true)
	t.cancel(ErrRevoked)
	grace := time.NewTimer(revokeGrace)
	defer grace.Stop()
	select {
	case <-grace.C:
	case <-over:
		return
	}
	t.stall.Store(int64(closingStall))
	t.conn.SetWriteDeadline(time.Now().Add(closingStall))
	t.session.wind()
}

func (x *session) isWinding() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.winding
}

// serve answers a request, or sees to it that a worker does. An error ends the
// connection.
func (t *transmission) serve(r request) error {
	if errno, text := r.check(t.size, t.structured, t.allocation); errno != 0 {
		return t.failInline(r, errno, text)
	}
	if t.revoked.Load() {
		return t.failInline(r, protocol.TRANSMISSION_ERROR_EPERM, outcomeOf(ErrRevoked).text)
	}
	switch r.Type {
	case cmdFlush: // nothing is ever written
		return t.doneInline(r)
	case cmdCache:
		t.export.Prefetch(int64(r.Offset), int64(r.Length))
		return t.doneInline(r)
	case cmdBlockStatus:
		return t.dispatch(r, statusBytes, t.blockStatus)
	}
	if t.local.Load() {
		if done, err := t.readInline(r); done || err != nil {
			return err
		}
	}
	return t.dispatch(r, int(r.Length), t.read)
}

// dispatch gives a request to a worker of its own, with the budget for n bytes of
// data. It waits for both, and for replies that nobody takes: an error or a hole
// frees its worker's place and most of its budget at once, however long it is
// queued. Meanwhile no request is read, which is what slows down a client that
// asks for more than it takes. A goroutine per request measured the same as
// goroutines that are kept, and an idle connection has none.
func (t *transmission) dispatch(r request, n int, work func(request, *lease)) error {
	if err := t.replies.wait(maxQueue); err != nil {
		return t.turnedAway(r, err)
	}
	if err := t.slot(); err != nil {
		return t.turnedAway(r, err)
	}
	cost := footprint(n)
	if err := t.take(cost); err != nil {
		<-t.slots
		return t.turnedAway(r, err)
	}
	t.workers.Add(1)
	go func() {
		defer t.workers.Done()
		defer func() { <-t.slots }()
		l := &lease{t: t, n: cost}
		work(r, l)
		l.end()
		if r.Length < sendfileMin {
			// Workers that are ready to run add their replies first, and one
			// system call writes them all. Long replies would gain nothing.
			runtime.Gosched()
		}
		t.replies.flush()
	}()
	return nil
}

// turnedAway: waiting for room ended with err.
func (t *transmission) turnedAway(r request, err error) error {
	if t.revoked.Load() {
		return t.failInline(r, protocol.TRANSMISSION_ERROR_EPERM, outcomeOf(ErrRevoked).text)
	}
	return err
}

// slot waits until another worker may run.
func (t *transmission) slot() error {
	select {
	case t.slots <- struct{}{}:
		return nil
	default:
	}
	if err := t.flushInline(); err != nil {
		return err
	}
	defer t.watchHangUp(true)()
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// take waits for n bytes of the budgets.
func (t *transmission) take(n int64) error {
	if t.mem.tryTake(n) {
		return nil
	}
	if err := t.flushInline(); err != nil {
		return err
	}
	defer t.watchHangUp(true)()
	return t.mem.take(t.ctx, n)
}

// buffer is memory for n bytes, waited for if need be.
func (t *transmission) buffer(n int) (*buffer, error) {
	cost := bufferSize(n)
	if err := t.take(cost); err != nil {
		return nil, err
	}
	return t.session.srv.pool.get(n, t.mem, cost), nil
}

// hangUpInterval is how soon a hang-up is seen while no request is read.
const hangUpInterval = 250 * time.Millisecond

// watchHangUp looks whether the client is gone until stop is called, for the
// times when the reader waits for something else than requests: otherwise the
// reads of a client that is gone would keep each other waiting. half: a client
// that will send no more counts as gone.
func (t *transmission) watchHangUp(half bool) (stop func()) {
	over := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(hangUpInterval)
		defer tick.Stop()
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			if hungUp(t.conn, half) {
				t.cancel(ErrHangUp)
				return
			}
		}
	})
	return func() {
		close(over)
		watcher.Wait()
	}
}

// hungUp reports whether the other end of a socket is closed; half: or sends no more.
func hungUp(conn net.Conn, half bool) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var look, gone int16 = 0, unix.POLLHUP | unix.POLLERR
	if half {
		look, gone = unix.POLLRDHUP, gone|unix.POLLRDHUP
	}
	var is bool
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: look}}
		if n, err := unix.Poll(p, 0); err == nil && n == 1 {
			is = p[0].Revents&gone != 0
		}
	})
	return is || errors.Is(err, net.ErrClosed)
}

// lease is the budget that a worker holds until it turns into a buffer's.
type lease struct {
	t *transmission
	n int64
}

// buffer is memory for n bytes; it takes the lease over. Only once.
func (l *lease) buffer(n int) *buffer {
	taken := l.n
	l.n = 0
	return l.t.session.srv.pool.get(n, l.t.mem, taken)
}

// shrink gives back what is not needed for n bytes of data, if what is needed is
// free besides: a share is taken and given as a whole (budget.give).
func (l *lease) shrink(n int) {
	if less := bufferSize(n); less < l.n && l.t.mem.tryTake(less) {
		l.t.mem.give(l.n)
		l.n = less
	}
}

func (l *lease) end() {
	if l.n > 0 {
		l.t.mem.give(l.n)
		l.n = 0
	}
}

// room makes sure that n bytes fit into the block, which may flush. n is at
// most blockSize.
func (t *transmission) room(n int) error {
	if t.block != nil && t.filled+n <= blockSize {
		return nil
	}
	if err := t.flushInline(); err != nil {
		return err
	}
	b, err := t.buffer(blockSize)
	t.block = b
	return err
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
	if t.block == nil {
		return false
	}
	t.pending = append(t.pending, segment{
		mem: t.block.b[t.cut:t.filled], buf: t.block, done: &t.session.served, data: t.guest,
	})
	t.replies.push(t.pending...)
	clear(t.pending)
	t.pending, t.block, t.filled, t.cut, t.guest = t.pending[:0], nil, 0, 0, 0
	return true
}

// doneInline answers a request that has no data with success. A simple reply is
// right for everything but READ, whatever was negotiated.
func (t *transmission) doneInline(r request) error {
	if err := t.room(simpleSize); err != nil {
		return err
	}
	putSimple(t.block.b[t.filled:], r.Handle, 0)
	t.filled += simpleSize
	return nil
}

func (t *transmission) failInline(r request, errno uint32, text string) error {
	b := t.failure(r, errno, text, nil)
	if err := t.room(len(b)); err != nil {
		if !t.revoked.Load() {
			return err
		}
		// The withdrawal has ended the waiting for memory; this little is free.
		t.replies.push(segment{mem: b})
		t.replies.flush()
		return t.replies.wait(maxQueue)
	}
	t.filled += copy(t.block.b[t.filled:], b)
	return nil
}

// fail answers a request with what the table says of err; at is the guest
// offset where it failed, if that is known. The log has the whole error.
func (t *transmission) fail(r request, err error, at *int64) {
	if t.revoked.Load() {
		err = ErrRevoked
	}
	o := outcomeOf(err)
	if o.errno == errnoIO {
		t.failed.Do(func() {
			t.log.Warn("NBD read failed", "offset", r.Offset, "length", r.Length, "error", err)
		})
	}
	t.replies.push(segment{mem: t.failure(r, o.errno, o.text, at)})
}

// failure is an error reply: with a text, and an offset if at is not nil, where
// chunks were negotiated.
func (t *transmission) failure(r request, errno uint32, text string, at *int64) []byte {
	if !t.structured {
		b := make([]byte, simpleSize)
		putSimple(b, r.Handle, errno)
		return b
	}
	kind, n := chunkError, 4+2+len(text)
	if at != nil {
		kind, n = chunkErrorOffset, n+8
	}
	b := make([]byte, chunkSize, chunkSize+n)
	putChunk(b, chunkDone, kind, r.Handle, n)
	b = binary.BigEndian.AppendUint32(b, errno)
	b = binary.BigEndian.AppendUint16(b, uint16(len(text)))
	b = append(b, text...)
	if at != nil {
		b = binary.BigEndian.AppendUint64(b, uint64(*at))
	}
	return b
}

// putSimple writes a simple reply ("Simple reply message").
func putSimple(b []byte, handle uint64, errno uint32) {
	binary.BigEndian.PutUint32(b, protocol.TRANSMISSION_MAGIC_REPLY)
	binary.BigEndian.PutUint32(b[4:], errno)
	binary.BigEndian.PutUint64(b[8:], handle)
}

// putChunk writes the head of a chunk ("Structured reply chunk message") with n
// bytes of payload.
func putChunk(b []byte, flags, kind uint16, handle uint64, n int) {
	binary.BigEndian.PutUint32(b, chunkMagic)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], kind)
	binary.BigEndian.PutUint64(b[8:], handle)
	binary.BigEndian.PutUint32(b[16:], uint32(n))
}

// putData writes the head of an OFFSET_DATA chunk with n bytes of data to follow.
func putData(b []byte, flags uint16, handle uint64, off, n int64) {
	putChunk(b, flags, chunkOffsetData, handle, int(n)+8)
	binary.BigEndian.PutUint64(b[chunkSize:], uint64(off))
}

// putHole writes a whole OFFSET_HOLE chunk.
func putHole(b []byte, flags uint16, handle uint64, off, n int64) {
	putChunk(b, flags, chunkOffsetHole, handle, 12)
	binary.BigEndian.PutUint64(b[chunkSize:], uint64(off))
	binary.BigEndian.PutUint32(b[chunkSize+8:], uint32(n))
}
