package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Whatever clients ask for, and however they leave, nothing of it is kept when they are
// gone: no memory of any budget, no range of a file, no export, no goroutine.
func TestNothingIsKeptOfClientsThatAreGone(t *testing.T) {
	data := mixed(8 << 20)
	far, near := newDisk("far", data), newDisk("near", data).onFile(t)
	fails := func(_ context.Context, off, _ int64) error { // where the page cache and the far disk end
		if off/block%16 == 3 {
			return errors.New("bad sector")
		}
		return nil
	}
	far.onRead, near.onRead = fails, fails
	s, unix, tcp := serve(t, Config{Exports: newLibrary(far, near), ServerBytes: 4 << 20})
	before := runtime.NumGoroutine()
	var clients sync.WaitGroup
	for i := range uint64(40) {
		l, name := []net.Listener{unix, tcp}[i%2], []string{"far", "near"}[i/2%2]
		p := dial(t, l)
		clients.Go(func() { wild(p, rand.New(rand.NewPCG(1, i)), name, uint64(len(data))) })
	}
	clients.Wait()
	eventually(t, "all sessions are over", func() bool { return s.conns.Load() == 0 })
	for what, b := range map[string]interface{ Free() int64 }{"replies": s.mem, "workers": s.workers, "options": s.negotiating} {
		size := b.(interface{ Size() int64 }).Size()
		if free := b.Free(); free != size {
			t.Errorf("of the memory for %s, %d of %d bytes are free", what, free, size)
		}
	}
	if len(s.waiting) != 0 {
		t.Errorf("%d are noted as waiting for memory", len(s.waiting))
	}
	for _, d := range []*disk{far, near} {
		if d.held.Load() != 0 || d.open.Load() != 0 {
			t.Errorf("%s: %d ranges are held, %d exports are open", d.name, d.held.Load(), d.open.Load())
		}
	}
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}

// wild negotiates at length, asks for anything, takes some of it, and leaves somehow.
// It fails no test: the server may end the connection at any moment.
func wild(p *prober, r *rand.Rand, name string, size uint64) {
	defer p.Conn.Close()
	out := func(b []byte) { p.Conn.Write(b) }
	option := func(id uint32, data []byte) { out(append(optionHead(id, uint32(len(data))), data...)) }
	out([]byte{0, 0, 0, 3})
	taken, most := make(chan struct{}), int64(r.IntN(3))<<20+1<<10
	go func() {
		defer close(taken)
		io.CopyN(io.Discard, p.Conn, most)
	}()
	defer func() { <-taken }()
	defer p.Conn.Close()
	for range 3 { // longer ones than what counts as nothing
		option(protocol.NEGOTIATION_ID_OPTION_INFO, bytes.Repeat([]byte{0}, shortOption+1+r.IntN(maxOption-shortOption)))
		option(99, make([]byte, maxOption+1))
	}
	if r.IntN(2) == 0 {
		option(optStructuredReply, nil)
		option(optSetMetaContext, queries(name, allocationContext))
	}
	option(protocol.NEGOTIATION_ID_OPTION_GO, infoRequest(name))
	if r.IntN(8) == 0 {
		return
	}
	for range 30 + r.IntN(60) {
		kind := []uint16{cmdRead, cmdRead, cmdRead, cmdRead, cmdBlockStatus, cmdCache, cmdFlush, cmdTrim}[r.IntN(8)]
		n := []uint32{1, block, 31 << 10, 64 << 10, 300 << 10, 2 << 20, 5 << 20}[r.IntN(7)]
		flags := uint16(0)
		if r.IntN(6) == 0 {
			flags = cmdFlagDF
		}
		out(requestBytes(kind, flags, r.Uint64(), r.Uint64N(size), n))
	}
	switch r.IntN(4) {
	case 0:
		out(requestBytes(protocol.TRANSMISSION_TYPE_REQUEST_DISC, 0, 0, 0, 0))
		<-taken
	case 1:
		p.Conn.(interface{ CloseWrite() error }).CloseWrite()
		<-taken
	case 2:
		out([]byte("no request at all, and longer than one"))
		<-taken
	}
}
