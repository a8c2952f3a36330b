// Package distance is a TCP proxy that puts a server far away: each connection has a
// round trip, and a window of bytes in flight that bounds its throughput, as a real
// one does. Tests and benchmarks put it in front of servers of this machine, the same
// for every contender.
//
// The model. What one side sends arrives half a round trip later. The space that it
// took in the window is free again half a round trip after that, so a connection moves
// at most a window in each round trip. A connection takes one round trip to come about.
// Nothing is lost, and connections do not share anything.
package distance

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy is one server, seen from far away.
type Proxy struct {
	listener  net.Listener
	target    string
	roundTrip atomic.Int64 // time.Duration
	window    int

	accepted, up, down atomic.Int64

	wg   sync.WaitGroup
	mu   sync.Mutex
	open map[net.Conn]bool // nil: closed
}

// Listen begins to pass connections on from a loopback address to target, host:port.
// window is in bytes. The caller closes the Proxy.
func Listen(target string, roundTrip time.Duration, window int) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("a distance to %s: %w", target, err)
	}
	p := &Proxy{listener: l, target: target, window: window, open: map[net.Conn]bool{}}
	p.Move(roundTrip)
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is where the server is reached from far away, host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Move changes the round trip, also of the connections that there are.
func (p *Proxy) Move(roundTrip time.Duration) { p.roundTrip.Store(int64(roundTrip)) }

func (p *Proxy) trip() time.Duration { return time.Duration(p.roundTrip.Load()) }

// Traffic is what has passed so far: connections, bytes to the server and bytes from it.
func (p *Proxy) Traffic() (connections, up, down int64) {
	return p.accepted.Load(), p.up.Load(), p.down.Load()
}

// Close ends all connections.
func (p *Proxy) Close() error {
	err := p.listener.Close()
	p.mu.Lock()
	for c := range p.open {
		c.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.wg.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.accepted.Add(1)
		p.wg.Go(func() { p.pass(c) })
	}
}

// pass is one connection.
func (p *Proxy) pass(client net.Conn) {
	defer client.Close()
	if !p.keep(client) {
		return
	}
	defer p.forget(client)
	time.Sleep(p.trip())
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	if !p.keep(server) {
		return
	}
	defer p.forget(server)
	var both sync.WaitGroup
	both.Go(func() { p.way(server, client, &p.up) })
	both.Go(func() { p.way(client, server, &p.down) })
	both.Wait()
}

// way carries one direction to its end, which the other side learns of, too. A way
// that broke takes the connection with it.
func (p *Proxy) way(to, from net.Conn, n *atomic.Int64) {
	breakOff := func() {
		to.Close()
		from.Close()
	}
	if err := carry(to, from, p.trip, p.window, n, breakOff); err != nil {
		breakOff()
		return
	}
	if c, ok := to.(*net.TCPConn); ok {
		c.CloseWrite()
	}
}

func (p *Proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		return false
	}
	p.open[c] = true
	return true
}

func (p *Proxy) forget(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

// piece is what is read, and travels, at once.
const piece = 16 << 10

// travelling are bytes under way, and when they arrive.
type travelling struct {
	bytes   []byte
	arrives time.Time
}

// carry moves all of from to to, half of trip later, with at most window bytes
// that were sent and of which the sender does not know yet that they arrived. It adds
// what it moves to n. Where to takes no more, it calls broken, which has reads of from
// fail.
func carry(to io.Writer, from io.Reader, trip func() time.Duration, window int, n *atomic.Int64, broken func()) error {
	pieces := max(window/piece, 1)
	free := make(chan []byte, pieces)        // what the sender may fill
	under := make(chan travelling, pieces+1) // sent, not arrived
	acks := make(chan travelling, pieces)    // arrived, and the sender does not know it yet
	for range pieces {
		free <- make([]byte, piece)
	}

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer close(acks)
		failed := false
		for t := range under {
			time.Sleep(time.Until(t.arrives))
			if !failed {
				if _, err := to.Write(t.bytes); err != nil {
					failed = true
					broken()
				}
				n.Add(int64(len(t.bytes)))
			}
			acks <- travelling{t.bytes, time.Now().Add(trip() / 2)}
		}
	})
	wg.Go(func() {
		for t := range acks {
			time.Sleep(time.Until(t.arrives))
			free <- t.bytes[:piece]
		}
	})

	defer close(under)
	for buf := range free {
		got, err := from.Read(buf)
		under <- travelling{buf[:got], time.Now().Add(trip() / 2)}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}
