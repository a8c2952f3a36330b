package nbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// stuck makes every read of a disk wait for its context, and counts both.
func stuck(d *disk) (started, ended *atomic.Int64) {
	started, ended = new(atomic.Int64), new(atomic.Int64)
	d.onRead = func(ctx context.Context, off, n int64) error {
		started.Add(1)
		defer ended.Add(1)
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return started, ended
}

func TestAHangUpStopsItsReads(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		for name, n := range map[string]int{"one": 1, "more than are served at once": 3 * DefaultMaxInFlight} {
			t.Run(network+" "+name, func(t *testing.T) {
				d := newDisk("d", mixed(1<<20))
				started, ended := stuck(d)
				// TCP does not tell a client that is gone from one that waits for answers.
				s, unix, tcp := serve(t, Config{Exports: newLibrary(d), StallTimeout: 300 * time.Millisecond})
				l := unix
				if network == "tcp" {
					l = tcp
				}
				p := open(t, l, "d", true)
				for range n {
					p.request(cmdRead, 0, 0, block)
				}
				want := int64(min(n, DefaultMaxInFlight))
				eventually(t, "reads start", func() bool { return started.Load() == want })
				p.Close()
				eventually(t, "reads end, and the export closes", func() bool { return ended.Load() == want && d.open.Load() == 0 })
				if started.Load() != want {
					t.Errorf("%d reads were started for a client that is gone", started.Load()-want)
				}
				eventually(t, "the session is forgotten", func() bool { return len(s.Sessions()) == 0 })
			})
		}
	}
}

func TestAHangUpInTheMiddleOfAReplyEndsTheSession(t *testing.T) {
	for _, d := range []*disk{newDisk("d", bytes.Repeat([]byte{1}, 40<<20)), newDisk("d", bytes.Repeat([]byte{1}, 40<<20)).onFile(t)} {
		_, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
		for _, l := range []net.Listener{unix, tcp} {
			p := open(t, l, "d", true)
			p.request(cmdRead, 0, 0, maxRequest)
			p.read(1000)
			p.Close()
			eventually(t, "the export closes", func() bool { return d.open.Load() == 0 })
		}
	}
}

func TestAClientThatTakesNoRepliesIsCutOff(t *testing.T) {
	for _, d := range []*disk{newDisk("d", bytes.Repeat([]byte{1}, 40<<20)), newDisk("d", bytes.Repeat([]byte{1}, 40<<20)).onFile(t)} {
		s, unix, tcp := serve(t, Config{Exports: newLibrary(d), StallTimeout: 50 * time.Millisecond})
		for _, l := range []net.Listener{unix, tcp} {
			p := open(t, l, "d", true)
			p.request(cmdRead, 0, 0, maxRequest)
			eventually(t, "the export closes", func() bool { return d.open.Load() == 0 && len(s.Sessions()) == 0 })
			// One that takes its replies late, but takes them, stays.
			p = open(t, l, "d", true)
			for range 3 {
				time.Sleep(60 * time.Millisecond)
				p.request(cmdRead, 0, 0, 2<<20)
				if r := p.answer(0, 2<<20); r.errno != 0 {
					t.Errorf("errno %d", r.errno)
				}
			}
			p.Close()
			eventually(t, "the export closes", func() bool { return d.open.Load() == 0 })
		}
	}
}

