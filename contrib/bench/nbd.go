package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// block is how much one small read reads, bytes.
const block = 4096

// The wire, see the NBD protocol's doc/proto.md.
const (
	nbdMagic, nbdOption        = 0x4e42444d41474943, 0x49484156454F5054
	nbdRequest, nbdSimpleReply = 0x25609513, 0x67446698
	nbdFixedNewstyle           = 1 << 0 // a flag of both sides
	nbdNoZeroes                = 1 << 1 // likewise
	nbdExportName              = 1
)

// client is one connection to an export. It is a client of its own because fio
// cannot be told to read where there is data, and because a daemon may close an
// image, and forget its clusters, when the last client of it leaves.
type client struct {
	peer
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
}

func dial(p peer) (*client, error) {
	conn, err := net.Dial("unix", p.sock)
	if err != nil {
		return nil, err
	}
	c := &client{peer: p, conn: conn, r: bufio.NewReaderSize(conn, 256<<10), w: bufio.NewWriter(conn)}
	if err := openExport(c.r, c.w, p.export); err != nil {
		conn.Close()
		return nil, fmt.Errorf("open export %s of %s: %w", p.export, p.name, err)
	}
	return c, nil
}

// readBlocks reads the blocks at offsets, 32 at a time.
func (c *client) readBlocks(offsets []int64) error {
	r, w := c.r, c.w
	sent := 0
	send := func() {
		var q [28]byte
		binary.BigEndian.PutUint32(q[:], nbdRequest)
		binary.BigEndian.PutUint64(q[8:], uint64(sent))
		binary.BigEndian.PutUint64(q[16:], uint64(offsets[sent]))
		binary.BigEndian.PutUint32(q[24:], block)
		w.Write(q[:]) // an error stays for Flush
		sent++
	}
	for sent < min(32, len(offsets)) {
		send()
	}
	var reply [16 + block]byte
	for range offsets {
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return err
			}
		}
		if _, err := io.ReadFull(r, reply[:16]); err != nil {
			return err
		}
		if code := binary.BigEndian.Uint32(reply[4:]); binary.BigEndian.Uint32(reply[:]) != nbdSimpleReply || code != 0 {
			return fmt.Errorf("%s answers a read with error %d", c.name, code)
		}
		if _, err := io.ReadFull(r, reply[16:]); err != nil {
			return err
		}
		if sent < len(offsets) {
			send()
		}
	}
	return nil
}

// openExport is the handshake, up to where requests may be sent.
func openExport(r io.Reader, w *bufio.Writer, name string) error {
	var hello [18]byte
	if _, err := io.ReadFull(r, hello[:]); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(hello[:]) != nbdMagic || binary.BigEndian.Uint16(hello[16:])&nbdNoZeroes == 0 {
		return errors.New("not a server that speaks fixed newstyle")
	}
	var q []byte
	q = binary.BigEndian.AppendUint32(q, nbdFixedNewstyle|nbdNoZeroes)
	q = binary.BigEndian.AppendUint64(q, nbdOption)
	q = binary.BigEndian.AppendUint32(q, nbdExportName)
	q = binary.BigEndian.AppendUint32(q, uint32(len(name)))
	w.Write(append(q, name...))
	if err := w.Flush(); err != nil {
		return err
	}
	var export [10]byte // size, flags
	_, err := io.ReadFull(r, export[:])
	return err
}
