package nbd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"glanced/backends/budget"
	"glanced/formats/engine"
)

// Defaults of Config; those of times are in deadlines.go.
const (
	DefaultMaxConns    = 16384
	DefaultMaxInFlight = 64
	DefaultServerBytes = 256 << 20
)

// sideShare is the part of ServerBytes, each, that the options of handshakes and the
// workers may take besides.
const sideShare = 8

// leastServerBytes is the least that one client makes progress with.
const leastServerBytes = 1 << 20

// Config is what a Server is made of. A limit of 0 is its default.
type Config struct {
	Exports Exports
	Who     func(net.Conn) any // asked once for each connection, for Peer.Who; nil: nobody is
	Log     *slog.Logger       // nil: slog.Default()

	HandshakeTimeout time.Duration // for each option of the negotiation, opening its export included; for all of them, 30 times that
	StallTimeout     time.Duration // how long a client may take no byte of the replies that wait for it
	MaxConns         int           // of all listeners; more are closed as they come
	MaxInFlight      int           // requests per connection that are served at once
	ServerBytes      int64         // memory for replies, and a quarter of it besides for options and workers; at least 1 MiB
}

// Server serves exports by the NBD protocol. All methods are safe for concurrent use.
type Server struct {
	cfg         Config
	log         *slog.Logger
	mem         *budget.Budget // for replies
	negotiating *budget.Budget // for the options of handshakes
	workers     *budget.Budget // for what a worker takes beside its buffers
	pool        pool
	plans       sync.Pool // of *engine.Plan
	conns       atomic.Int64
	ctx         context.Context // ends when Shutdown gives up waiting
	cancel      context.CancelCauseFunc
	down        chan struct{} // closed by Shutdown

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	sessions  map[*session]struct{}
	running   sync.WaitGroup       // sessions
	waiting   map[*waiter]struct{} // for memory, see pressed
	relieved  chan struct{}        // closed when none is left
}

// SessionInfo describes one connection in the transmission phase.
type SessionInfo struct {
	Export    string
	Peer      Peer
	Since     time.Time // when the connection was accepted
	BytesRead int64     // guest bytes served, holes included
}

// NewServer makes a server; Serve starts it.
func NewServer(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	orDefault(&cfg.HandshakeTimeout, DefaultHandshakeTimeout)
	orDefault(&cfg.StallTimeout, DefaultStallTimeout)
	orDefault(&cfg.MaxConns, DefaultMaxConns)
	orDefault(&cfg.MaxInFlight, DefaultMaxInFlight)
	orDefault(&cfg.ServerBytes, DefaultServerBytes)
	cfg.ServerBytes = max(cfg.ServerBytes, leastServerBytes)
	s := &Server{
		cfg: cfg, log: cfg.Log, mem: budget.New(cfg.ServerBytes), negotiating: budget.New(cfg.ServerBytes / sideShare),
		workers: budget.New(cfg.ServerBytes / sideShare), down: make(chan struct{}),
		plans:     sync.Pool{New: func() any { return new(engine.Plan) }},
		listeners: map[net.Listener]struct{}{}, sessions: map[*session]struct{}{},
		waiting: map[*waiter]struct{}{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	return s
}

// keepPlan releases a plan and keeps it for another read. nil is fine.
func (s *Server) keepPlan(p *engine.Plan) {
	if p != nil {
		p.Release()
		s.plans.Put(p)
	}
}

func orDefault[T ~int | ~int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Serve accepts connections on l until Shutdown, and then returns
// ErrServerClosed. It owns l. Several listeners may be served at once.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.addListener(l) {
		return ErrServerClosed
	}
	defer s.removeListener(l)
	told, refused := rate.Sometimes{First: 1, Interval: failureInterval}, 0
	var delay time.Duration
	for {
		conn, err := l.Accept()
		if err != nil {
			select {
			case <-s.down:
				return ErrServerClosed
			default:
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accept NBD connections on %s: %w", l.Addr(), err)
			}
			// Out of files, or the client left while it waited: it passes.
			delay = min(max(2*delay, 5*time.Millisecond), time.Second)
			s.log.Warn("cannot accept an NBD connection, trying again", "listener", l.Addr().String(), "delay", delay, "error", err)
			select {
			case <-time.After(delay):
				continue
			case <-s.down:
				return ErrServerClosed
			}
		}
		delay = 0
		if s.conns.Add(1) > int64(s.cfg.MaxConns) {
			s.conns.Add(-1)
			conn.Close()
			refused++
			told.Do(func() {
				s.log.Warn("too many NBD connections, some refused", "listener", l.Addr().String(), "limit", s.cfg.MaxConns, "refused", refused)
			})
			continue
		}
		if !s.start(conn, l.Addr().Network()) {
			s.conns.Add(-1)
			conn.Close()
			return ErrServerClosed
		}
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isDown() {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) removeListener(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// start runs a session of conn.
func (s *Server) start(conn net.Conn, network string) bool {
	x := newSession(s, conn, network)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.isDown() {
		return false
	}
	s.sessions[x] = struct{}{}
	s.running.Add(1)
	go func() {
		defer s.running.Done()
		defer s.conns.Add(-1)
		x.run()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, x)
	}()
	return true
}

// isDown: has Shutdown been called. The caller holds mu where it matters.
func (s *Server) isDown() bool {
	select {
	case <-s.down:
		return true
	default:
		return false
	}
}

// Shutdown stops accepting, lets the requests that were received be answered,
// and closes each connection after its last reply. When ctx ends first, reads
// are cancelled, connections are closed at once, and ctx's error is returned.
// It returns when every session is over and its export closed. Exports must heed
// the context of their reads.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.isDown() {
		close(s.down)
	}
	for l := range s.listeners {
		l.Close()
	}
	for x := range s.sessions {
		x.drain()
	}
	s.mu.Unlock()

	over := make(chan struct{})
	go func() {
		s.running.Wait()
		close(over)
	}()
	select {
	case <-over:
		s.cancel(ErrServerClosed)
		return nil
	case <-ctx.Done():
	}
	s.cancel(ErrServerClosed)
	s.mu.Lock()
	for x := range s.sessions {
		x.conn.Close()
	}
	s.mu.Unlock()
	<-over
	return fmt.Errorf("shut the NBD server down with requests under way: %w", context.Cause(ctx))
}

// Sessions lists the connections that have an export open, oldest first.
func (s *Server) Sessions() []SessionInfo {
	s.mu.Lock()
	var all []SessionInfo
	for x := range s.sessions {
		if name := x.serving.Load(); name != nil {
			all = append(all, SessionInfo{Export: *name, Peer: x.peer, Since: x.since, BytesRead: x.served.Load()})
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b SessionInfo) int { return a.Since.Compare(b.Since) })
	return all
}
