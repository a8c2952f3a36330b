package nbd

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"time"

	"glanced/backends/budget"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// Bounds of the handshake. A client that lists asks for the details of every
// export on one connection (qemu-nbd --list: two options per export), so options
// are many; each is short.
const (
	maxOptions = 1 << 16
	maxLists   = 16       // of them LIST, whose answer is long
	maxOption  = 64 << 10 // bytes of one option's data that is looked at: GO with all its informations, a meta context query with some
	maxSkip    = 1 << 20  // bytes of one option's data that is read only to stay in step; more is an attack
)

// negotiated is what a handshake agreed on. The export's owner is who receives it.
type negotiated struct {
	name       string
	export     Export
	structured bool // reads are answered with chunks
	allocation bool // base:allocation was selected for this export
}

// handshake is the negotiation of one connection, "Fixed newstyle negotiation"
// in the protocol. Used by one goroutine.
type handshake struct {
	conn    io.ReadWriter
	exports Exports
	peer    Peer
	down    func() bool
	log     *slog.Logger
	limit   time.Duration // for opening what one option names
	renew   func()        // called before each option: it has its own deadline
	share   *budget.Share // of the memory for options
	held    int64         // bytes of it, for the option at hand

	fixed      bool // the client knows that options can fail
	noZeroes   bool
	structured bool
	meta       string // the export that SET_META_CONTEXT named last …
	metaSet    bool   // … if it selected base:allocation
	lists      int

	// The export opened last, kept for the GO that follows an INFO or a
	// SET_META_CONTEXT.
	name   string
	export Export

	out []byte // replies to the option at hand
}

// option is one option of the client, its data whole.
type option struct {
	id   uint32
	data []byte
}

// run negotiates. It returns what was agreed, nil after ABORT, or an error; every export
// it opened and does not return is closed.
func (h *handshake) run(ctx context.Context) (*negotiated, error) {
	defer func() { h.keep("", nil) }()
	defer func() { h.share.Give(h.held) }()
	h.renew()
	if err := h.greet(); err != nil {
		return nil, err
	}
	for range maxOptions {
		h.renew()
		o, err := h.readOption(ctx)
		if err != nil {
			return nil, err
		}
		opening, cancel := context.WithTimeoutCause(ctx, h.limit, errSlowHandshake)
		d, over, err := h.answer(opening, o)
		cancel()
		if err != nil {
			return nil, err
		}
		if err := h.write(); err != nil {
			if d != nil {
				d.export.Close()
			}
			return nil, err
		}
		if d != nil || over {
			return d, nil
		}
	}
	return nil, fmt.Errorf("%w: more than %d options", ErrProtocol, maxOptions)
}

