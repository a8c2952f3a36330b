package fs

import (
	"context"
	"math"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"glanced/formats"
)

// runs remembers the run of data or of holes that an open file was last asked for.
// Programs ask for the end of a hole again and again on their way through it (qemu-img
// compare: every 32 MiB), and each time its whole map would be walked.
type runs struct {
	mu   sync.Mutex
	last seekRun
}

// seekRun is a part of the disk that is data, or is not.
type seekRun struct {
	off, end int64
	data     bool
	exact    bool // it ends there; else it may go on
}

func (r *runs) get() seekRun {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *runs) set(last seekRun) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = last
}

// Lseek answers SEEK_DATA and SEEK_HOLE from the map of the disk; there is a hole
// after the last byte.
func (o *openFile) Lseek(ctx context.Context, off uint64, whence uint32) (uint64, syscall.Errno) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	size := o.h.Size()
	if off > math.MaxInt64 || int64(off) >= size {
		return 0, syscall.ENXIO
	}
	at, wantData := int64(off), whence == unix.SEEK_DATA
	known := o.seeks.get()
	if at < known.off || at >= known.end || known.data != wantData && !known.exact {
		p := patiently(ctx)
		defer p.release()
		var err error
		if known, err = o.runAt(p, at, wantData); err != nil {
			return 0, o.fail(p, "map", err)
		}
		o.seeks.set(known)
	}
	switch {
	case known.data == wantData:
		return off, 0
	case known.end < size || !wantData:
		return uint64(known.end), 0
	}
	return 0, syscall.ENXIO
}

// runAt is the run at off: up to its end, or, where it is of the kind that is looked
// for, as far as the first extent shows.
func (o *openFile) runAt(ctx context.Context, off int64, wantData bool) (found seekRun, err error) {
	size := o.h.Size()
	err = o.h.Extents(ctx, off, size-off, func(x formats.Extent) bool {
		if x.Off == off {
			found = seekRun{off: off, end: x.End(), data: x.Kind.Stored()}
			return found.data != wantData
		}
		if x.Kind.Stored() != found.data {
			found.exact = true
			return false
		}
		found.end = x.End()
		return true
	})
	if found.end == size {
		found.exact = true
	}
	return found, err
}
