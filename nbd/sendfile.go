package nbd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"glanced/backends/stored"

	"golang.org/x/sys/unix"
)

// sendfileMin is from how many bytes on a run that lies in a local file is sent
// by sendfile. Below it, the call costs more than the copy that it saves.
const sendfileMin = 32 << 10

// stream is the outlet of any net.Conn, such as TLS: memory only.
type stream struct {
	conn     net.Conn
	patience *patience
}

func (s *stream) send(segs []segment) error {
	bufs := make(net.Buffers, 0, len(segs))
	for i := range segs {
		if segs[i].file.File != nil {
			return errors.New("a file range on a connection that copies")
		}
		bufs = append(bufs, segs[i].mem)
	}
	// How much of a write has gone out is not known before all has: it has to be soon.
	if err := s.conn.SetWriteDeadline(s.patience.wait()); err != nil {
		return err
	}
	_, err := bufs.WriteTo(s.conn)
	s.patience.moved()
	return s.patience.failed(err)
}

// socket is the outlet of a plain unix or TCP socket: memory by sendmsg, files
// by sendfile. Used by one goroutine at a time.
type socket struct {
	conn     net.Conn
	raw      syscall.RawConn
	patience *patience
	armed    bool // a write deadline is set

	// What step does, set by its callers: made once, so that a write allocates
	// no closure.
	step   func(fd uintptr) (done bool)
	iov    [][]byte
	flags  int
	src    int // file to send from, when iov is empty
	srcPos int64
	srcN   int
	n      int // bytes moved
	err    error
}

// newSocket is nil for a connection that is not a plain socket.
func newSocket(conn net.Conn, p *patience) *socket {
	var raw syscall.RawConn
	var err error
	switch c := conn.(type) {
	case *net.TCPConn:
		raw, err = c.SyscallConn()
	case *net.UnixConn:
		raw, err = c.SyscallConn()
	default:
		return nil
	}
	if err != nil {
		return nil
	}
	s := &socket{conn: conn, raw: raw, patience: p}
	s.step = s.move
	return s
}

// maxIOV is how many pieces one sendmsg takes.
const maxIOV = 64

func (s *socket) send(segs []segment) error {
	if s.armed {
		s.armed = false
		if err := s.conn.SetWriteDeadline(time.Time{}); err != nil {
			return err
		}
	}
	for i := 0; i < len(segs); {
		s.iov = s.iov[:0]
		for i < len(segs) && segs[i].file.File == nil && len(s.iov) < maxIOV {
			s.iov = append(s.iov, segs[i].mem)
			i++
		}
		if i < len(segs) && segs[i].file.File != nil {
			// MSG_MORE keeps TCP from sending the header in a packet of its own.
			if err := s.sendMemory(unix.MSG_MORE); err != nil {
				return err
			}
			if err := s.sendFile(segs[i].file); err != nil {
				return err
			}
			i++
			continue
		}
		if err := s.sendMemory(0); err != nil {
			return err
		}
	}
	return nil
}

// sendMemory writes all of s.iov, and forgets it: an idle connection is not to
// keep alive what it sent last.
func (s *socket) sendMemory(flags int) error {
	s.flags = flags | unix.MSG_NOSIGNAL
	all := s.iov
	defer func() {
		clear(all)
		s.iov = all[:0]
	}()
	left := all
	for len(left) > 0 {
		s.iov = left
		if err := s.raw.Write(s.step); err != nil {
			return s.patience.failed(err)
		}
		if s.err != nil {
			return s.err
		}
		for n := s.n; len(left) > 0 && n >= len(left[0]); left = left[1:] {
			n -= len(left[0])
			s.n = n
		}
		if len(left) > 0 {
			left[0] = left[0][s.n:]
		}
	}
	return nil
}

// sendFile writes a range of a file. An error, or a file that ends too soon,
// comes after the header has promised the length: the connection is lost.
func (s *socket) sendFile(r stored.FileRange) error {
	src, err := r.File.SyscallConn()
	if err != nil {
		return err
	}
	s.iov = s.iov[:0]
	err = src.Control(func(fd uintptr) {
		s.src, s.srcPos, s.srcN = int(fd), r.Pos, int(r.Len)
		for s.err = nil; s.srcN > 0 && s.err == nil; s.srcN -= s.n {
			if e := s.raw.Write(s.step); e != nil {
				s.err = s.patience.failed(e)
			} else if s.err == nil && s.n == 0 {
				s.err = io.ErrUnexpectedEOF
			}
		}
	})
	if err == nil {
		err = s.err
	}
	if err != nil {
		return fmt.Errorf("send %d bytes of %s at %d: %w", r.Len, r.File.Name(), r.Pos, err)
	}
	return nil
}

// move makes one system call, and says whether it was done rather than refused
// for want of room in the socket.
func (s *socket) move(fd uintptr) bool {
	for {
		if len(s.iov) > 0 {
			s.n, s.err = unix.SendmsgBuffers(int(fd), s.iov, nil, nil, s.flags)
		} else {
			s.n, s.err = unix.Sendfile(int(fd), s.src, &s.srcPos, s.srcN)
		}
		switch s.err {
		case nil:
			s.patience.moved()
			return true
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			s.n = 0
			// The deadline is set only when there is something to wait for, so
			// that a write which finds room costs no timer.
			s.armed = true
			s.err = s.conn.SetWriteDeadline(s.patience.wait())
			return s.err != nil
		}
		s.n = 0
		return true
	}
}
