package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
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

	"glanced/backends/localfile"
	"glanced/backends/stored"
	"glanced/formats"
)

// tableLayout is a Layout whose map is a table.
type tableLayout struct {
	size    int64
	extents []formats.Extent // sorted, without gaps
	parent  *Disk
	cluster int64
}

func (l *tableLayout) Size() int64  { return l.size }
func (l *tableLayout) Close() error { return nil }
func (l *tableLayout) Info() formats.Info {
	info := formats.Info{Format: "table", VirtualSize: l.size, ClusterSize: l.cluster}
	if l.parent != nil {
		info.Refs = []formats.Ref{{Kind: formats.RefParent, Name: "parent"}}
	}
	return info
}

func (l *tableLayout) Map(_ context.Context, off, n int64, yield func(formats.Extent) bool) error {
	if off < 0 || n < 0 || off > l.size-n {
		return formats.ErrRange
	}
	end := off + n
	i := sort.Search(len(l.extents), func(i int) bool { return l.extents[i].End() > off })
	for ; i < len(l.extents) && l.extents[i].Off < end; i++ {
		x := l.extents[i]
		cut := max(off-x.Off, 0)
		x.Off, x.Len = x.Off+cut, min(x.End(), end)-x.Off-cut
		switch x.Kind {
		case formats.Data:
			x.Pos, x.N = x.Pos+cut, x.Len
		case formats.Compressed:
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

func (s *memSource) Identity() stored.Identity { return "" }
func (s *memSource) Size() int64               { return int64(len(s.data)) }
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

// newFileSource is a local file.
func newFileSource(t testing.TB, data []byte) stored.Bytes {
	t.Helper()
	name := filepath.Join(t.TempDir(), "source")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	src, err := localfile.New(f, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	return src
}

// encode codes plain; every coder is the tests' own.
func encode(c formats.Codec, plain []byte) []byte {
	var b bytes.Buffer
	switch c {
	case formats.Deflate:
		w, _ := flate.NewWriter(&b, 5)
		w.Write(plain)
		w.Close()
	case formats.Zlib:
		w := zlib.NewWriter(&b)
		w.Write(plain)
		w.Close()
	case formats.Zstd:
		return zstdEncoder().EncodeAll(plain, nil)
	case formats.VMDKGrain:
		z := encode(formats.Zlib, plain)
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
	codecs := []formats.Codec{formats.Deflate, formats.Zlib, formats.Zstd, formats.VMDKGrain}
	for off := int64(0); off < size; {
		n := min(int64(1+r.Intn(40))*512, size-off)
		x := formats.Extent{Off: off, Len: n, Kind: formats.Kind(r.Intn(4))}
		switch x.Kind {
		case formats.Absent:
			if parent != nil && off < int64(len(parent.want)) {
				copy(s.want[off:off+n], parent.want[off:])
			}
		case formats.Data:
			plain := compressible(r, n)
			copy(s.want[off:], plain)
			x.Pos, x.N = int64(len(s.host)), n
			s.host = append(s.host, plain...)
		case formats.Compressed:
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

// driver opens any source as l.
func driver(l formats.Layout) formats.Driver {
	return formats.Driver{Name: "table", Open: func(context.Context, stored.Bytes, formats.Options) (formats.Layout, error) { return l, nil }}
}

func openTable(t testing.TB, e *Engine, l *tableLayout, src stored.Bytes) *Disk {
	t.Helper()
	d, err := e.Open(context.Background(), driver(l), src, OpenOptions{
		Parent: func(context.Context, formats.Ref) (*Disk, error) { return l.parent, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newTestEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	e := New(o)
	t.Cleanup(func() { e.Close() })
	return e
}

// clustered is a disk of n clusters of full bytes, all compressed with codec.
func clustered(codec formats.Codec, full int64, n int) (*tableLayout, []byte, []byte) {
	r := rand.New(rand.NewSource(int64(n)))
	l := &tableLayout{size: full * int64(n)}
	var host, want []byte
	for i := range n {
		plain := compressible(r, full)
		coded := encode(codec, plain)
		l.extents = append(l.extents, formats.Extent{Off: int64(i) * full, Len: full, Kind: formats.Compressed, Pos: int64(len(host)), N: int64(len(coded)), Codec: codec, Full: full})
		host, want = append(host, coded...), append(want, plain...)
	}
	return l, host, want
}
