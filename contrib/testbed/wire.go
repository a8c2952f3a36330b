package testbed

import (
	"net"
	"sync"
	"testing"
)

// Wire passes TCP connections on to a server, byte for byte, so that tests can spoil
// what even TLS is made of. Safe for concurrent use.
type Wire struct {
	Addr string // 127.0.0.1:port

	network, there string
	listener       net.Listener

	mu    sync.Mutex
	spoil func([]byte)
}

// NewWire passes connections on to what listens there: a network and an address, as
// net.Dial has them. It ends with the test.
func NewWire(t testing.TB, network, there string) *Wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{Addr: l.Addr().String(), network: network, there: there, listener: l}
	t.Cleanup(func() { l.Close() })
	go w.accept()
	return w
}

// Spoil has f change what comes from the server, a piece of a connection at a time, in
// place; nil = nothing is changed.
func (w *Wire) Spoil(f func(piece []byte)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spoil = f
}

func (w *Wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		go w.pass(client)
	}
}

func (w *Wire) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial(w.network, w.there)
	if err != nil {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() { w.way(server, client, false) })
	both.Go(func() { w.way(client, server, true) })
	both.Wait()
}

// way carries one direction to its end, which ends the connection.
func (w *Wire) way(to, from net.Conn, fromServer bool) {
	defer to.Close()
	defer from.Close()
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		if w.mu.Lock(); fromServer && w.spoil != nil && n > 0 {
			w.spoil(piece[:n])
		}
		w.mu.Unlock()
		if _, failed := to.Write(piece[:n]); failed != nil || err != nil {
			return
		}
	}
}
