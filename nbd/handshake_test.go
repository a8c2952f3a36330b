package nbd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

const (
	ack     = protocol.NEGOTIATION_TYPE_REPLY_ACK
	unknown = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN
	unsup   = protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED
	optGo   = protocol.NEGOTIATION_ID_OPTION_GO
	optInfo = protocol.NEGOTIATION_ID_OPTION_INFO
	optList = protocol.NEGOTIATION_ID_OPTION_LIST
	repInfo = protocol.NEGOTIATION_TYPE_REPLY_INFO
	cmdRead = protocol.TRANSMISSION_TYPE_REQUEST_READ
)

func TestExportNameGoesIntoTransmission(t *testing.T) {
	d := newDisk("old", mixed(1<<20))
	_, unix, tcp := serve(t, Config{Exports: newLibrary(d)})
	for _, l := range []int{0, 1} {
		for clientFlags, zeros := range map[uint32]int{0: 124, 1: 124, 2: 0, 3: 0} {
			t.Run(fmt.Sprint(l, clientFlags), func(t *testing.T) {
				p := dial(t, unix)
				if l == 1 {
					p = dial(t, tcp)
				}
				p.flags(clientFlags)
				p.option(optExportName, []byte("old"))
				b := p.read(10 + zeros)
				if binary.BigEndian.Uint64(b) != 1<<20 || binary.BigEndian.Uint16(b[8:]) != transmissionFlags(false) {
					t.Fatalf("%x", b[:10])
				}
				if !bytes.Equal(b[10:], make([]byte, zeros)) {
					t.Fatal("the padding is not zeros")
				}
				p.request(cmdRead, 0, 5000, 9000)
				if r := p.answer(5000, 9000); r.errno != 0 || !bytes.Equal(r.data, d.data[5000:14000]) {
					t.Errorf("errno %d", r.errno)
				}
			})
		}
	}
}

func TestExportNameOfAnUnknownExportHangsUp(t *testing.T) {
	_, unix, _ := serve(t, Config{Exports: newLibrary()})
	p := dial(t, unix)
	p.flags(3)
	p.option(optExportName, []byte("nope"))
	p.closed()
}

func TestOldstyleFlagsAllowOnlyExportName(t *testing.T) {
	_, unix, _ := serve(t, Config{Exports: newLibrary(newDisk("d", mixed(block)))})
	p := dial(t, unix)
	p.flags(0)
	p.option(optGo, infoRequest("d"))
	p.closed()
}

func TestBrokenHandshakesHangUp(t *testing.T) {
	_, unix, _ := serve(t, Config{Exports: newLibrary(newDisk("d", mixed(block)))})
	for name, bytes := range map[string][]byte{
		"unknown client flags": {0, 0, 0, 4},
		"bad option magic":     append([]byte{0, 0, 0, 3}, make([]byte, 16)...),
		"2 GiB option":         append([]byte{0, 0, 0, 3}, optionHead(optGo, 2<<30)...),
		"long export name":     append([]byte{0, 0, 0, 3}, optionHead(optExportName, 4097)...),
		"export name not text": append(append([]byte{0, 0, 0, 3}, optionHead(optExportName, 2)...), 0xff, 0xfe),
	} {
		t.Run(name, func(t *testing.T) {
			p := dial(t, unix)
			p.send(bytes)
			p.closed()
		})
	}
}

func TestAnUnfinishedHandshakeIsCutOff(t *testing.T) {
	_, unix, tcp := serve(t, Config{Exports: newLibrary(newDisk("d", mixed(block))), HandshakeTimeout: 50 * time.Millisecond})
	for _, sent := range [][]byte{nil, {0, 0}, {0, 0, 0, 3}, append([]byte{0, 0, 0, 3}, optionHead(optGo, 60000)...)} {
		p := dial(t, unix)
		p.send(sent)
		p.closed()
		p = dial(t, tcp)
		p.send(sent)
		p.closed()
	}
	// … and the deadline is over in transmission.
	p := open(t, unix, "d", true)
	time.Sleep(100 * time.Millisecond)
	p.request(cmdRead, 0, 0, 512)
	if r := p.answer(0, 512); r.errno != 0 {
		t.Errorf("errno %d", r.errno)
	}
}

