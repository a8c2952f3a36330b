package formats

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// tableLayout is a Layout whose map is a table.
type tableLayout struct {
	size    int64
	extents []Extent // sorted, without gaps
	parent  *Disk
}

func (l *tableLayout) Size() int64   { return l.size }
func (l *tableLayout) Info() Info    { return Info{Format: "table", VirtualSize: l.size} }
func (l *tableLayout) Parent() *Disk { return l.parent }
func (l *tableLayout) Close() error  { return nil }

func (l *tableLayout) Map(_ context.Context, off, n int64, yield func(Extent) bool) error {
	if off < 0 || n < 0 || off > l.size-n {
		return ErrRange
	}
	end := off + n
	i := sort.Search(len(l.extents), func(i int) bool { return l.extents[i].End() > off })
	for ; i < len(l.extents) && l.extents[i].Off < end; i++ {
		x := l.extents[i]
		cut := max(off-x.Off, 0)
		x.Off, x.Len = x.Off+cut, min(x.End(), end)-x.Off-cut
		switch x.Kind {
		case Data:
			x.Pos, x.N = x.Pos+cut, x.Len
		case Compressed:
			x.Skip += cut
		}
		if !yield(x) {
			return nil
		}
	}
	return nil
}

// memSource is a remote source, as far as the engine can tell.
type memSource struct {
	data   []byte
	reads  atomic.Int64
	asked  atomic.Int64 // bytes told to Prefetch
	closed atomic.Bool
	before func(ctx context.Context, off int64) error // nil = nothing
}

func (s *memSource) Size() int64 { return int64(len(s.data)) }
func (s *memSource) Close() error {
	s.closed.Store(true)
	return nil
}
func (s *memSource) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.reads.Add(1)
	if s.closed.Load() {
		return fmt.Errorf("read after close")
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.before != nil {
		if err := s.before(ctx, off); err != nil {
			return err
		}
	}
	if off < 0 || off > s.Size()-int64(len(p)) {
		return fmt.Errorf("source: %d bytes at %d of %d", len(p), off, s.Size())
	}
	copy(p, s.data[off:])
	return nil
}
func (s *memSource) Prefetch(off, n int64) { s.asked.Add(n) }

// fileSource is a local file.
type fileSource struct {
	f    *os.File
	size int64
}

func newFileSource(t testing.TB, data []byte) *fileSource {
	t.Helper()
	name := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &fileSource{f, int64(len(data))}
}

func (s *fileSource) Size() int64  { return s.size }
func (s *fileSource) Close() error { return s.f.Close() }
func (s *fileSource) ReadAt(_ context.Context, p []byte, off int64) error {
	n, err := s.f.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return err
}
func (s *fileSource) FileRange(off, n int64) (*os.File, int64, bool) { return s.f, off, true }

// encode codes plain; every coder is the tests' own.
func encode(c Codec, plain []byte) []byte {
	var b bytes.Buffer
	switch c {
	case Deflate:
		w, _ := flate.NewWriter(&b, 5)
		w.Write(plain)
		w.Close()
	case Zlib:
		w := zlib.NewWriter(&b)
		w.Write(plain)
		w.Close()
	case Zstd:
		return zstdEncoder().EncodeAll(plain, nil)
	case VMDKGrain:
		z := encode(Zlib, plain)
		head := make([]byte, 12)
		binary.LittleEndian.PutUint32(head[8:], uint32(len(z)))
		return append(head, z...)
	}
	return b.Bytes()
}

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	return w
})

// compressible is n bytes that compress to about a half.
func compressible(r *rand.Rand, n int64) []byte {
	b := make([]byte, n)
	r.Read(b)
	for i := range b {
		b[i] &= 15
	}
	return b
}

// synthetic is a random image: its disk, what the disk must read as, and its parts.
type synthetic struct {
	want   []byte
	layout *tableLayout
	host   []byte
}

// newSynthetic makes an image of about size bytes above parent, which may be nil.
func newSynthetic(r *rand.Rand, size int64, parent *synthetic, parentDisk *Disk) *synthetic {
	s := &synthetic{want: make([]byte, size), layout: &tableLayout{size: size, parent: parentDisk}}
	s.host = compressible(r, 700) // a header
	codecs := []Codec{Deflate, Zlib, Zstd, VMDKGrain}
	for off := int64(0); off < size; {
		n := min(int64(1+r.Intn(40))*512, size-off)
		x := Extent{Off: off, Len: n, Kind: Kind(r.Intn(4))}
		switch x.Kind {
		case Absent:
			if parent != nil && off < int64(len(parent.want)) {
				copy(s.want[off:off+n], parent.want[off:])
			}
		case Data:
			plain := compressible(r, n)
			copy(s.want[off:], plain)
			x.Pos, x.N = int64(len(s.host)), n
			s.host = append(s.host, plain...)
		case Compressed:
			// The extent is all of a cluster, or a part of it.
			x.Full = n
			if r.Intn(2) == 0 {
				x.Skip = int64(r.Intn(3000))
				x.Full += x.Skip + int64(r.Intn(3000))
			}
			plain := compressible(r, x.Full)
			copy(s.want[off:off+n], plain[x.Skip:])
			x.Codec = codecs[r.Intn(len(codecs))]
			coded := encode(x.Codec, plain)
			x.Pos, x.N = int64(len(s.host)), int64(len(coded))+int64(r.Intn(600))
			s.host = append(s.host, coded...)
			if r.Intn(3) == 0 { // a gap before the next
				s.host = append(s.host, compressible(r, int64(r.Intn(6000)))...)
			}
		}
		s.layout.extents = append(s.layout.extents, x)
		off += n
	}
	s.host = append(s.host, make([]byte, 1024)...) // N is an upper bound, within the source
	return s
}

// driver opens srcs as l.
func driver(l Layout) Driver {
	return Driver{Name: "table", Open: func(context.Context, []Source, Resolver, Options) (Layout, error) { return l, nil }}
}

func openTable(t testing.TB, e *Engine, l Layout, srcs ...Source) *Disk {
	t.Helper()
	d, err := e.Open(context.Background(), driver(l), srcs, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newTestEngine(t testing.TB, o EngineOptions) *Engine {
	t.Helper()
	e := NewEngine(o)
	t.Cleanup(func() { e.Close() })
	return e
}

// clustered is a disk of n clusters of full bytes, all compressed with codec.
func clustered(codec Codec, full int64, n int) (*tableLayout, []byte, []byte) {
	r := rand.New(rand.NewSource(int64(n)))
	l := &tableLayout{size: full * int64(n)}
	var host, want []byte
	for i := range n {
		plain := compressible(r, full)
		coded := encode(codec, plain)
		l.extents = append(l.extents, Extent{Off: int64(i) * full, Len: full, Kind: Compressed, Pos: int64(len(host)), N: int64(len(coded)), Codec: codec, Full: full})
		host, want = append(host, coded...), append(want, plain...)
	}
	return l, host, want
}
