package nbd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/engine"
)

// library is an Exports of disks made by tests.
type library struct {
	mu    sync.Mutex
	disks map[string]*disk
	order []string
	err   error // of List
}

func newLibrary(disks ...*disk) *library {
	l := &library{disks: map[string]*disk{}}
	for _, d := range disks {
		l.disks[d.name] = d
		l.order = append(l.order, d.name)
	}
	return l
}

func (l *library) List(ctx context.Context, peer Peer) iter.Seq2[ExportInfo, error] {
	return func(yield func(ExportInfo, error) bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.err != nil {
			yield(ExportInfo{}, l.err)
			return
		}
		for _, n := range l.order {
			if !yield(ExportInfo{n, l.disks[n].description}, nil) {
				return
			}
		}
	}
}

func (l *library) Open(ctx context.Context, name string, peer Peer) (Export, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.disks[name]
	if d == nil {
		return nil, fmt.Errorf("open %q: %w", name, ErrUnknownExport)
	}
	if d.openErr != nil {
		return nil, d.openErr
	}
	d.open.Add(1)
	return d.handle()
}

// block is the granularity of a test disk's holes.
const block = 4096

// disk is an export's content, in memory, or in a local file as well. It is a Layout
// and the source that this maps to, so that an engine makes the export of it.
type disk struct {
	name, description string
	openErr           error
	data              []byte
	file              *os.File // what FileRange and sendfile use; nil = none
	revoked           chan struct{}
	onRead            func(ctx context.Context, off, n int64) error // before each read of the source
	onPrefetch        func(off, n int64)
	onMap             func()
	extents           []formats.Extent // what Map says instead of the truth; nil = the truth
	open              atomic.Int64     // handles
	held              atomic.Int64     // ranges of the file
	reads             atomic.Int64
	engine            *engine.Engine
}

func newDisk(name string, data []byte) *disk {
	return &disk{name: name, data: data, revoked: make(chan struct{}), engine: engine.New(engine.Options{})}
}

// onFile puts the disk's content into a local file, too.
func (d *disk) onFile(t testing.TB) *disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, d.data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	d.file = f
	return d
}

// handle is a disk opened once.
type handle struct {
	*engine.Disk
	d      *disk
	closed atomic.Bool
}

func (d *disk) handle() (*handle, error) {
	open := func(context.Context, stored.Bytes, formats.Options) (formats.Layout, error) { return layout{d}, nil }
	e, err := d.engine.Open(context.Background(), formats.Driver{Name: "test", Open: open}, source{d}, engine.OpenOptions{})
	return &handle{Disk: e, d: d}, err
}

func (h *handle) Description() string      { return h.d.description }
func (h *handle) Revoked() <-chan struct{} { return h.d.revoked }

func (h *handle) Prefetch(off, n int64) {
	if h.d.onPrefetch != nil {
		h.d.onPrefetch(off, n)
	}
}

func (h *handle) Close() error {
	if h.closed.Swap(true) {
		return fmt.Errorf("%s closed twice", h.d.name)
	}
	h.d.open.Add(-1)
	return h.Disk.Close()
}

// layout maps blocks of zeros to Zero, and all else to the same place of the source.
type layout struct{ d *disk }

func (l layout) Size() int64        { return int64(len(l.d.data)) }
func (l layout) Info() formats.Info { return formats.Info{Format: "test", VirtualSize: l.Size()} }
func (l layout) Close() error       { return nil }

func (l layout) Map(_ context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if l.d.onMap != nil {
		l.d.onMap()
	}
	for _, x := range l.d.extents {
		if !yield(x) {
			break
		}
	}
	if l.d.extents != nil {
		return nil
	}
	for end := off + n; off < end; {
		is := l.zero(off)
		next := off
		for next < end && l.zero(next) == is {
			next = min(next-next%block+block, end)
		}
		x := formats.Extent{Off: off, Len: next - off, Kind: formats.Zero}
		if !is {
			x.Kind, x.Pos, x.N = formats.Data, off, x.Len
		}
		if !yield(x) {
			return nil
		}
		off = next
	}
	return nil
}

// zero reports whether the block around off is.
func (l layout) zero(off int64) bool {
	from := off - off%block
	b := l.d.data[from:min(from+block, l.Size())]
	return bytes.Count(b, []byte{0}) == len(b)
}

// source is where a disk's bytes are.
type source struct{ d *disk }

func (s source) Size() int64               { return int64(len(s.d.data)) }
func (s source) Identity() stored.Identity { return "" }
func (s source) Close() error              { return nil }

func (s source) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.d.reads.Add(1)
	if s.d.onRead != nil {
		if err := s.d.onRead(ctx, off, int64(len(p))); err != nil {
			return fmt.Errorf("read %s: %w", s.d.name, err)
		}
	}
	copy(p, s.d.data[off:])
	return nil
}

func (s source) FileRange(off, n int64) (stored.FileRange, bool) {
	if s.d.file == nil {
		return stored.FileRange{}, false
	}
	s.d.held.Add(1)
	return stored.FileRange{File: s.d.file, Pos: off, Len: n, Hold: (*hold)(&s.d.held)}, true
}

// hold counts a range of a disk's file down.
type hold atomic.Int64

func (h *hold) Release() { (*atomic.Int64)(h).Add(-1) }

// mixed is n bytes of noise with holes of many lengths, the same for every run.
func mixed(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for off := 0; off < n; {
		run := block * (1 + r.IntN(60))
		end := min(off+run, n)
		if r.IntN(2) == 0 {
			for i := off; i < end; i++ {
				b[i] = byte(r.Uint32()) | 1
			}
		}
		off = end
	}
	return b
}

// serve runs a server on a unix socket and a TCP port until the test ends. It
// returns both listeners.
func serve(t testing.TB, cfg Config) (s *Server, unix, tcp net.Listener) {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	// Not t.TempDir(): its paths can be too long for a socket.
	dir, err := os.MkdirTemp("", "nbd")
	if err != nil {
		t.Fatal(err)
	}
	unix, err = net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	tcp, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = NewServer(cfg)
	var serving sync.WaitGroup
	for _, l := range []net.Listener{unix, tcp} {
		serving.Go(func() {
			if err := s.Serve(l); err != ErrServerClosed {
				t.Errorf("Serve ended with %v", err)
			}
		})
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Shutdown(ctx)
		serving.Wait()
		os.RemoveAll(dir)
	})
	return s, unix, tcp
}

// uris are the ways to reach one export.
func uris(name string, unix, tcp net.Listener) map[string]string {
	return map[string]string{
		"unix": "nbd+unix:///" + name + "?socket=" + unix.Addr().String(),
		"tcp":  "nbd://" + tcp.Addr().String() + "/" + name,
	}
}

// tool runs a program that must succeed, and returns its output.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := toolErr(t, name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

func toolErr(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	return string(out), err
}

// eventually waits for something that other goroutines bring about; the test's
// own deadline is the limit.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for range 3000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never came about: %s", what)
}
