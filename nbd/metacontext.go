package nbd

import (
	"context"
	"encoding/binary"

	"github.com/pojntfx/go-nbd/pkg/protocol"
)

// metaContext is LIST_META_CONTEXT and SET_META_CONTEXT, "Metadata querying".
// There is one context, base:allocation. A selection holds for the export that
// it names and no other, and every further SET, even a failed one, replaces it.
func (h *handshake) metaContext(ctx context.Context, o option) {
	set := o.id == optSetMetaContext
	if set {
		h.meta, h.metaSet = "", false
		if !h.structured {
			h.refuse(o.id, repErrInvalid, "meta contexts need structured replies: ask for those first")
			return
		}
	}
	r := fields{rest: o.data}
	name := r.text()
	n := r.uint32()
	found := n == 0 && !set
	for range n {
		q := r.text()
		if r.bad { // also ends the loop for a count that the data cannot hold
			break
		}
		// An empty leaf asks for the namespace's list, and selects nothing.
		found = found || q == allocationContext || !set && q == "base:"
	}
	if r.bad || len(r.rest) != 0 {
		h.refuse(o.id, repErrInvalid, "the option's data does not add up")
		return
	}
	if _, err := h.open(ctx, name); err != nil {
		x := outcomeOf(err)
		h.refuse(o.id, x.reply, x.text)
		return
	}
	if found {
		id := uint32(0) // reserved in the answer to LIST
		if set {
			id = allocationID
			h.meta, h.metaSet = name, true
		}
		h.reply(o.id, repMetaContext, append(binary.BigEndian.AppendUint32(nil, id), allocationContext...))
	}
	h.reply(o.id, protocol.NEGOTIATION_TYPE_REPLY_ACK, nil)
}
