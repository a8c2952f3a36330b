package nbd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// request is one request of a client, its payload not included.
type request struct {
	protocol.TransmissionRequestHeader
}

// parseRequest takes a request from the requestSize bytes of b ("Request
// message"). By hand: it runs for every 4 KiB that is read.
func parseRequest(b []byte) (request, error) {
	_ = b[requestSize-1]
	r := request{protocol.TransmissionRequestHeader{
		RequestMagic: binary.BigEndian.Uint32(b),
		CommandFlags: binary.BigEndian.Uint16(b[4:]),
		Type:         binary.BigEndian.Uint16(b[6:]),
		Handle:       binary.BigEndian.Uint64(b[8:]),
		Offset:       binary.BigEndian.Uint64(b[16:]),
		Length:       binary.BigEndian.Uint32(b[24:]),
	}}
	if r.RequestMagic != protocol.TRANSMISSION_MAGIC_REQUEST {
		return r, fmt.Errorf("%w: request magic %#x", ErrProtocol, r.RequestMagic)
	}
	return r, nil
}

// check is the errno that a request deserves by its looks, on an export of size
// bytes; 0 when it can be served ("Request types", "Error values").
func (r request) check(size uint64, structured, allocation bool) (errno uint32, text string) {
	var allowed uint16
	switch r.Type {
	case protocol.TRANSMISSION_TYPE_REQUEST_WRITE, cmdTrim, cmdWriteZeroes:
		return protocol.TRANSMISSION_ERROR_EPERM, "the export is read-only"
	case cmdFlush:
		if r.CommandFlags != 0 {
			return protocol.TRANSMISSION_ERROR_EINVAL, "unknown command flags"
		}
		return 0, ""
	case protocol.TRANSMISSION_TYPE_REQUEST_READ:
		if structured {
			allowed = cmdFlagDF
		}
	case cmdBlockStatus:
		if !allocation {
			return protocol.TRANSMISSION_ERROR_EINVAL, "no meta context was negotiated for this export"
		}
		allowed = cmdFlagReqOne
	case cmdCache:
	default:
		return protocol.TRANSMISSION_ERROR_EINVAL, "unknown command"
	}
	switch {
	case r.CommandFlags&^allowed != 0:
		return protocol.TRANSMISSION_ERROR_EINVAL, "unknown command flags"
	case r.Length == 0:
		return protocol.TRANSMISSION_ERROR_EINVAL, "the request is for no bytes"
	case r.Offset > size || uint64(r.Length) > size-r.Offset:
		return protocol.TRANSMISSION_ERROR_EINVAL, "the range lies outside the export"
	case r.Type == protocol.TRANSMISSION_TYPE_REQUEST_READ && r.Length > maxRequest:
		if r.CommandFlags&cmdFlagDF != 0 {
			return errnoOverflow, "the read is longer than 32 MiB"
		}
		return protocol.TRANSMISSION_ERROR_EINVAL, "the read is longer than 32 MiB"
	}
	return 0, ""
}

// readerSize is how many bytes of requests are read at once: 146 requests, more
// than clients keep in flight on one connection.
const readerSize = 4 << 10

// A client's end of requests: by DISC, or by closing its half of the connection. What
// it has asked for is still answered.
var (
	errDisconnect = errors.New("the client disconnected")
	errHalfClosed = errors.New("the client sends no more")
)

// readRequests reads and serves requests until there are no more. It returns
// errDisconnect or errHalfClosed, nil when the session is to be drained, or what went
// wrong.
func (t *transmission) readRequests() error {
	buf := make([]byte, readerSize)
	have := 0
	for {
		n, err := t.conn.Read(buf[have:])
		have += n
		used := 0
		for have-used >= requestSize {
			r, err := parseRequest(buf[used:])
			if err != nil {
				return err
			}
			used += requestSize
			if r.Type == protocol.TRANSMISSION_TYPE_REQUEST_DISC {
				return errDisconnect
			}
			if r.Type == protocol.TRANSMISSION_TYPE_REQUEST_WRITE {
				skip := min(int64(r.Length), int64(have-used))
				used += int(skip)
				if err := t.discard(int64(r.Length) - skip); err != nil {
					return err
				}
			}
			if err := t.serve(r); err != nil {
				return err
			}
		}
		have = copy(buf, buf[used:have])
		if err := t.flushInline(); err != nil {
			return err
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && t.session.isDraining():
			return nil
		case errors.Is(err, io.EOF) && have == 0:
			return errHalfClosed
		case errors.Is(err, io.EOF):
			return ErrHangUp
		default:
			return fmt.Errorf("%w: %w", ErrHangUp, err)
		}
	}
}

// discard reads past n bytes of a refused WRITE's payload, so that the next
// request is found.
func (t *transmission) discard(n int64) error {
	if n == 0 {
		return nil
	}
	if n > maxRequest {
		return fmt.Errorf("%w: a write of more than 32 MiB", ErrProtocol)
	}
	if err := t.flushInline(); err != nil {
		return err
	}
	var scrap [4 << 10]byte
	for n > 0 {
		m, err := t.conn.Read(scrap[:min(n, int64(len(scrap)))])
		n -= int64(m)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && t.session.isDraining() {
				return errHalfClosed
			}
			return fmt.Errorf("%w in the payload of a write: %w", ErrHangUp, err)
		}
	}
	return nil
}
