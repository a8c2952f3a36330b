package nbd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"glanced/backends/budget"
)

// How long a client may be silent, and how that is noticed.

const (
	// DefaultHandshakeTimeout is for each option of the negotiation, opening its export
	// included.
	DefaultHandshakeTimeout = 60 * time.Second
	// maxHandshakes is how often the handshake's deadline may be set anew, in lengths
	// of it: whoever lists a large catalog asks for each export in turn, and over TCP
	// its own socket delays each question by up to 200 ms (MSG_MORE, Nagle).
	maxHandshakes = 30

	// DefaultStallTimeout is how long a client may take no byte of the replies that
	// wait for it.
	DefaultStallTimeout = 30 * time.Second
	// pressedStall is the same while others wait for the memory that it holds.
	pressedStall = 3 * time.Second
	// closingStall is the same for the last replies of a connection that is being
	// closed.
	closingStall = 5 * time.Second

	// revokeGrace is how long a withdrawn export's connections still answer, with
	// EPERM, before they are closed.
	revokeGrace = time.Second

	// hangUpInterval is how soon a hang-up is seen while no request is read.
	hangUpInterval = 250 * time.Millisecond
)

// errStalled is why a connection was cut off whose client took no replies.
var errStalled = errors.New("the client takes no replies")

// keepAlive finds clients whose host is gone: one to two minutes of silence.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 45 * time.Second, Interval: 15 * time.Second, Count: 4}

// patience is how long the writer of a connection waits for its client, and since
// when it has. Safe for concurrent use.
type patience struct {
	limit atomic.Int64 // nanoseconds
	since atomic.Int64 // unix nanoseconds; 0: it does not wait
}

func (p *patience) set(d time.Duration) { p.limit.Store(int64(d)) }

// wait notes that the client takes nothing, and is when that is too long.
func (p *patience) wait() time.Time {
	now := time.Now()
	p.since.CompareAndSwap(0, now.UnixNano())
	return now.Add(time.Duration(p.limit.Load()))
}

// moved notes that the client took something.
func (p *patience) moved() {
	if p.since.Load() != 0 {
		p.since.Store(0)
	}
}

// waited is for how long the client has taken nothing of what waits for it.
func (p *patience) waited() time.Duration {
	since := p.since.Load()
	if since == 0 {
		return 0
	}
	return time.Since(time.Unix(0, since))
}

// failed makes err, of a write, tell that the client was too slow, where it was.
func (p *patience) failed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: it took nothing for %v", errStalled, time.Duration(p.limit.Load()))
	}
	return err
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

// watchHangUp looks whether the client is gone until stop is called, for the times
// when no request is read: otherwise the reads of a client that is gone would keep
// each other waiting. A client that has closed its half of the connection may wait for
// its answers: for as long as it likes after DISC, which is a promise, and else for the
// stall timeout, as a killed client's TCP says no more than that.
func (t *transmission) watchHangUp(promised bool) (stop func()) {
	over := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		tick := time.NewTicker(hangUpInterval)
		defer tick.Stop()
		var half time.Time // since when it sends no more
		for {
			select {
			case <-over:
				return
			case <-tick.C:
			}
			gone, silent := hungUp(t.conn)
			switch {
			case !silent || promised:
				half = time.Time{}
			case half.IsZero():
				half = time.Now()
			case time.Since(half) > t.session.srv.cfg.StallTimeout:
				gone = true
			}
			if gone {
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

// hungUp reports whether the other end of a socket is closed: in both directions
// (gone), or at least for sending (silent).
func hungUp(conn net.Conn) (gone, silent bool) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false, false
	}
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(p, 0); err == nil && n == 1 {
			gone = p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
			silent = p[0].Revents&unix.POLLRDHUP != 0
		}
	})
	return gone || errors.Is(err, net.ErrClosed), silent
}

// watchRevocation ends the session when its export is withdrawn: the client is told
// by EPERM for a moment, then by the end of the connection.
func (t *transmission) watchRevocation(over <-chan struct{}) {
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
	t.patience.set(closingStall)
	t.conn.SetWriteDeadline(time.Now().Add(closingStall))
	t.session.drain()
}

// waiter is somebody who waits for a share of the server's memory.
type waiter struct {
	share *budget.Share
	since time.Time
}

// pressed notes that somebody waits for a share of the server's memory, until over is
// called. Clients that hold as much and take nothing are cut off early if that lasts.
func (s *Server) pressed(share *budget.Share) (over func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &waiter{share, time.Now()}
	if s.waiting[w] = struct{}{}; len(s.waiting) == 1 {
		s.relieved = make(chan struct{})
		go s.relieve(s.relieved)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if delete(s.waiting, w); len(s.waiting) == 0 {
			close(s.relieved)
		}
	}
}

// relieve cuts off who takes nothing, until nobody waits.
func (s *Server) relieve(over <-chan struct{}) {
	tick := time.NewTicker(pressedStall / 3)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		for x := range s.sessions {
			x.look()
			if x.patience.waited() > pressedStall && s.holdsUp(x) {
				x.cutOff(fmt.Errorf("%w: it took nothing for %v, and others wait for the memory that its replies hold", errStalled, pressedStall))
			}
		}
		s.mu.Unlock()
	}
}

// look notes that the client takes something, or has room for more, though nobody has come
// to write it: on a busy machine that may take longer than a stalled client has. It is
// called by one goroutine at a time.
func (x *session) look() {
	since := x.patience.since.Load()
	if since == 0 {
		x.unread = 0
		return
	}
	unread, room := outgoing(x.conn)
	if room || unread < x.unread {
		x.patience.since.CompareAndSwap(since, time.Now().UnixNano())
	}
	x.unread = unread
}

// outgoing is how many bytes of what was sent the other end of a socket has not taken yet
// (SIOCOUTQ, unix(7) and tcp(7)), and whether more can be sent now. What cannot be told is
// as if the other end had taken nothing.
func outgoing(conn net.Conn) (unread int, room bool) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, false
	}
	_ = raw.Control(func(fd uintptr) {
		unread, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		room = err == nil && n == 1 && p[0].Revents == unix.POLLOUT
	})
	return unread, room
}

// holdsUp reports whether another connection that holds no more than x does has waited
// for memory for long. One that waits because it has so much already is no reason to cut
// off another: a client may pause. mu is held.
func (s *Server) holdsUp(x *session) bool {
	for _, own := range []*budget.Share{x.share, x.workerShare} {
		held := own.Held()
		for w := range s.waiting {
			if held > 0 && w.share != own && w.share.Budget() == own.Budget() && time.Since(w.since) > pressedStall && w.share.Held() <= held {
				return true
			}
		}
	}
	return false
}
