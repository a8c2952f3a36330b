package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Block sizes told to clients, "Size constraints". Any byte can be read. 64 KiB
// is preferred: it is the cluster or grain of most images, so that requests
// aligned to it decode nothing twice, and long enough to be sent without a copy.
const (
	minBlock       = 1
	preferredBlock = 64 << 10
)

// answer answers one option in h.out. over: the client leaves. An error ends
// the connection without an answer.
func (h *handshake) answer(ctx context.Context, o option) (d *negotiated, over bool, err error) {
	if !h.fixed && o.id != optExportName {
		return nil, false, fmt.Errorf("%w: option %d of a client that does not know that options can fail", ErrProtocol, o.id)
	}
	switch o.id {
	case optExportName:
		d, err = h.exportName(ctx, o)
	case protocol.NEGOTIATION_ID_OPTION_ABORT:
		h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
		over = true
	case protocol.NEGOTIATION_ID_OPTION_LIST:
		err = h.list(ctx, o)
	case protocol.NEGOTIATION_ID_OPTION_INFO, protocol.NEGOTIATION_ID_OPTION_GO:
		d = h.info(ctx, o)
	case optStructuredReply:
		if h.noData(o) {
			h.structured = true
			h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
		}
	case optListMetaContext, optSetMetaContext:
		h.metaContext(ctx, o)
	case optStartTLS:
		if h.noData(o) {
			h.refuse(o.id, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED, "this server has no TLS")
		}
	default:
		h.refuse(o.id, protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED, "unknown option")
	}
	return d, over, err
}

// noData refuses an option that has data and should not.
func (h *handshake) noData(o option) bool {
	if len(o.data) != 0 {
		h.refuse(o.id, repErrInvalid, "this option takes no data")
	}
	return len(o.data) == 0
}

// transmissionFlags: "Transmission flags". SEND_DF only where there are chunks.
func transmissionFlags(structured bool) uint16 {
	f := protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS | flagReadOnly | flagSendFlush |
		protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN | flagSendCache
	if structured {
		f |= flagSendDF
	}
	return f
}

// exportName is EXPORT_NAME, which can only succeed or hang up.
func (h *handshake) exportName(ctx context.Context, o option) (*negotiated, error) {
	if !validName(o.data) {
		return nil, fmt.Errorf("%w: an export name that is not text", ErrProtocol)
	}
	e, err := h.open(ctx, string(o.data))
	if err != nil {
		return nil, fmt.Errorf("open export %q: %w", o.data, err)
	}
	h.out = binary.BigEndian.AppendUint64(h.out, uint64(e.Size()))
	h.out = binary.BigEndian.AppendUint16(h.out, transmissionFlags(h.structured))
	if !h.noZeroes {
		h.out = append(h.out, make([]byte, exportNameZeros)...)
	}
	return h.take(), nil
}

// listPiece is how many bytes of a list are held before they are sent: a catalog
// can be large, and its readers slow.
const listPiece = 64 << 10

// listBytes is what a list takes of the memory for options: a piece, and what its
// supplier holds.
const listBytes = listPiece + 128<<10

func (h *handshake) list(ctx context.Context, o option) error {
	if !h.noData(o) {
		return nil
	}
	if h.lists++; h.lists > maxLists {
		h.refuse(o.id, repErrPolicy, "the list was asked for too often")
		return nil
	}
	if err := h.hold(ctx, listBytes); err != nil {
		return err
	}
	for e, err := range h.exports.List(ctx, h.peer) {
		if err != nil {
			h.log.Warn("cannot list NBD exports", "error", err)
			x := outcomeOf(err)
			if x.reply == protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN { // an answer about one export
				x.reply = repErrPolicy
			}
			h.refuse(o.id, x.reply, "the exports cannot be listed now")
			return nil
		}
		if !validName([]byte(e.Name)) {
			continue // no client could ask for it
		}
		data := appendString(nil, e.Name)
		h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_SERVER, append(data, clip(e.Description)...))
		if len(h.out) >= listPiece {
			if err := h.write(); err != nil {
				return err
			}
		}
	}
	h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
	return nil
}

// info is INFO and GO: the details of an export, and with GO the end of the handshake.
func (h *handshake) info(ctx context.Context, o option) *negotiated {
	r := fields{rest: o.data}
	name := r.text()
	n := int(r.uint16())
	wanted := r.bytes(2 * n)
	if r.bad || len(r.rest) != 0 {
		h.refuse(o.id, repErrInvalid, "the option's data does not add up")
		return nil
	}
	e, err := h.open(ctx, name)
	if err != nil {
		x := outcomeOf(err)
		h.refuse(o.id, x.reply, x.text)
		return nil
	}
	info := func(kind uint16, data []byte) {
		h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_INFO, append(binary.BigEndian.AppendUint16(nil, kind), data...))
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(e.Size()))
	info(protocol.NEGOTIATION_TYPE_INFO_EXPORT, binary.BigEndian.AppendUint16(b, transmissionFlags(h.structured)))
	var told [4]bool // each once, however often it is asked for
	for ; len(wanted) > 0; wanted = wanted[2:] {
		kind := binary.BigEndian.Uint16(wanted)
		if int(kind) >= len(told) || told[kind] {
			continue
		}
		told[kind] = true
		switch kind {
		case protocol.NEGOTIATION_TYPE_INFO_NAME:
			info(kind, []byte(name))
		case protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION:
			if d := clip(e.Description()); d != "" {
				info(kind, []byte(d))
			}
		case protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE:
			b := binary.BigEndian.AppendUint32(nil, minBlock)
			b = binary.BigEndian.AppendUint32(b, preferredBlock)
			info(kind, binary.BigEndian.AppendUint32(b, maxRequest))
		}
	}
	h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
	if o.id == protocol.NEGOTIATION_ID_OPTION_GO {
		return h.take()
	}
	return nil
}

// validName reports whether b can be a string of the protocol: UTF-8 without
// NUL, at most 4096 bytes ("Conventions").
func validName(b []byte) bool {
	if len(b) > maxString || !utf8.Valid(b) {
		return false
	}
	for _, c := range b {
		if c == 0 {
			return false
		}
	}
	return true
}

// clip makes any text a string of the protocol.
func clip(s string) string {
	b := make([]byte, 0, min(len(s), maxString))
	for _, r := range s {
		if r == 0 {
			r = utf8.RuneError
		}
		if len(b)+utf8.RuneLen(r) > maxString {
			break
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}

// appendString adds a 32-bit length and the text.
func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// fields takes an option's data apart. After something does not fit, bad is set
// and everything is zero.
type fields struct {
	rest []byte
	bad  bool
}

func (f *fields) bytes(n int) []byte {
	if f.bad || n < 0 || n > len(f.rest) {
		f.bad = true
		return nil
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) uint16() uint16 {
	b := f.bytes(2)
	if f.bad {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func (f *fields) uint32() uint32 {
	b := f.bytes(4)
	if f.bad {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// text is a 32-bit length and a string of the protocol.
func (f *fields) text() string {
	n := f.uint32()
	if n > maxString {
		f.bad = true
		return ""
	}
	b := f.bytes(int(n))
	if !validName(b) {
		f.bad = true
		return ""
	}
	return string(b)
}
