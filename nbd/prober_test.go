package nbd

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// prober speaks NBD byte by byte, for what well-behaved clients cannot be made
// to do.
type prober struct {
	t testing.TB
	net.Conn
	handle     uint64
	structured bool
	begun      map[uint64]*reply // of answerTo, by handle
}

// dial connects and reads the server's greeting.
func dial(t testing.TB, l net.Listener) *prober {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second)) // of a test that hangs
	p := &prober{t: t, Conn: c, begun: map[uint64]*reply{}}
	var hello protocol.NegotiationNewstyleHeader
	p.decode(&hello)
	if hello.OldstyleMagic != protocol.NEGOTIATION_MAGIC_OLDSTYLE || hello.OptionMagic != protocol.NEGOTIATION_MAGIC_OPTION || hello.HandshakeFlags != 3 {
		t.Fatalf("greeting %+v", hello)
	}
	return p
}

// open connects, and goes into transmission on an export with GO.
func open(t testing.TB, l net.Listener, name string, structured bool) *prober {
	t.Helper()
	p := dial(t, l)
	p.flags(3)
	if structured {
		p.option(optStructuredReply, nil)
		p.expect(optStructuredReply, protocol.NEGOTIATION_TYPE_REPLY_ACK)
		p.option(optSetMetaContext, queries(name, allocationContext))
		p.expect(optSetMetaContext, repMetaContext)
		p.expect(optSetMetaContext, protocol.NEGOTIATION_TYPE_REPLY_ACK)
		p.structured = true
	}
	p.option(protocol.NEGOTIATION_ID_OPTION_GO, infoRequest(name))
	p.expect(protocol.NEGOTIATION_ID_OPTION_GO, protocol.NEGOTIATION_TYPE_REPLY_INFO)
	p.expect(protocol.NEGOTIATION_ID_OPTION_GO, protocol.NEGOTIATION_TYPE_REPLY_ACK)
	return p
}

func (p *prober) read(n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(p.Conn, b); err != nil {
		p.t.Fatalf("read %d bytes: %v", n, err)
	}
	return b
}

func (p *prober) decode(v any) {
	p.t.Helper()
	if err := binary.Read(p.Conn, binary.BigEndian, v); err != nil {
		p.t.Fatalf("read a %T: %v", v, err)
	}
}

