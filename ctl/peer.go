package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"glanced/catalog/access"
)

// ControlProject is the project of admins on the control socket, and of the
// embedded admin token: an image made by root with glancectl and one made with
// that token have the same owner.
const ControlProject = "admin"

type peerKey struct{}

type peer struct {
	who Identity
	err error
}

// ControlConnContext is the http.Server.ConnContext of the control socket: it
// asks the kernel (SO_PEERCRED, unix(7)) once per connection which user is at
// the other end. Root and the daemon's own user are admins of ControlProject.
// Anyone else got past the socket's file mode, by its group, and is an ordinary
// member of a project named after their user; one who happens to be named like
// ControlProject gets a project named after their number, so as not to own what
// admins own.
func ControlConnContext(ctx context.Context, c net.Conn) context.Context {
	who, err := peerIdentityOf(c)
	return context.WithValue(ctx, peerKey{}, peer{who, err})
}

func peerFrom(ctx context.Context) (Identity, error) {
	p, ok := ctx.Value(peerKey{}).(peer)
	if !ok {
		return Identity{}, errors.New("the control handler is served without ControlConnContext")
	}
	return p.who, p.err
}

func peerIdentityOf(c net.Conn) (Identity, error) {
	uc, ok := c.(*net.UnixConn)
	if !ok {
		return Identity{}, fmt.Errorf("the control handler is served on %T, not on a unix socket", c)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Identity{}, fmt.Errorf("ask who connected: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) { cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err = errors.Join(err, credErr); err != nil {
		return Identity{}, fmt.Errorf("ask who connected: %w", err)
	}
	return identityOf(cred.Uid, uint32(os.Getuid()), nameOfUID(cred.Uid)), nil
}

// nameOfUID is the number itself where the system has no name for it.
func nameOfUID(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return u.Username
	}
	return number
}

// identityOf is the rule of ControlConnContext; self is the daemon's user id.
func identityOf(uid, self uint32, name string) Identity {
	if uid == 0 || uid == self {
		return Identity{User: name, Project: ControlProject, Roles: []string{access.Admin}}
	}
	project := name
	if project == ControlProject {
		project = "uid-" + strconv.FormatUint(uint64(uid), 10)
	}
	return Identity{User: name, Project: project, Roles: []string{access.Member}}
}