// A long list takes a client long, one option after the other; still, a client
// that negotiates for ever is cut off.
func TestEachOptionHasItsOwnDeadline(t *testing.T) {
	lib := newLibrary(newDisk("d", mixed(block)))
	const limit = 2 * time.Second
	_, unix, _ := serve(t, Config{Exports: lib, HandshakeTimeout: limit})
	p := dial(t, unix)
	p.flags(3)
	for range 3 {
		time.Sleep(limit * 2 / 5)
		p.option(optStructuredReply, nil)
		p.expect(optStructuredReply, ack)
	}
	_, unix, _ = serve(t, Config{Exports: lib, HandshakeTimeout: 20 * time.Millisecond})
	p = dial(t, unix)
	p.flags(3)
	for {
		if _, err := p.Write(optionHead(optStructuredReply, 0)); err != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
}

func TestOptionsAreRefusedInStep(t *testing.T) {
	secret, broken := newDisk("secret", mixed(block)), newDisk("broken", mixed(block))
	secret.openErr = fmt.Errorf("/var/secret/path: %w", ErrForbidden)
	broken.openErr = fmt.Errorf("/var/secret/path: %w", ErrUnreadable)
	_, unix, _ := serve(t, Config{Exports: newLibrary(newDisk("d", mixed(block)), secret, broken)})
	p := dial(t, unix)
	p.flags(3)
	long := strings.Repeat("x", 4097)
	for _, c := range []struct {
		what string
		id   uint32
		data []byte
		want uint32
	}{
		{"unknown option", 4711, []byte("data"), unsup},
		{"extended headers", 11, nil, unsup},
		{"TLS", optStartTLS, nil, unsup},
		{"TLS with data", optStartTLS, []byte("x"), repErrInvalid},
		{"structured replies with data", optStructuredReply, []byte("x"), repErrInvalid},
		{"list with data", optList, []byte("x"), repErrInvalid},
		{"go without data", optGo, nil, repErrInvalid},
		{"go with a name longer than the data", optGo, []byte{0, 0, 0, 9, 'd', 0, 0}, repErrInvalid},
		{"go with a huge name", optGo, []byte{0xff, 0xff, 0xff, 0xff, 'd', 0, 0}, repErrInvalid},
		{"go with too long a name", optGo, infoRequest(long), repErrInvalid},
		{"go with a NUL", optGo, infoRequest("d\x00"), repErrInvalid},
		{"go that is not UTF-8", optGo, infoRequest("\xff"), repErrInvalid},
		{"go with more informations than data", optGo, []byte{0, 0, 0, 1, 'd', 0xff, 0xff}, repErrInvalid},
		{"go with data left over", optGo, append(infoRequest("d"), 0), repErrInvalid},
		{"go of nothing there", optGo, infoRequest("nope"), unknown},
		{"go of the default export", optGo, infoRequest(""), unknown},
		{"info of nothing there", optInfo, infoRequest("nope"), unknown},
		{"go of a forbidden export", optGo, infoRequest("secret"), repErrPolicy},
		{"go of an export without disk", optGo, infoRequest("broken"), repErrPolicy},
		{"contexts before structured replies", optSetMetaContext, queries("d", allocationContext), repErrInvalid},
		{"option of 100 kB", optGo, make([]byte, 100_000), repErrTooBig},
		{"list contexts of nothing there", optListMetaContext, queries("nope"), unknown},
		{"list contexts with a count that lies", optListMetaContext, []byte{0, 0, 0, 1, 'd', 0xff, 0xff, 0xff, 0xff}, repErrInvalid},
	} {
		p.option(c.id, c.data)
		if text := p.expect(c.id, c.want); bytes.Contains(text, []byte("/var")) {
			t.Errorf("%s: the client sees %q", c.what, text)
		}
	}
	p.option(optGo, infoRequest("d"))
	p.expect(optGo, repInfo)
	p.expect(optGo, ack)
}

func TestInfoAnswersWhatIsAsked(t *testing.T) {
	d := newDisk("d", mixed(3*block))
	d.description = "described"
	_, unix, _ := serve(t, Config{Exports: newLibrary(d, newDisk("plain", mixed(block)))})
	p := dial(t, unix)
	p.flags(3)
	infos := func(name string, wanted ...uint16) map[uint16]string {
		t.Helper()
		p.option(optInfo, infoRequest(name, wanted...))
		got := map[uint16]string{}
		for {
			var h protocol.NegotiationReplyHeader
			p.decode(&h)
			b := p.read(int(h.Length))
			if h.Type == ack {
				return got
			}
			if h.Type != repInfo {
				t.Fatalf("%+v %q", h, b)
			}
			kind := binary.BigEndian.Uint16(b)
			if _, twice := got[kind]; twice {
				t.Errorf("information %d twice", kind)
			}
			got[kind] = string(b[2:])
		}
	}
	if got := infos("d"); len(got) != 1 || binary.BigEndian.Uint64([]byte(got[0])) != 3*block {
		t.Errorf("%v", got)
	}
	if got := infos("d", 3, 2, 1, 1, 77, 0); len(got) != 4 || got[1] != "d" || got[2] != "described" || got[3] != "\x00\x00\x00\x01\x00\x01\x00\x00\x02\x00\x00\x00" {
		t.Errorf("%v", got)
	}
	if got := infos("plain", 2); len(got) != 1 {
		t.Errorf("%v", got)
	}
	p.option(protocol.NEGOTIATION_ID_OPTION_ABORT, nil)
	p.expect(protocol.NEGOTIATION_ID_OPTION_ABORT, ack)
	p.closed()
	eventually(t, "the export that was looked at closed", func() bool { return d.open.Load() == 0 })
}

func TestGoAfterInfoOfAnotherExport(t *testing.T) {
	a, b := newDisk("a", mixed(block)), newDisk("b", mixed(2*block))
	s, unix, _ := serve(t, Config{Exports: newLibrary(a, b)})
	p := dial(t, unix)
	p.flags(3)
	p.option(optInfo, infoRequest("a"))
	p.expect(optInfo, repInfo)
	p.expect(optInfo, ack)
	p.option(optGo, infoRequest("nope"))
	p.expect(optGo, unknown)
	p.option(optGo, infoRequest("b"))
	if got := p.expect(optGo, repInfo); binary.BigEndian.Uint64(got[2:]) != 2*block {
		t.Errorf("the size of %x", got)
	}
	p.expect(optGo, ack)
	eventually(t, "one session on b", func() bool {
		all := s.Sessions()
		return len(all) == 1 && all[0].Export == "b" && all[0].Peer.Network == "unix"
	})
	if a.open.Load() != 0 || b.open.Load() != 1 {
		t.Errorf("open: a %d, b %d", a.open.Load(), b.open.Load())
	}
}

func TestMetaContextsHoldForTheirExportOnly(t *testing.T) {
	_, unix, _ := serve(t, Config{Exports: newLibrary(newDisk("a", mixed(block)), newDisk("b", mixed(block)))})
	for _, c := range []struct {
		what    string
		set     [][]byte
		replies []int // contexts that each SET selects; -1 = refused
		want    uint32
	}{
		{"selected", [][]byte{queries("a", allocationContext)}, []int{1}, 0},
		{"among others", [][]byte{queries("a", "qemu:dirty-bitmap:x", allocationContext, allocationContext)}, []int{1}, 0},
		{"never selected", nil, nil, 22},
		{"unknown namespace", [][]byte{queries("a", "x-other:thing")}, []int{0}, 22},
		{"wildcard selects nothing", [][]byte{queries("a", "base:")}, []int{0}, 22},
		{"no query selects nothing", [][]byte{queries("a")}, []int{0}, 22},
		{"of another export", [][]byte{queries("b", allocationContext)}, []int{1}, 22},
		{"replaced by another export", [][]byte{queries("a", allocationContext), queries("b", allocationContext)}, []int{1, 1}, 22},
		{"replaced by a failure", [][]byte{queries("a", allocationContext), queries("nope", allocationContext)}, []int{1, -1}, 22},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := dial(t, unix)
			p.flags(3)
			p.option(optStructuredReply, nil)
			p.expect(optStructuredReply, ack)
			p.structured = true
			for i, data := range c.set {
				p.option(optSetMetaContext, data)
				if c.replies[i] < 0 {
					p.expect(optSetMetaContext, unknown)
					continue
				}
				for range c.replies[i] {
					if got := p.expect(optSetMetaContext, repMetaContext); string(got[4:]) != allocationContext {
						t.Errorf("%q", got)
					}
				}
				p.expect(optSetMetaContext, ack)
			}
			p.option(optGo, infoRequest("a"))
			p.expect(optGo, repInfo)
			p.expect(optGo, ack)
			p.request(cmdBlockStatus, 0, 0, block)
			if r := p.answer(0, 0); r.errno != c.want {
				t.Errorf("errno %d %q, want %d", r.errno, r.text, c.want)
			}
		})
	}
}