func (p *prober) send(b ...[]byte) {
	p.t.Helper()
	for _, b := range b {
		if _, err := p.Write(b); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *prober) flags(f uint32) { p.t.Helper(); p.send(binary.BigEndian.AppendUint32(nil, f)) }

// optionHead is an option's header, for length bytes of data.
func optionHead(id, length uint32) []byte {
	b, _ := binary.Append(nil, binary.BigEndian, protocol.NegotiationOptionHeader{
		OptionMagic: protocol.NEGOTIATION_MAGIC_OPTION, ID: id, Length: length,
	})
	return b
}

func (p *prober) option(id uint32, data []byte) {
	p.t.Helper()
	p.send(append(optionHead(id, uint32(len(data))), data...))
}

// expect reads one option reply of a type, and returns its data.
func (p *prober) expect(id, kind uint32) []byte {
	p.t.Helper()
	var h protocol.NegotiationReplyHeader
	p.decode(&h)
	data := p.read(int(h.Length))
	if h.ReplyMagic != protocol.NEGOTIATION_MAGIC_REPLY || h.ID != id || h.Type != kind {
		p.t.Fatalf("option %d answered with %+v %q, want type %#x", id, h, data, kind)
	}
	return data
}

// infoRequest is the data of GO or INFO.
func infoRequest(name string, infos ...uint16) []byte {
	b := appendString(nil, name)
	b = binary.BigEndian.AppendUint16(b, uint16(len(infos)))
	for _, i := range infos {
		b = binary.BigEndian.AppendUint16(b, i)
	}
	return b
}

// queries is the data of LIST_META_CONTEXT or SET_META_CONTEXT.
func queries(name string, q ...string) []byte {
	b := binary.BigEndian.AppendUint32(appendString(nil, name), uint32(len(q)))
	for _, s := range q {
		b = appendString(b, s)
	}
	return b
}

func requestBytes(kind, flags uint16, handle, off uint64, n uint32) []byte {
	b, _ := binary.Append(nil, binary.BigEndian, protocol.TransmissionRequestHeader{
		RequestMagic: protocol.TRANSMISSION_MAGIC_REQUEST, CommandFlags: flags, Type: kind, Handle: handle, Offset: off, Length: n,
	})
	return b
}

// request sends a request, and returns its handle.
func (p *prober) request(kind, flags uint16, off uint64, n uint32) uint64 {
	p.t.Helper()
	p.handle++
	p.send(requestBytes(kind, flags, p.handle, off, n))
	return p.handle
}

// reply is one whole answer.
type reply struct {
	handle uint64
	errno  uint32
	text   string
	at     uint64 // of an error
	kinds  []uint16
	data   []byte // of a READ, holes filled in
	status []uint32
}

// answer reads the next answer; off and n are those of the READ that it is to.
func (p *prober) answer(off uint64, n int) (r reply) {
	p.t.Helper()
	r.data = make([]byte, n)
	for {
		magic := binary.BigEndian.Uint32(p.read(4))
		if magic == protocol.TRANSMISSION_MAGIC_REPLY {
			b := p.read(12)
			r.errno, r.handle = binary.BigEndian.Uint32(b), binary.BigEndian.Uint64(b[4:])
			if r.errno == 0 && !p.structured {
				copy(r.data, p.read(n))
			}
			return r
		}
		if magic != chunkMagic || !p.structured {
			p.t.Fatalf("reply magic %#x", magic)
		}
		b := p.read(16)
		flags, kind := binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		r.handle = binary.BigEndian.Uint64(b[4:])
		r.kinds = append(r.kinds, kind)
		load := p.read(int(binary.BigEndian.Uint32(b[12:])))
		switch kind {
		case chunkOffsetData:
			copy(r.data[binary.BigEndian.Uint64(load)-off:], load[8:])
		case chunkOffsetHole:
			if len(load) != 12 {
				p.t.Fatalf("a hole chunk of %d bytes", len(load))
			}
		case chunkBlockStatus:
			for b := load[4:]; len(b) > 0; b = b[4:] {
				r.status = append(r.status, binary.BigEndian.Uint32(b))
			}
		case chunkError, chunkErrorOffset:
			m := int(binary.BigEndian.Uint16(load[4:]))
			r.errno, r.text = binary.BigEndian.Uint32(load), string(load[6:6+m])
			if kind == chunkErrorOffset {
				r.at = binary.BigEndian.Uint64(load[6+m:])
			}
		default:
			p.t.Fatalf("chunk type %d", kind)
		}
		if flags&chunkDone != 0 {
			return r
		}
	}
}

// closed expects the server to close the connection without another byte.
func (p *prober) closed() {
	p.t.Helper()
	n, err := p.Conn.Read(make([]byte, 1))
	var timeout net.Error
	if n != 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		p.t.Fatalf("the connection is not closed: %d bytes, %v", n, err)
	}
}

// answerTo reads until one structured answer is whole, to a read of n bytes at most;
// where says the offset that each handle asked for. Chunks of several answers may come
// in turns ("Structured reply chunk message").
func (p *prober) answerTo(where map[uint64]uint64, n int) reply {
	p.t.Helper()
	for {
		b := p.read(chunkSize)
		if binary.BigEndian.Uint32(b) != chunkMagic {
			p.t.Fatalf("chunk magic %x", b[:4])
		}
		handle := binary.BigEndian.Uint64(b[8:])
		r := p.begun[handle]
		if r == nil {
			r = &reply{handle: handle, data: make([]byte, n)}
			p.begun[handle] = r
		}
		load := p.read(int(binary.BigEndian.Uint32(b[16:])))
		switch kind := binary.BigEndian.Uint16(b[6:]); kind {
		case chunkOffsetData:
			copy(r.data[binary.BigEndian.Uint64(load)-where[handle]:], load[8:])
		case chunkOffsetHole:
		default:
			r.errno, r.text = binary.BigEndian.Uint32(load), string(load[6:])
		}
		if binary.BigEndian.Uint16(b[4:])&chunkDone != 0 {
			delete(p.begun, handle)
			return *r
		}
	}
}