func TestAWithdrawnExportAnswersEPERMAndThenCloses(t *testing.T) {
	for _, structured := range []bool{true, false} {
		for _, local := range []bool{true, false} {
			d := newDisk("d", mixed(1<<20))
			started, _ := stuck(d)
			if local {
				d.onFile(t)
			}
			_, unix, _ := serve(t, Config{Exports: newLibrary(d)})
			p := open(t, unix, "d", structured)
			idle := open(t, unix, "d", structured)
			if !local {
				for range DefaultMaxInFlight + 10 { // the last ones wait for a worker
					p.request(cmdRead, 0, 0, block)
				}
				eventually(t, "reads start", func() bool { return started.Load() == DefaultMaxInFlight })
			}
			close(d.revoked)
			if !local {
				for range DefaultMaxInFlight + 10 {
					if r := p.answer(0, block); r.errno != protocol.TRANSMISSION_ERROR_EPERM {
						t.Errorf("a read under way: errno %d %q", r.errno, r.text)
					}
				}
			} else {
				// The server learns of it on another goroutine.
				eventually(t, "a read is refused", func() bool {
					p.request(cmdRead, 0, 0, block)
					return p.answer(0, block).errno == protocol.TRANSMISSION_ERROR_EPERM
				})
			}
			p.request(cmdRead, 0, 0, 100_000)
			if r := p.answer(0, 100_000); r.errno != protocol.TRANSMISSION_ERROR_EPERM {
				t.Errorf("a new read: errno %d %q", r.errno, r.text)
			}
			p.closed()
			idle.closed()
			eventually(t, "the export closes", func() bool { return d.open.Load() == 0 })
		}
	}
}