func TestListMetaContextKnowsWildcards(t *testing.T) {
	_, unix, _ := serve(t, Config{Exports: newLibrary(newDisk("a", mixed(block)))})
	p := dial(t, unix)
	p.flags(3)
	for _, c := range []struct {
		q    []string
		want bool
	}{{nil, true}, {[]string{"base:"}, true}, {[]string{allocationContext}, true}, {[]string{"x:y", "base:other"}, false}} {
		p.option(optListMetaContext, queries("a", c.q...))
		if c.want {
			p.expect(optListMetaContext, repMetaContext)
		}
		p.expect(optListMetaContext, ack)
	}
}

func TestListIsNotAskedForForever(t *testing.T) {
	_, unix, _ := serve(t, Config{Exports: newLibrary()})
	p := dial(t, unix)
	p.flags(3)
	for range maxLists {
		p.option(optList, nil)
		p.expect(optList, ack)
	}
	p.option(optList, nil)
	p.expect(optList, repErrPolicy)
}

func TestALongListArrivesWhole(t *testing.T) {
	var disks []*disk
	for i := range 3000 {
		d := newDisk(fmt.Sprintf("export-%d", i), nil)
		d.description = strings.Repeat("é", 1500+i) // the longest is cut
		disks = append(disks, d)
	}
	disks[7].name = "no\x00name"
	l := newLibrary(disks...)
	l.order[7], l.disks["no\x00name"] = "no\x00name", disks[7]
	_, unix, _ := serve(t, Config{Exports: l})
	p := dial(t, unix)
	p.flags(3)
	p.option(optList, nil)
	for i := range 3000 {
		if i == 7 {
			continue // no client could ask for it
		}
		b := p.expect(optList, protocol.NEGOTIATION_TYPE_REPLY_SERVER)
		n := binary.BigEndian.Uint32(b)
		if name := string(b[4 : 4+n]); name != fmt.Sprintf("export-%d", i) || len(b)-4-int(n) != min(2*(1500+i), maxString) {
			t.Fatalf("%s, described in %d bytes", name, len(b)-4-int(n))
		}
	}
	p.expect(optList, ack)
	l.mu.Lock()
	l.err = fmt.Errorf("/var/lib/secret.db: %w", ErrUnreadable)
	l.mu.Unlock()
	p.option(optList, nil)
	if text := p.expect(optList, repErrPolicy); bytes.Contains(text, []byte("secret")) {
		t.Errorf("the client sees %q", text)
	}
}
