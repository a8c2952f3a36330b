package nbd

import (
	"bytes"
	"context"
	"io"
	"iter"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"

	"glanced/formats"
)

// log collects what a server logs.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// greedy opens connections that each ask for as much as they may, and read nothing.
func greedy(t *testing.T, l net.Listener, n int) {
	t.Helper()
	for range n {
		p := open(t, l, "d", true)
		for i := range uint64(8) {
			p.request(cmdRead, 0, i<<22, maxRequest)
		}
	}
}

// Whoever reads what it asked for is served, though others take all the memory that
// they get and read nothing: small reads of what has to be fetched, of the page cache
// over the other socket, block status, errors, and large reads too.
func TestClientsThatReadNothingStarveNobody(t *testing.T) {
	data := bytes.Repeat([]byte{1}, 96<<20)
	far, cached := newDisk("d", data), newDisk("cached", data[:4<<20]).onFile(t)
	var fetched atomic.Int64
	far.onRead = func(context.Context, int64, int64) error { fetched.Add(1); return nil }
	_, unix, tcp := serve(t, Config{Exports: newLibrary(far, cached), ServerBytes: 4 << 20, StallTimeout: time.Hour})
	greedy(t, tcp, 8)
	for last := int64(-1); last != fetched.Load(); time.Sleep(200 * time.Millisecond) { // until nothing more is fetched for them
		last = fetched.Load()
	}
	for _, c := range []struct {
		l    net.Listener
		name string
	}{{tcp, "d"}, {unix, "d"}, {unix, "cached"}, {tcp, "cached"}} {
		p := open(t, c.l, c.name, true)
		for _, n := range []int{block, 64 << 10, 1 << 20} {
			p.request(cmdRead, 0, 512, uint32(n))
			if r := p.answer(512, n); r.errno != 0 || r.data[n-1] != 1 {
				t.Errorf("%d bytes of %s: errno %d", n, c.name, r.errno)
			}
		}
		p.request(cmdRead, 0, 1<<40, 1)
		if r := p.answer(0, 0); r.errno == 0 {
			t.Error("a read past the end succeeds")
		}
		p.request(cmdBlockStatus, 0, 0, 1<<20)
		if r := p.answer(0, 0); r.errno != 0 || len(r.status) != 2 {
			t.Errorf("block status: errno %d, %v", r.errno, r.status)
		}
	}
}

// Where others have to wait for the memory that such clients hold, these are cut off,
// and the log says so.
func TestWhoIsCutOffForReadingNothingIsLogged(t *testing.T) {
	d := newDisk("d", bytes.Repeat([]byte{1}, 96<<20))
	said := new(log)
	_, unix, _ := serve(t, Config{Exports: newLibrary(d), ServerBytes: 1 << 20, StallTimeout: time.Hour, Log: slog.New(slog.NewTextHandler(said, nil))})
	greedy(t, unix, 20)
	var readers sync.WaitGroup
	for range 4 {
		p := open(t, unix, "d", true)
		p.SetDeadline(time.Time{}) // the greedy ones have to be cut off first, some after others
		readers.Go(func() {
			p.request(cmdRead, 0, 0, 1<<20)
			if r := p.answer(0, 1<<20); r.errno != 0 {
				t.Errorf("errno %d", r.errno)
			}
		})
	}
	readers.Wait()
	if !said.has("NBD client cut off") || !said.has("takes no replies") {
		t.Errorf("the log says %s", said.b.String())
	}
}

func TestAStalledClientIsCutOffAndLogged(t *testing.T) {
	d := newDisk("d", bytes.Repeat([]byte{1}, 96<<20))
	said := new(log)
	s, _, tcp := serve(t, Config{Exports: newLibrary(d), StallTimeout: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(said, nil))})
	greedy(t, tcp, 1)
	eventually(t, "it is cut off", func() bool { return len(s.Sessions()) == 0 })
	eventually(t, "the log says so", func() bool { return said.has("NBD client cut off") && said.has("took nothing for 50ms") })
}

// A client that says DISC, closes its half of the connection and reads late gets all
// that it asked for; so does one that only closes its half.
func TestHalfClosedConnectionsGetTheirAnswers(t *testing.T) {
	for _, disc := range []bool{true, false} {
		d := newDisk("d", mixed(16<<20))
		release := make(chan struct{})
		d.onRead = func(ctx context.Context, off, n int64) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		_, unix, tcp := serve(t, Config{Exports: newLibrary(d), ServerBytes: 2 << 20})
		for _, l := range []net.Listener{unix, tcp} {
			p := open(t, l, "d", true)
			const n, each = 40, 256 << 10
			where := map[uint64]uint64{}
			for i := range uint64(n) {
				where[p.request(cmdRead, 0, i*each, each)] = i * each
			}
			if disc {
				p.send(requestBytes(protocol.TRANSMISSION_TYPE_REQUEST_DISC, 0, 0, 0, 0))
			}
			if err := p.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * hangUpInterval) // as long as the server needs to take it for gone
			select {
			case <-release:
			default:
				close(release)
			}
			for range n {
				r := p.answerTo(where, each)
				if off := where[r.handle]; r.errno != 0 || !bytes.Equal(r.data, d.data[off:off+each]) {
					t.Fatalf("disc %v: errno %d %s, or the data is wrong", disc, r.errno, r.text)
				}
			}
			if rest, err := io.ReadAll(p.Conn); len(rest) > 0 || err != nil {
				t.Errorf("after the last answer: %d bytes, %v", len(rest), err)
			}
		}
	}
}

