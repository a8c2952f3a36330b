package nbd

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// converse sends bytes to a server, ends the sending side, and returns all that
// came back. The server must close, and every export must be closed then.
func converse(t *testing.T, d *disk, in []byte) []byte {
	s := NewServer(Config{
		Exports: newLibrary(d), Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		HandshakeTimeout: 5 * time.Second, StallTimeout: 5 * time.Second, MaxInFlight: 4,
	})
	client, conn := net.Pipe()
	x := newSession(s, conn, "unix")
	var both sync.WaitGroup
	both.Go(x.run)
	var out bytes.Buffer
	both.Go(func() { io.Copy(&out, client) })
	client.SetWriteDeadline(time.Now().Add(5 * time.Second))
	client.Write(in) // fails when the server has had enough
	client.Close()
	both.Wait()
	if n := d.open.Load(); n != 0 {
		t.Fatalf("%d exports left open", n)
	}
	return out.Bytes()
}

func FuzzHandshake(f *testing.F) {
	fixed := []byte{0, 0, 0, 3}
	option := func(id uint32, data []byte) []byte { return append(optionHead(id, uint32(len(data))), data...) }
	f.Add(fixed)
	f.Add(append(fixed[:4:4], option(optExportName, []byte("d"))...))
	f.Add(append(fixed[:4:4], option(optGo, infoRequest("d", 0, 1, 2, 3))...))
	f.Add(append(append(append(fixed[:4:4], option(optStructuredReply, nil)...), option(optSetMetaContext, queries("d", allocationContext))...), option(optGo, infoRequest("d"))...))
	f.Add(append(append(fixed[:4:4], option(optListMetaContext, queries("d", "base:"))...), option(protocol.NEGOTIATION_ID_OPTION_ABORT, nil)...))
	f.Add(append(append(fixed[:4:4], option(optList, nil)...), option(optStartTLS, nil)...))
	f.Fuzz(func(t *testing.T, in []byte) {
		converse(t, newDisk("d", make([]byte, 3*block)), in)
	})
}

func FuzzTransmission(f *testing.F) {
	seed := func(requests ...[]byte) {
		f.Add(bytes.Join(requests, nil), true)
		f.Add(bytes.Join(requests, nil), false)
	}
	seed(requestBytes(cmdRead, 0, 1, 0, block), requestBytes(cmdRead, cmdFlagDF, 2, 5, 60_000))
	seed(requestBytes(cmdBlockStatus, 0, 1, 0, 1<<16), requestBytes(cmdBlockStatus, cmdFlagReqOne, 1, 0, 1<<16))
	seed(requestBytes(protocol.TRANSMISSION_TYPE_REQUEST_WRITE, 0, 1, 0, 5), []byte("12345"), requestBytes(cmdFlush, 0, 1, 0, 0))
	seed(requestBytes(cmdCache, 0, 1, 0, 5), requestBytes(protocol.TRANSMISSION_TYPE_REQUEST_DISC, 0, 1, 0, 5))
	f.Fuzz(func(t *testing.T, requests []byte, structured bool) {
		in := []byte{0, 0, 0, 3}
		option := func(id uint32, data []byte) { in = append(append(in, optionHead(id, uint32(len(data)))...), data...) }
		if structured {
			option(optStructuredReply, nil)
			option(optSetMetaContext, queries("d", allocationContext))
		}
		option(optGo, infoRequest("d"))
		out := converse(t, newDisk("d", mixed(40*block)), append(in, requests...))
		if len(out) < 18 {
			return
		}
		// What came back is whole messages of the protocol, but for the last.
		out = out[18:]
		for len(out) >= 20 && binary.BigEndian.Uint64(out) == protocol.NEGOTIATION_MAGIC_REPLY {
			out = out[min(len(out), 20+int(binary.BigEndian.Uint32(out[16:]))):]
		}
		for structured && len(out) >= simpleSize {
			switch binary.BigEndian.Uint32(out) {
			case protocol.TRANSMISSION_MAGIC_REPLY:
				out = out[simpleSize:]
			case chunkMagic:
				if len(out) < chunkSize {
					return
				}
				out = out[min(len(out), chunkSize+int(binary.BigEndian.Uint32(out[16:]))):]
			default:
				t.Fatalf("out of step: %x", out[:16])
			}
		}
	})
}