func TestShutdownAnswersWhatIsUnderWay(t *testing.T) {
	d := newDisk("d", mixed(1<<20))
	started, release := make(chan struct{}), make(chan struct{})
	d.onRead = func(context.Context, int64, int64) error { close(started); <-release; return nil }
	s, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
	p := open(t, unix, "d", true)
	idle := open(t, tcp, "d", true)
	halfway := dial(t, unix)
	p.request(cmdRead, 0, 0, block)
	<-started
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(context.Background()) }()
	idle.closed()
	halfway.closed()
	select {
	case err := <-down:
		t.Fatalf("Shutdown returned %v with a read under way", err)
	default:
	}
	close(release)
	if r := p.answer(0, block); r.errno != 0 || !bytes.Equal(r.data, d.data[:block]) {
		t.Errorf("errno %d %s", r.errno, r.text)
	}
	p.closed()
	if err := <-down; err != nil {
		t.Error(err)
	}
	if d.open.Load() != 0 {
		t.Error("an export is open after Shutdown")
	}
	if _, err := net.Dial("tcp", tcp.Addr().String()); err == nil {
		t.Error("the listener is open after Shutdown")
	}
	if err := s.Serve(unix); err != ErrServerClosed {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestShutdownGivesUpWithItsContext(t *testing.T) {
	d := newDisk("d", mixed(1<<20))
	started, ended := stuck(d)
	s, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	p := open(t, unix, "d", true)
	p.request(cmdRead, 0, 0, block)
	eventually(t, "the read starts", func() bool { return started.Load() == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if ended.Load() != 1 || d.open.Load() != 0 {
		t.Error("a read or an export outlived Shutdown")
	}
}

func TestTooManyConnectionsAreTurnedAway(t *testing.T) {
	d := newDisk("d", mixed(block))
	_, unix, _ := serve(t, Config{Exports: newLibrary(d), MaxConns: 2})
	first := open(t, unix, "d", true)
	open(t, unix, "d", true)
	third, err := net.Dial("unix", unix.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if n, err := third.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("a third connection got in")
	}
	first.Close()
	eventually(t, "the place is free again", func() bool {
		c, err := net.Dial("unix", unix.Addr().String())
		if err != nil {
			return false
		}
		defer c.Close()
		n, _ := c.Read(make([]byte, 1))
		return n == 1
	})
}

func TestMemoryOfAllConnectionsIsBounded(t *testing.T) {
	d := newDisk("d", bytes.Repeat([]byte{1}, 1<<20))
	var now, most atomic.Int64
	var gate sync.Mutex
	d.onRead = func(ctx context.Context, off, n int64) error {
		gate.Lock()
		most.Store(max(most.Load(), now.Add(n)))
		gate.Unlock()
		defer now.Add(-n)
		time.Sleep(time.Millisecond)
		return nil
	}
	_, unix, _ := serve(t, Config{Exports: newLibrary(d), ServerBytes: 1 << 20})
	var clients sync.WaitGroup
	for range 8 {
		p := open(t, unix, "d", false)
		clients.Go(func() {
			for range 20 {
				p.request(cmdRead, 0, 0, 100_000)
			}
			for range 20 {
				if r := p.answer(0, 100_000); r.errno != 0 || r.data[99_999] != 1 {
					t.Errorf("errno %d", r.errno)
				}
			}
		})
	}
	clients.Wait()
	if most.Load() > 1<<20 {
		t.Errorf("%d bytes were read at once", most.Load())
	}
	// A request larger than the budget runs alone instead of never.
	p := open(t, unix, "d", false)
	p.request(cmdRead, 0, 0, 1<<20)
	if r := p.answer(0, 1<<20); r.errno != 0 || !bytes.Equal(r.data, d.data) {
		t.Errorf("errno %d", r.errno)
	}
}

func TestSessionsTellWhoReadsWhat(t *testing.T) {
	d := newDisk("d", mixed(1<<20)).onFile(t)
	s, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
	a, b := open(t, unix, "d", true), open(t, tcp, "d", false)
	for _, n := range []int{block, 100_000} {
		a.request(cmdRead, 0, 0, uint32(n))
		a.answer(0, n)
		b.request(cmdRead, 0, 0, uint32(n))
		b.answer(0, n)
	}
	eventually(t, "both sessions have read it", func() bool {
		all := s.Sessions()
		return len(all) == 2 && all[0].BytesRead == block+100_000 && all[1].BytesRead == block+100_000 &&
			all[0].Peer.Network == "unix" && all[1].Peer.Network == "tcp" && all[0].Export == "d" &&
			all[1].Peer.Addr.String() == b.LocalAddr().String() && !all[0].Since.After(all[1].Since)
	})
}

// A reply without data costs a client 28 bytes to ask for; one that never reads
// must not make the server keep them without end.
func TestRepliesThatNobodyTakesAreBounded(t *testing.T) {
	d := newDisk("d", make([]byte, 1<<20))
	var asked atomic.Int64
	d.onMap = func() { asked.Add(1) }
	_, unix, _ := serve(t, Config{Exports: newLibrary(d), StallTimeout: time.Second})
	p := open(t, unix, "d", true)
	var sent int
	var err error
	batch := bytes.Repeat(requestBytes(cmdRead, 0, 1, 0, 64<<10), 100)
	for err == nil && sent < 200_000 {
		_, err = p.Write(batch)
		sent += 100
	}
	// What fits into the sockets is some thousands of requests and replies.
	if err == nil || asked.Load() > 50_000 {
		t.Errorf("%d requests were taken and %d looked up for a client that reads no reply (%v)", sent, asked.Load(), err)
	}
}

// What a socket has written is referred to by nothing of the connection: else
// every idle client would keep some of the largest buffers alive.
func TestAnIdleConnectionKeepsNothingItSent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go io.Copy(io.Discard, client)
	var p patience
	p.set(time.Minute)
	s := newSocket(conn, &p)
	segs := make([]segment, maxIOV+3)
	for i := range segs {
		segs[i].mem = make([]byte, 200<<10) // more than one call takes
	}
	if err := s.send(segs); err != nil {
		t.Fatal(err)
	}
	for i, b := range s.iov[:cap(s.iov)] {
		if b != nil {
			t.Fatalf("piece %d of %d is kept", i, cap(s.iov))
		}
	}
}

// What a client that is gone has asked for is not read to its end, though the source
// does not heed the context, as a decoder does not: others wait for the worker.
func TestALongReadEndsWithItsConnection(t *testing.T) {
	d := newDisk("d", bytes.Repeat([]byte{1}, maxRequest))
	d.onRead = func(ctx context.Context, _, _ int64) error {
		<-ctx.Done()
		return nil
	}
	s, unix, _ := serve(t, Config{Exports: newLibrary(d)})
	p := open(t, unix, "d", true)
	p.request(cmdRead, 0, 0, maxRequest)
	eventually(t, "it is being read", func() bool { return d.reads.Load() == 1 })
	p.Conn.Close()
	eventually(t, "the session is over", func() bool { return s.conns.Load() == 0 })
	if n := d.reads.Load(); n != 1 {
		t.Errorf("%d parts were read for nobody", n-1)
	}
}