// One answer to BLOCK_STATUS is little work, however small the clusters are.
func TestBlockStatusOfSmallClustersIsBoundedWork(t *testing.T) {
	const cluster, size = 512, 1 << 30
	d := newDisk("d", nil)
	asked := int64(0)
	s, _, _ := serve(t, Config{Exports: newLibrary(d)})
	x := &transmission{negotiated: &negotiated{export: countedMap{size: size, cluster: cluster, asked: &asked}}, ctx: t.Context(), session: &session{srv: s}}
	found, err := x.states(0, size, maxDescriptors)
	if err != nil || len(found) != 1 || int64(found[0].n) != asked {
		t.Errorf("%v, %v", found, err)
	}
	if most := int64(statusClusters * statusSteps * cluster); asked > most || asked < most/2 {
		t.Errorf("%d bytes of the map were asked for, at most %d may be", asked, most)
	}
}

// countedMap is an export of data in small clusters; it counts what of its map is
// asked for.
type countedMap struct {
	Export
	size, cluster int64
	asked         *int64
}

func (c countedMap) Size() int64        { return c.size }
func (c countedMap) Granularity() int64 { return c.cluster }
func (c countedMap) Extents(_ context.Context, off, n int64, yield func(formats.Extent) bool) error {
	*c.asked += n
	yield(formats.Extent{Off: off, Len: n, Kind: formats.Data, Pos: off, N: n})
	return nil
}

// A client that takes no replies holds no plan of the read that waits for it: the
// clusters in it would be memory that nobody counts.
func TestAReadThatWaitsForItsClientHoldsNoPlan(t *testing.T) {
	d := newDisk("d", bytes.Repeat([]byte{1}, 1<<20)).onFile(t)
	h, err := d.handle()
	if err != nil {
		t.Fatal(err)
	}
	s, unix, _ := serve(t, Config{Exports: single{h}, StallTimeout: time.Hour})
	p := open(t, unix, "d", false)
	for range 100 {
		p.request(cmdRead, 0, 0, 31<<10)
	}
	eventually(t, "the client keeps the server waiting", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for x := range s.sessions {
			return x.patience.waited() > 0
		}
		return false
	})
	closed := make(chan struct{})
	go func() { h.Disk.Close(); close(closed) }()
	eventually(t, "nothing is planned on the disk", func() bool {
		select {
		case <-closed:
			return true
		default:
			return false
		}
	})
}

// single is one export under every name.
type single struct{ Export }

func (x single) List(context.Context, Peer) iter.Seq2[ExportInfo, error] {
	return func(func(ExportInfo, error) bool) {}
}
func (x single) Open(context.Context, string, Peer) (Export, error) { return x.Export, nil }

// Who waits because it holds much already, and takes its replies, is no reason to cut
// off a client that pauses; who holds no more than that client is, if it waits for long.
func TestAPausingClientIsCutOffOnlyForWhoHoldsNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewServer(Config{})
		pausing, greedy, small := newSession(s, deaf{}, "unix"), newSession(s, deaf{}, "unix"), newSession(s, deaf{}, "unix")
		holdsUp := func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.holdsUp(pausing)
		}
		pausing.share.TryTake(64<<10, 64<<10)
		greedy.share.TryTake(8<<20, 8<<20)
		over := s.pressed(greedy.share)
		time.Sleep(2 * pressedStall)
		if holdsUp() {
			t.Error("it is cut off for one that holds much more")
		}
		again := s.pressed(greedy.share)
		again()
		own := s.pressed(pausing.share)
		worker := s.pressed(small.workerShare)
		time.Sleep(2 * pressedStall)
		if holdsUp() {
			t.Error("it is cut off for itself, or for one who waits for what it holds nothing of")
		}
		own()
		worker()
		relieve := s.pressed(small.share)
		if time.Sleep(pressedStall / 2); holdsUp() {
			t.Error("it is cut off for one that has waited for a moment")
		}
		if time.Sleep(pressedStall); !holdsUp() {
			t.Error("it holds up one that holds nothing, and is not cut off")
		}
		relieve()
		over()
		if len(s.waiting) != 0 {
			t.Errorf("%d are still noted as waiting", len(s.waiting))
		}
	})
}

// A client that takes what was sent is not stalled, though the machine is so busy that
// nobody has come to send more.
func TestWhoTakesWhatWasSentIsNotStalled(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		l, err := net.Listen(network, map[string]string{"unix": filepath.Join(t.TempDir(), "s"), "tcp": "127.0.0.1:0"}[network])
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		client, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		for err = nil; err == nil; { // until it is full
			_, err = conn.Write(make([]byte, 64<<10))
		}
		x := newSession(NewServer(Config{}), conn, network)
		x.patience.since.Store(time.Now().Add(-time.Hour).UnixNano())
		for range 3 {
			if x.look(); x.patience.waited() < time.Hour {
				t.Errorf("%s: a client that takes nothing counts as one that does", network)
			}
		}
		if _, err := io.ReadFull(client, make([]byte, 64<<10)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is seen to take something", func() bool {
			x.look()
			return x.patience.waited() < time.Minute
		})
	}
}

// deaf is a connection of which only the address is asked.
type deaf struct{ net.Conn }

func (deaf) RemoteAddr() net.Addr { return &net.UnixAddr{} }
