package fs

import (
	"context"
	"errors"
	"syscall"

	"glanced/backends/stored"
	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/formats"
)

// errnos says what a program that reads the mount is told. The first line that
// matches (errors.Is) counts; what is in no line is EIO. The details of an EIO go
// to the log, for an errno cannot carry them.
var errnos = []struct {
	err   error
	errno syscall.Errno
}{
	// Withdrawn while open; first, for it may come about by a canceled context.
	{catalog.ErrRevoked, syscall.EIO},

	// An interrupted request next: a store wraps the context's error into its own.
	{context.Canceled, syscall.EINTR},
	{context.DeadlineExceeded, syscall.ETIMEDOUT},

	// The image has gone, or has no such file.
	{catalog.ErrNotFound, syscall.ENOENT},
	{catalog.ErrNoData, syscall.ENOENT},
	{catalog.ErrStoredOnly, syscall.ENOENT},
	{catalog.ErrNoSnapshot, syscall.ENOENT},
	{catalog.ErrGone, syscall.ENOENT},

	// Not to be opened.
	{catalog.ErrDeactivated, syscall.EACCES},
	{catalog.ErrSpoolFull, syscall.ENOSPC},
	{catalog.ErrParentDeactivated, syscall.EACCES},
	{access.ErrHidden, syscall.ENOENT},
	{access.ErrDenied, syscall.EACCES},

	// The bytes cannot be had.
	{stored.ErrUnavailable, syscall.EIO},
	{stored.ErrDenied, syscall.EIO}, // not EACCES: the reader is not to blame
	{stored.ErrChanged, syscall.EIO},
	{stored.ErrNotFound, syscall.EIO}, // not ENOENT: the image is there
	{stored.ErrRange, syscall.EIO},
	{catalog.ErrStore, syscall.EIO},
	{catalog.ErrUnknownStore, syscall.EIO},
	{catalog.ErrLocation, syscall.EIO},
	{catalog.ErrFormat, syscall.EIO},
	{catalog.ErrUnsafe, syscall.EIO},
	{catalog.ErrBusy, syscall.EAGAIN},
	{catalog.ErrUnknown, syscall.EIO},
	{catalog.ErrUnreachable, syscall.EAGAIN},
	{catalog.ErrClosing, syscall.EIO},
	{formats.ErrCorrupt, syscall.EIO},
	{formats.ErrFormat, syscall.EIO},
	{formats.ErrUnsupported, syscall.EIO},
	{formats.ErrReference, syscall.EIO},
	{formats.ErrEncrypted, syscall.EIO},
	{formats.ErrLimit, syscall.EIO},
	{formats.ErrSnapshot, syscall.ENOENT},
	{formats.ErrClosed, syscall.EIO},
	{formats.ErrWouldWait, syscall.EIO}, // nobody here asks for a map without I/O
	{formats.ErrRange, syscall.EINVAL},

	// Reading cannot meet these; they are here so that no sentinel is forgotten.
	{catalog.ErrStatus, syscall.EIO},
	{catalog.ErrFixed, syscall.EIO},
	{catalog.ErrParent, syscall.EIO},
	{catalog.ErrInvalid, syscall.EINVAL},
	{catalog.ErrMetadata, syscall.EINVAL},
	{catalog.ErrMarker, syscall.EIO},
	{catalog.ErrTrimmed, syscall.EIO},
	{catalog.ErrLeased, syscall.EBUSY},
	{catalog.ErrLeaseLost, syscall.EIO},
	{catalog.ErrExists, syscall.EEXIST},
	{catalog.ErrProtected, syscall.EPERM},
	{catalog.ErrInUse, syscall.EBUSY},
	{catalog.ErrQuota, syscall.EDQUOT},
	{catalog.ErrTooLarge, syscall.EFBIG},
	{catalog.ErrStoreFull, syscall.ENOSPC},
	{catalog.ErrFull, syscall.ENOSPC},
	{catalog.ErrStoreReadOnly, syscall.EROFS},
	{catalog.ErrStoreDenied, syscall.EROFS},
	{catalog.ErrUploads, syscall.EAGAIN},
	{catalog.ErrBodySize, syscall.EIO},
	{catalog.ErrBody, syscall.EIO},
}

// errnoOf is the errno for an error of the catalog or of a disk; 0 for nil.
func errnoOf(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.errno
		}
	}
	return syscall.EIO
}
