package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// listen opens a socket. A unix socket that a crash left behind is cleared; one
// that somebody answers on is not. mode and group are for unix sockets.
func (d *daemon) listen(network, addr string, mode fs.FileMode, group string) (net.Listener, error) {
	if network == "unix" {
		return listenUnix(addr, mode, group)
	}
	ln, err := net.Listen(network, addr)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: the address is in use: stop the other server, or choose another with --http or --nbd or in the configuration: %w", addr, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return ln, nil
}

func listenUnix(path string, mode fs.FileMode, group string) (net.Listener, error) {
	if len(path) > len(unix.RawSockaddrUnix{}.Path)-1 {
		return nil, fmt.Errorf("socket path %s is %d bytes long; the system allows %d: choose a shorter one", path, len(path), len(unix.RawSockaddrUnix{}.Path)-1)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the socket's folder: %w", err)
	}
	if err := clearStaleSocket(path); err != nil {
		return nil, err
	}
	// Nobody may connect before mode and group are right.
	old := unix.Umask(0o177)
	ln, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := own(path, mode, group); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

func own(path string, mode fs.FileMode, group string) error {
	gid, err := groupID(group)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("give socket %s to group %s: %w", path, group, err)
	}
	if err := os.Chmod(path, mode); err != nil {
		return fmt.Errorf("set the mode of socket %s: %w", path, err)
	}
	return nil
}

// groupID is the id of a group by name; of "", the daemon's own.
func groupID(name string) (int, error) {
	if name == "" {
		return os.Getegid(), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("no group %q: make it (addgroup --system %s) or change control.group: %w", name, name, err)
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return 0, fmt.Errorf("group %q has id %q: %w", name, g.Gid, err)
	}
	return gid, nil
}

// clearStaleSocket removes a socket nobody answers on.
func clearStaleSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket %s: %w", path, err)
	}
	if st.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there and is no socket: move it away", path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("somebody already answers on %s: stop that server first", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("socket %s is there, and whether somebody uses it cannot be told: %w", path, err)
	}
	return os.Remove(path)
}

// slogErrors takes in what net/http has to say.
func slogErrors(l *logs) *log.Logger {
	return slog.NewLogLogger(l.With("subsystem", "http").Handler(), slog.LevelWarn)
}
