package formattest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"glanced/backends/localfile"
	"glanced/backends/stored"
	"glanced/formats"
)

// ErrInjected is what a Mem fails with when it was told to fail.
var ErrInjected = errors.New("injected read error")

// Mem is stored bytes in memory that counts what is done to it. Safe for concurrent
// use.
type Mem struct {
	b      []byte
	read   atomic.Int64
	reads  atomic.Int64
	closed atomic.Int64
	failAt atomic.Int64 // reads from this one on fail; 0 = never
}

// Memory makes a source of b, which must not change from here on.
func Memory(b []byte) *Mem { return &Mem{b: b} }

// ReadAt fills p from off; outside of the bytes it fails with ErrRange.
func (m *Mem) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	n := m.reads.Add(1)
	if at := m.failAt.Load(); at > 0 && n >= at {
		return ErrInjected
	}
	if m.closed.Load() > 0 {
		return formats.ErrClosed
	}
	if off < 0 || off > int64(len(m.b)-len(p)) {
		return fmt.Errorf("%w: %d bytes at %d of %d", stored.ErrRange, len(p), off, len(m.b))
	}
	m.read.Add(int64(len(p)))
	copy(p, m.b[off:])
	return nil
}

// Size is the number of bytes held.
func (m *Mem) Size() int64 { return int64(len(m.b)) }

// Identity is none.
func (m *Mem) Identity() stored.Identity { return "" }

// Close makes later reads fail.
func (m *Mem) Close() error { m.closed.Add(1); return nil }

// BytesRead is how many bytes were read since it was made.
func (m *Mem) BytesRead() int64 { return m.read.Load() }

// Reads is how many reads were asked for since it was made.
func (m *Mem) Reads() int64 { return m.reads.Load() }

// FailFrom makes the n-th read from the beginning (1 = the first) and all later
// ones fail with ErrInjected.
func (m *Mem) FailFrom(n int64) { m.failAt.Store(n) }

// OpenFile opens path for the length of the test.
func OpenFile(t testing.TB, path string) *localfile.File {
	t.Helper()
	f, err := os.Open(path)
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
