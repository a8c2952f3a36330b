package fs

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	gofuse "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

func TestRequestsFitIntoTheirMemory(t *testing.T) {
	for _, memory := range []int64{1, 1 << 20, 3 << 20, 40 << 20, 128 << 20, 8 << 30} {
		r := requestsWithin(memory)
		if r.read < leastRead || r.read > mostRead || r.atOnce < 2 || r.background < 1 || r.background >= r.atOnce {
			t.Errorf("%d bytes: %+v", memory, r)
		}
		if held := int64(r.read) * int64(r.atOnce); held > max(memory, 2*leastRead) {
			t.Errorf("%d bytes: %+v hold %d", memory, r, held)
		}
	}
}

// stuck is a file whose reads wait until they are let go.
type stuck struct {
	gofuse.Inode
	under atomic.Int64
	most  atomic.Int64 // that were under way at once
	large atomic.Int64 // the largest, bytes
	free  chan struct{}
}

func (s *stuck) Open(context.Context, uint32) (gofuse.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_DIRECT_IO, 0
}

func (s *stuck) Getattr(_ context.Context, _ gofuse.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Mode, out.Size = fuse.S_IFREG|0o444, 1<<30
	return 0
}

func (s *stuck) Read(_ context.Context, _ gofuse.FileHandle, dest []byte, _ int64) (fuse.ReadResult, syscall.Errno) {
	defer s.under.Add(-1)
	raise(&s.most, s.under.Add(1))
	raise(&s.large, int64(len(dest)))
	<-s.free
	return fuse.ReadResultData(dest), 0
}

func raise(a *atomic.Int64, to int64) {
	for old := a.Load(); old < to && !a.CompareAndSwap(old, to); old = a.Load() {
	}
}

// The bound rests on how go-fuse counts, so go-fuse is asked.
func TestNoMoreRequestsThanTheirMemorySufficesForAreServedAtOnce(t *testing.T) {
	needFUSE(t)
	r := requestsWithin(6 << 20)
	file := &stuck{free: make(chan struct{})}
	root := &gofuse.Inode{}
	o := options(false, r, slog.New(slog.NewTextHandler(testLog{t}, nil)))
	o.OnAdd = func(ctx context.Context) {
		root.AddChild("file", root.NewPersistentInode(ctx, file, gofuse.StableAttr{Mode: fuse.S_IFREG}), false)
	}
	mnt := t.TempDir()
	server, err := gofuse.Mount(mnt, root, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
		mustNotBeMounted(t, mnt)
	})
	var readers sync.WaitGroup
	for i := range int64(100) {
		readers.Go(func() {
			f, err := os.OpenFile(filepath.Join(mnt, "file"), os.O_RDONLY|unix.O_DIRECT, 0)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			space := make([]byte, mostRead+blockSize)
			buf := space[blockSize-uintptr(unsafe.Pointer(&space[0]))%blockSize:][:mostRead]
			if _, err := f.ReadAt(buf, i*mostRead); err != nil {
				t.Error(err)
			}
		})
	}
	for last := int64(-1); last != file.under.Load(); time.Sleep(300 * time.Millisecond) {
		last = file.under.Load()
	}
	close(file.free)
	readers.Wait()
	if most := file.most.Load(); most != int64(r.atOnce) {
		t.Errorf("%d reads were under way at once, want %d", most, r.atOnce)
	}
	if n := file.large.Load(); n != int64(r.read) {
		t.Errorf("the largest read had %d bytes, want %d", n, r.read)
	}
}
