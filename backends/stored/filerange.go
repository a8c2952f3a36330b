package stored

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Hold keeps something as it is until it is released.
type Hold interface {
	Release() // once
}

// FileRange is a range of a local file. Until Release, nobody truncates the file,
// punches holes into the range or closes the file. The file is its owner's: it is
// not to be closed, nor its position to be used. The zero value is no range.
type FileRange struct {
	File     *os.File
	Pos, Len int64 // bytes
	Hold     Hold  // nil: nothing has to be given back
}

// Release gives the range back.
func (r *FileRange) Release() {
	if r.Hold != nil {
		r.Hold.Release()
	}
}

// Part is the n bytes at off of the range, under the same hold.
func (r FileRange) Part(off, n int64) FileRange {
	r.Pos, r.Len = r.Pos+off, n
	return r
}

// ReadCached fills p, which is no longer than the range, from its beginning, if
// all of that is in the page cache now; it never waits for a disk. It is false
// also where the file system cannot say (RWF_NOWAIT, preadv2(2)), or the file is
// shorter.
func (r FileRange) ReadCached(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	// The call waits for nothing, so the scheduler need not hear of it: that costs
	// as much as the rest of a small read. The hold keeps the file open.
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	n, _, errno := unix.RawSyscall6(unix.SYS_PREADV2, r.File.Fd(), uintptr(unsafe.Pointer(&iov)), 1, uintptr(r.Pos), uintptr(r.Pos>>halfBits>>halfBits), unix.RWF_NOWAIT)
	runtime.KeepAlive(r.File)
	return errno == 0 && int(n) == len(p)
}

// halfBits is half of a register: preadv2 takes the offset in two registers, and Linux
// shifts the second one by a register's width, in two steps, as no shift may be that wide.
const halfBits = unix.SizeofPtr * 8 / 2

// warmStride is how far apart Cached looks into a range. The kernel fills its
// cache in larger steps when it reads ahead, and a miss in between only makes
// one sendfile wait.
const warmStride = 256 << 10

// Cached reports whether the range seems to be in the page cache, so that sending
// it will not wait for a disk.
func (r FileRange) Cached() bool {
	var b [1]byte
	for off := int64(0); off < r.Len; off += warmStride {
		if !r.Part(off, 1).ReadCached(b[:]) {
			return false
		}
	}
	return r.Len == 0 || r.Part(r.Len-1, 1).ReadCached(b[:])
}
