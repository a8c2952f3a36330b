package hostuser

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"glanced/catalog/access"
)

// Peer is the process that connected to a unix socket, as it was when it did
// (SO_PEERCRED and SO_PEERGROUPS, unix(7)).
func Peer(c net.Conn) (Caller, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return Caller{}, fmt.Errorf("ask who connected: %T is no unix socket", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Caller{}, fmt.Errorf("ask who connected: %w", err)
	}
	var cred *unix.Ucred
	var groups []uint32
	var credErr, groupsErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		groups, groupsErr = peerGroups(fd)
	})
	if err = errors.Join(err, credErr, groupsErr); err != nil {
		return Caller{}, fmt.Errorf("ask who connected: %w", err)
	}
	return Caller{UID: cred.Uid, Groups: append(groups, cred.Gid)}, nil
}

// Of is who is at the other end of a unix socket.
func (t *Table) Of(c net.Conn) (access.Identity, error) {
	caller, err := Peer(c)
	if err != nil {
		return access.Identity{}, err
	}
	return t.Identity(caller)
}

// maxGroups is NGROUPS_MAX: a process is in no more groups.
const maxGroups = 65536

// peerGroups are the supplementary groups of the peer. The kernel says ERANGE, and how
// much it needs, where the room is too small.
func peerGroups(fd uintptr) ([]uint32, error) {
	const size = unsafe.Sizeof(uint32(0))
	groups := make([]uint32, 64)
	for {
		room := uint32(uintptr(len(groups)) * size)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&room)), 0)
		n := int(uintptr(room) / size)
		switch {
		case errno == unix.ERANGE && n > len(groups) && n <= maxGroups:
			groups = make([]uint32, n)
		case errno != 0:
			return nil, fmt.Errorf("the peer's groups: %w", errno)
		default:
			return slices.Clone(groups[:min(n, len(groups))]), nil
		}
	}
}