// greet exchanges the flags: "Newstyle negotiation".
func (h *handshake) greet() error {
	hello, err := binary.Append(nil, binary.BigEndian, protocol.NegotiationNewstyleHeader{
		OldstyleMagic:  protocol.NEGOTIATION_MAGIC_OLDSTYLE,
		OptionMagic:    protocol.NEGOTIATION_MAGIC_OPTION,
		HandshakeFlags: protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE | flagNoZeroes,
	})
	if err != nil {
		return err
	}
	if _, err := h.conn.Write(hello); err != nil {
		return err
	}
	var b [4]byte
	if _, err := io.ReadFull(h.conn, b[:]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(b[:])
	known := uint32(protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE | flagNoZeroes)
	if flags&^known != 0 {
		return fmt.Errorf("%w: unknown client flags %#x", ErrProtocol, flags)
	}
	h.fixed = flags&uint32(protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE) != 0
	h.noZeroes = flags&uint32(flagNoZeroes) != 0
	return nil
}

// readOption reads one option. Options whose data is too long are answered here
// and skipped, or end the handshake.
func (h *handshake) readOption(ctx context.Context) (option, error) {
	var head protocol.NegotiationOptionHeader
	for range maxOptions {
		var b [16]byte
		if _, err := io.ReadFull(h.conn, b[:]); err != nil {
			return option{}, err
		}
		if _, err := binary.Decode(b[:], binary.BigEndian, &head); err != nil {
			return option{}, err
		}
		if head.OptionMagic != protocol.NEGOTIATION_MAGIC_OPTION {
			return option{}, fmt.Errorf("%w: option magic %#x", ErrProtocol, head.OptionMagic)
		}
		if head.ID == optExportName && head.Length > maxString || head.Length > maxSkip {
			return option{}, fmt.Errorf("%w: %d bytes of data for option %d", ErrProtocol, head.Length, head.ID)
		}
		if head.Length <= maxOption {
			break
		}
		if _, err := io.CopyN(io.Discard, h.conn, int64(head.Length)); err != nil {
			return option{}, err
		}
		h.reply(head.ID, repErrTooBig, []byte("the option's data is too long"))
		if err := h.write(); err != nil {
			return option{}, err
		}
		head.Length = 0
	}
	if err := h.hold(ctx, int64(head.Length)); err != nil {
		return option{}, err
	}
	data := make([]byte, head.Length)
	if _, err := io.ReadFull(h.conn, data); err != nil {
		return option{}, err
	}
	return option{head.ID, data}, nil
}

// shortOption is up to how long the data of an option counts as part of what a
// connection takes anyway, bytes: no name and no query of a decent client is longer.
const shortOption = 4 << 10

// hold waits for the memory that n bytes of an option take, and gives back what the
// one before took.
func (h *handshake) hold(ctx context.Context, n int64) error {
	h.share.Give(h.held)
	h.held = 0
	if n <= shortOption {
		return nil
	}
	held, err := h.share.Take(ctx, n, n)
	h.held = held
	return err
}

// reply adds one option reply to what is written next.
func (h *handshake) reply(id, kind uint32, data []byte) {
	head := protocol.NegotiationReplyHeader{
		ReplyMagic: protocol.NEGOTIATION_MAGIC_REPLY, ID: id, Type: kind, Length: uint32(len(data)),
	}
	h.out = binary.BigEndian.AppendUint64(h.out, head.ReplyMagic)
	h.out = binary.BigEndian.AppendUint32(h.out, head.ID)
	h.out = binary.BigEndian.AppendUint32(h.out, head.Type)
	h.out = binary.BigEndian.AppendUint32(h.out, head.Length)
	h.out = append(h.out, data...)
}

// write sends the replies made so far.
func (h *handshake) write() error {
	if len(h.out) == 0 {
		return nil
	}
	_, err := h.conn.Write(h.out)
	h.out = h.out[:0]
	return err
}

func (h *handshake) refuse(id, kind uint32, text string) { h.reply(id, kind, []byte(text)) }

// keep remembers an open export, and closes the one before.
func (h *handshake) keep(name string, e Export) {
	if h.export != nil && h.export != e {
		if err := h.export.Close(); err != nil {
			h.log.Warn("cannot close an NBD export", "export", h.name, "error", err)
		}
	}
	h.name, h.export = name, e
}

// open opens name, or has it open already.
func (h *handshake) open(ctx context.Context, name string) (Export, error) {
	if h.export != nil && h.name == name {
		select {
		case <-h.export.Revoked():
		default:
			return h.export, nil
		}
	}
	h.keep("", nil)
	if h.down() {
		return nil, ErrServerClosed
	}
	e, err := h.exports.Open(ctx, name, h.peer)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		h.log.Info("NBD export not opened", "export", name, "network", h.peer.Network, "error", err)
		return nil, err
	}
	h.keep(name, e)
	return e, nil
}

// take ends the handshake with the export that is held.
func (h *handshake) take() *negotiated {
	d := &negotiated{
		name: h.name, export: h.export, structured: h.structured,
		allocation: h.structured && h.metaSet && h.meta == h.name,
	}
	h.name, h.export = "", nil
	return d
}
