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

	"golang.org/x/sys/unix"
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

	mu      sync.Mutex
	moving  bool // in the transmission phase
	winding bool // no further request is read
}

// keepAlive finds clients whose host is gone: one to two minutes of silence.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 45 * time.Second, Interval: 15 * time.Second, Count: 4}

func newSession(srv *Server, conn net.Conn, network string) *session {
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Neither failure hurts more than an idle connection kept too long.
		_ = tcp.SetNoDelay(true)
		_ = tcp.SetKeepAliveConfig(keepAlive)
	}
	return &session{srv: srv, conn: conn, peer: Peer{Network: network, Addr: conn.RemoteAddr()}, since: time.Now()}
}

// wind makes the session answer what it has received and then end: at once
// when it is still in the handshake.
func (x *session) wind() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.winding = true
	if x.moving {
		x.conn.SetReadDeadline(time.Unix(1, 0))
	} else {
		x.conn.SetDeadline(time.Unix(1, 0))
	}
}

// begin ends the handshake's deadline; false when the session winds down.
func (x *session) begin() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.winding || x.conn.SetDeadline(time.Time{}) != nil {
		return false
	}
	x.moving = true
	return true
}

// run is the session's life. It returns when the connection is closed, no read
// is under way, and the export is closed.
func (x *session) run() {
	defer x.conn.Close()
	log := x.srv.log.With("network", x.peer.Network, "peer", x.peer.Addr.String())
	ctx, cancel := context.WithCancelCause(x.srv.ctx)
	defer cancel(ErrHangUp)

	deal, err := x.negotiate(ctx)
	if err != nil {
		if !quiet(err) {
			log.Info("NBD handshake failed", "error", err)
		}
		return
	}
	if deal == nil { // the client only looked
		return
	}
	defer func() {
		if err := deal.export.Close(); err != nil {
			log.Warn("cannot close an NBD export", "export", deal.name, "error", err)
		}
	}()
	if !x.begin() {
		return
	}
	log = log.With("export", deal.name)
	log.Debug("NBD export opened", "structured", deal.structured, "allocation", deal.allocation)
	x.serving.Store(&deal.name)
	defer x.serving.Store(nil)
	err = newTransmission(x, deal, ctx, cancel, log).run()
	if err != nil && !quiet(err) {
		log.Info("NBD session ended", "bytes_read", x.served.Load(), "error", err)
		return
	}
	log.Debug("NBD session ended", "bytes_read", x.served.Load())
}

// maxHandshakes is how often the handshake's deadline may be set anew, in lengths
// of it: whoever lists a large catalog asks for each export in turn, and over TCP
// its own socket delays each question by up to 200 ms (MSG_MORE, Nagle).
const maxHandshakes = 30

// negotiate runs the handshake under its deadlines: one for each option, and one
// for all of them.
func (x *session) negotiate(ctx context.Context) (*deal, error) {
	limit := x.srv.cfg.HandshakeTimeout
	last := time.Now().Add(maxHandshakes * limit)
	renew := func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.winding {
			return
		}
		next := time.Now().Add(limit)
		if next.After(last) {
			next = last
		}
		x.conn.SetDeadline(next)
		acknowledge(x.conn)
	}
	h := &handshake{conn: x.conn, exports: x.srv.cfg.Exports, peer: x.peer, down: x.srv.isDown, log: x.srv.log, limit: limit, renew: renew}
	return h.run(ctx)
}

// acknowledge has a TCP socket acknowledge at once what comes next (TCP_QUICKACK,
// tcp(7); it does not last). qemu sends an option in two pieces, the second one
// only after the first was acknowledged, which the kernel else puts off by 40 ms.
func acknowledge(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			// A hint: failing costs time alone.
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		})
	}
}

// quiet reports whether err is an ordinary way for a connection to end.
func quiet(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, ErrHangUp) || errors.Is(err, ErrServerClosed) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded)
}
