package gonbd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/pojntfx/go-nbd/pkg/server"

	"glanced/contrib/testbed"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/raw"
	"glanced/nbd"
)

// memory is an export of bytes.
type memory struct {
	*engine.Disk
	data    []byte
	revoked chan struct{}
}

func (m *memory) Description() string      { return "a disk" }
func (m *memory) Revoked() <-chan struct{} { return m.revoked }

func newMemory(n int) *memory {
	m := &memory{data: make([]byte, n), revoked: make(chan struct{})}
	for i := range m.data {
		m.data[i] = byte(i * 7919 >> 5)
	}
	var err error
	if m.Disk, err = engine.New(engine.Options{}).Open(context.Background(), raw.Driver(), formattest.Memory(m.data), engine.OpenOptions{}); err != nil {
		panic(err)
	}
	return m
}

func TestBackendReadsAsAReaderAt(t *testing.T) {
	m := newMemory(100_001)
	b := New(t.Context(), m)
	size, err := b.Size()
	if err != nil || size != 100_001 {
		t.Fatal(size, err)
	}
	if err := iotest.TestReader(io.NewSectionReader(b, 0, size), m.data); err != nil {
		t.Error(err)
	}
	p := make([]byte, 10)
	if n, err := b.ReadAt(p, size-3); n != 3 || err != io.EOF || !bytes.Equal(p[:3], m.data[size-3:]) {
		t.Error(n, err)
	}
	if n, err := b.ReadAt(p, size); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
	if _, err := b.ReadAt(p, -1); err == nil {
		t.Error("a negative offset was read")
	}
}

func TestBackendRefusesWritesAndRevokedReads(t *testing.T) {
	m := newMemory(100)
	ctx, cancel := context.WithCancel(t.Context())
	b := New(ctx, m)
	if n, err := b.WriteAt([]byte("x"), 0); n != 0 || !errors.Is(err, ErrReadOnly) {
		t.Error(n, err)
	}
	if err := b.Sync(); err != nil {
		t.Error(err)
	}
	cancel()
	if _, err := b.ReadAt(make([]byte, 1), 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(m.revoked)
	if _, err := b.ReadAt(make([]byte, 1), 0); !errors.Is(err, nbd.ErrRevoked) {
		t.Error(err)
	}
}

func TestGoNBDsServerServesTheBackend(t *testing.T) {
	for _, program := range []string{"nbdinfo", "nbdcopy"} {
		testbed.Need(t, program, "libnbd-bin")
	}
	m := newMemory(3 << 20)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				// Its error is how the client left; the clients judge the rest.
				_ = server.Handle(c, []*server.Export{{Name: "d", Backend: New(t.Context(), m)}},
					&server.Options{ReadOnly: true, SupportsMultiConn: true})
			})
		}
	})
	defer serving.Wait()
	defer l.Close()
	uri := "nbd://" + l.Addr().String() + "/d"
	if out, err := exec.Command("nbdinfo", "--size", uri).CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "3145728" {
		t.Errorf("nbdinfo: %v %s", err, out)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if out, err := exec.Command("nbdcopy", uri, copied).CombinedOutput(); err != nil {
		t.Fatalf("nbdcopy: %v %s", err, out)
	}
	if got, err := os.ReadFile(copied); err != nil || !bytes.Equal(got, m.data) {
		t.Errorf("the copy differs: %v", err)
	}
}
