package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
	"golang.org/x/time/rate"

	"glanced/backends/budget"
	"glanced/formats/engine"
)

// transmission is the second phase of a session: one goroutine reads requests
// and answers what needs no waiting; workers do the rest. See doc.go.
type transmission struct {
	*negotiated
	session     *session
	conn        net.Conn
	size        uint64
	log         *slog.Logger
	share       *budget.Share // of the server's memory for replies
	workerShare *budget.Share // … for workers
	replies     *replies
	direct      bool // files can be sent by sendfile
	patience    *patience
	failed      rate.Sometimes // logs reads that fail: a client can make as many as it likes

	ctx     context.Context // of every read; ends with the connection. Held because this type owns the goroutines.
	cancel  context.CancelCauseFunc
	revoked atomic.Bool
	slots   chan struct{} // one for each worker
	workers sync.WaitGroup

	inline inline // of the reading goroutine alone
}

// failureInterval is how often a session logs that a read has failed.
const failureInterval = 10 * time.Second

// maxQueue is how many segments may wait for the writer before the reader
// waits, too.
const maxQueue = 128

func newTransmission(x *session, d *negotiated, ctx context.Context, cancel context.CancelCauseFunc, log *slog.Logger) *transmission {
	cfg := x.srv.cfg
	t := &transmission{
		negotiated: d, session: x, conn: x.conn, size: uint64(d.export.Size()), log: log,
		share: x.share, workerShare: x.workerShare, patience: &x.patience, ctx: ctx, cancel: cancel,
		slots: make(chan struct{}, cfg.MaxInFlight),
	}
	t.inline.plan = x.srv.plans.Get().(*engine.Plan)
	t.failed.First, t.failed.Interval = 1, failureInterval
	t.patience.set(cfg.StallTimeout)
	var out outlet = &stream{x.conn, t.patience}
	if s := newSocket(x.conn, t.patience); s != nil {
		out, t.direct = s, true
	}
	t.replies = newReplies(out, func(err error) {
		cancel(fmt.Errorf("%w: %w", ErrHangUp, err))
		x.conn.Close() // wakes the reader
	})
	return t
}

// run serves requests until the connection is to be closed, no worker runs, and
// nothing refers to the export's files.
func (t *transmission) run() error {
	over := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() { t.watchRevocation(over) })
	err := t.readRequests()
	ended := err == nil || err == errDisconnect || err == errHalfClosed
	if !ended {
		// Nobody waits for an answer: stop what is under way.
		t.cancel(err)
		t.conn.Close()
	}
	t.finishInline()
	stop := t.watchHangUp(err == errDisconnect)
	t.workers.Wait()
	failed := t.replies.drain()
	stop()
	close(over)
	watcher.Wait()
	t.session.srv.keepPlan(t.inline.plan)
	if ended || errors.Is(failed, errStalled) {
		err = failed
	}
	return err
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
		return t.dispatch(r, nil, (*worker).blockStatus)
	}
	done, err := t.readInline(r)
	if done || err != nil {
		return err
	}
	plan := t.inline.plan // what is known of the read goes with it
	t.inline.plan = t.session.srv.plans.Get().(*engine.Plan)
	return t.dispatch(r, plan, (*worker).read)
}

// worker answers one request on a goroutine of its own.
type worker struct {
	t    *transmission
	plan *engine.Plan // a READ's; nothing planned yet, or all of its range, or the beginning
}

// dispatch gives a request to a worker of its own. It waits for a place for one, and
// for replies that nobody takes: an error or a hole frees its worker's place at once,
// however long it is queued. What a worker takes beside its buffers is a budget of its
// own, so that nobody waits for the one while it holds the other. Meanwhile no request is read, which is what slows down a client that
// asks for more than it takes. A goroutine per request measured the same as
// goroutines that are kept, and an idle connection has none.
func (t *transmission) dispatch(r request, plan *engine.Plan, work func(*worker, request)) error {
	turnedAway := func(err error) error {
		t.session.srv.keepPlan(plan)
		return t.turnedAway(r, err)
	}
	if plan != nil {
		plan.Unpin()
	}
	if err := t.replies.wait(maxQueue); err != nil {
		return turnedAway(err)
	}
	if err := t.slot(); err != nil {
		return turnedAway(err)
	}
	if err := t.wait(t.workerShare, workerBytes); err != nil {
		<-t.slots
		return turnedAway(err)
	}
	t.workers.Add(1)
	go func() {
		defer t.workers.Done()
		defer func() { <-t.slots }()
		defer t.workerShare.Give(workerBytes)
		work(&worker{t: t, plan: plan}, r)
		t.session.srv.keepPlan(plan)
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
	defer t.watchHangUp(false)()
	select {
	case t.slots <- struct{}{}:
		return nil
	case <-t.ctx.Done():
		return context.Cause(t.ctx)
	}
}

// wait waits for n bytes of a share. The reader calls it; what it has answered goes out
// before it waits.
func (t *transmission) wait(share *budget.Share, n int64) error {
	if share.TryTake(n, n) > 0 {
		return nil
	}
	if err := t.flushInline(); err != nil {
		return err
	}
	defer t.watchHangUp(false)()
	defer t.session.srv.pressed(share)()
	_, err := share.Take(t.ctx, n, n)
	return err
}

// take waits for between least and most bytes of the server's memory.
func (t *transmission) take(least, most int64) (int64, error) {
	if got := t.share.TryTake(least, most); got > 0 {
		return got, nil
	}
	defer t.session.srv.pressed(t.share)()
	return t.share.Take(t.ctx, least, most)
}

// fail answers a request with what the table says of err; at is the guest
// offset where it failed, if that is known. The log has the whole error.
func (t *transmission) fail(r request, err error) {
	at := (*int64)(nil)
	var failed *engine.ReadError
	if errors.As(err, &failed) {
		at = &failed.Off
	}
	o := t.outcome(r, err)
	t.replies.push(segment{mem: errorReply(t.structured, r.Handle, o.errno, o.text, at)})
}

// outcome is what the client is told of a request that failed.
func (t *transmission) outcome(r request, err error) outcome {
	if t.revoked.Load() {
		err = ErrRevoked
	}
	o := outcomeOf(err)
	if o.errno == errnoIO {
		t.failed.Do(func() {
			t.log.Warn("NBD read failed", "offset", r.Offset, "length", r.Length, "error", err)
		})
	}
	return o
}
