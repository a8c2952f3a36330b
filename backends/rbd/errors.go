//go:build ceph

package rbd

import (
	"errors"
	"fmt"
	"syscall"

	"glanced/backends"
)

// kinds are the sentinels that error numbers of the libraries stand for.
var kinds = map[syscall.Errno]error{
	syscall.ENOENT:    backends.ErrNotFound,
	syscall.EPERM:     backends.ErrDenied,
	syscall.EACCES:    backends.ErrDenied,
	syscall.ENOSPC:    backends.ErrFull,
	syscall.EDQUOT:    backends.ErrFull,
	syscall.EEXIST:    backends.ErrExists,
	syscall.EBUSY:     backends.ErrInUse,
	syscall.ENOTEMPTY: backends.ErrInUse, // it has snapshots
	syscall.ETIMEDOUT: backends.ErrUnavailable,
	syscall.EAGAIN:    backends.ErrUnavailable,
	syscall.EIO:       backends.ErrUnavailable,
	syscall.ENOTCONN:  backends.ErrUnavailable,
	syscall.EROFS:     backends.ErrUnavailable, // the image's lock was taken away
	syscall.ESHUTDOWN: backends.ErrUnavailable, // this client is on the cluster's blocklist
	syscall.ERANGE:    backends.ErrUnavailable,
}

// advice is what an operator can do about an error.
var advice = map[syscall.Errno]string{
	syscall.EPERM:     "check the capabilities of user: mon 'profile rbd', osd 'profile rbd pool=…'",
	syscall.EACCES:    "check user, and its key in keyring, key_file or conf",
	syscall.ESHUTDOWN: "the cluster has put this client on its blocklist",
}

// explain says in the contract's words why a call failed. It holds no names of hosts,
// and no keys.
func explain(doing string, err error) error {
	if err == nil {
		return nil
	}
	no, ok := errno(err)
	if !ok {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if kind := kinds[no]; kind != nil {
		return fmt.Errorf("%s: %w: %w", doing, kind, numbered(no))
	}
	return fmt.Errorf("%s: %w", doing, numbered(no))
}

// numbered is an error number as an error, with the advice that there is.
type numbered syscall.Errno

func (n numbered) Error() string {
	if hint := advice[syscall.Errno(n)]; hint != "" {
		return syscall.Errno(n).Error() + " (" + hint + ")"
	}
	return syscall.Errno(n).Error()
}

// ErrorCode is as the libraries' errors have it.
func (n numbered) ErrorCode() int { return -int(n) }

// errno is the error number that a library's error is of.
func errno(err error) (syscall.Errno, bool) {
	var coded interface{ ErrorCode() int }
	if !errors.As(err, &coded) || coded.ErrorCode() >= 0 {
		return 0, false
	}
	return syscall.Errno(-coded.ErrorCode()), true
}

func is(err error, want syscall.Errno) bool {
	no, ok := errno(err)
	return ok && no == want
}
