package nbd

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"glanced/backends/budget"
)

// session is one connection, from accept to close. Its goroutine runs the
// handshake, then the transmission.
type session struct {
	srv   *Server
	conn  net.Conn
	peer  Peer
	since time.Time

	serving atomic.Pointer[string] // the export's name, in the transmission phase
	served  atomic.Int64           // guest bytes

	share       *budget.Share // of the server's memory for replies
	workerShare *budget.Share // … for workers
	patience    patience      // with its client, in the transmission phase
	unread      int           // what it had not taken when it was last looked at, bytes; look's
	cut         atomic.Pointer[error]

	mu           sync.Mutex
	transmitting bool // in the transmission phase
	draining     bool // no further request is read
}

func newSession(srv *Server, conn net.Conn, network string) *session {
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Neither failure hurts more than an idle connection kept too long.
		_ = tcp.SetNoDelay(true)
		_ = tcp.SetKeepAliveConfig(keepAlive)
	}
	peer := Peer{Network: network, Addr: conn.RemoteAddr()}
	if srv.cfg.Who != nil {
		peer.Who = srv.cfg.Who(conn)
	}
	return &session{srv: srv, conn: conn, peer: peer, since: time.Now(),
		share: srv.mem.Share(), workerShare: srv.workers.Share()}
}

// drain makes the session answer what it has received and then end: at once
// when it is still in the handshake.
func (x *session) drain() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.draining = true
	if x.transmitting {
		x.conn.SetReadDeadline(time.Unix(1, 0))
	} else {
		x.conn.SetDeadline(time.Unix(1, 0))
	}
}

func (x *session) isDraining() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.draining
}

// cutOff ends the session at once, for this reason.
func (x *session) cutOff(why error) {
	if x.cut.CompareAndSwap(nil, &why) {
		x.conn.Close()
	}
}

// begin ends the handshake's deadline; false when the session is being drained.
func (x *session) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.draining || x.conn.SetDeadline(time.Time{}) != nil {
		return false
	}
	x.transmitting = true
	return true
}

// run is the session's life. It returns when the connection is closed, no read
// is under way, and the export is closed.
func (x *session) run() {
	defer x.conn.Close()
	log := x.srv.log.With("network", x.peer.Network, "peer", x.peer.Addr.String())
	ctx, cancel := context.WithCancelCause(x.srv.ctx)
	defer cancel(ErrHangUp)

	d, err := x.negotiate(ctx)
	if err != nil {
		if !quiet(err) {
			log.Info("NBD handshake failed", "error", err)
		}
		return
	}
	if d == nil { // the client only looked
		return
	}
	defer func() {
		if err := d.export.Close(); err != nil {
			log.Warn("cannot close an NBD export", "export", d.name, "error", err)
		}
	}()
	if !x.begin() {
		return
	}
	log = log.With("export", d.name)
	log.Debug("NBD export opened", "structured", d.structured, "allocation", d.allocation)
	x.serving.Store(&d.name)
	defer x.serving.Store(nil)
	err = newTransmission(x, d, ctx, cancel, log).run()
	if cut := x.cut.Load(); cut != nil {
		err = *cut
	}
	switch {
	case errors.Is(err, errStalled): // somebody's machine may hang on it
		log.Warn("NBD client cut off", "bytes_read", x.served.Load(), "error", err)
		return
	case err != nil && !quiet(err):
		log.Info("NBD session ended", "bytes_read", x.served.Load(), "error", err)
		return
	}
	log.Debug("NBD session ended", "bytes_read", x.served.Load())
}

// negotiate runs the handshake under its deadlines: one for each option, and one
// for all of them.
func (x *session) negotiate(ctx context.Context) (*negotiated, error) {
	limit := x.srv.cfg.HandshakeTimeout
	last := time.Now().Add(maxHandshakes * limit)
	renew := func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.draining {
			return
		}
		next := time.Now().Add(limit)
		if next.After(last) {
			next = last
		}
		x.conn.SetDeadline(next)
		acknowledge(x.conn)
	}
	h := &handshake{conn: x.conn, exports: x.srv.cfg.Exports, peer: x.peer, down: x.srv.isDown, log: x.srv.log, limit: limit, renew: renew, share: x.srv.negotiating.Share()}
	return h.run(ctx)
}

// quiet reports whether err is an ordinary way for a connection to end.
func quiet(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, ErrHangUp) || errors.Is(err, ErrServerClosed) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}
