package nbd

import (
	"encoding/binary"
	"errors"

	"glanced/formats"
)

// maxDescriptors bounds one answer to BLOCK_STATUS; the client asks on from
// where it ends.
const maxDescriptors = 8 << 10

// statusBytes is the most data in an answer to BLOCK_STATUS.
const statusBytes = 8 * maxDescriptors

// errNoExtents is an export whose extents do not begin where they were asked for.
var errNoExtents = errors.New("the export has no extents where it has bytes")

// blockStatus answers BLOCK_STATUS for base:allocation. A worker's.
//
// What reads as zeros, be it absent or written as a zero cluster, is hole and
// zero, as in qemu: nothing is allocated for it. Everything else is data.
func (t *transmission) blockStatus(r request, l *lease) {
	limit := maxDescriptors
	if r.CommandFlags&cmdFlagReqOne != 0 {
		limit = 1
	}
	type descriptor struct{ n, state uint32 }
	found := make([]descriptor, 0, 16)
	at, end := int64(r.Offset), int64(r.Offset)+int64(r.Length)
	err := t.export.Extents(t.ctx, at, end-at, func(x formats.Extent) bool {
		if x.Off != at || x.Len <= 0 || x.Len > end-at {
			return false
		}
		at = x.End()
		state := uint32(0)
		if !x.Kind.Stored() {
			state = stateHole | stateZero
		}
		if i := len(found) - 1; i >= 0 && found[i].state == state {
			found[i].n += uint32(x.Len) // the range has fewer than 2^32 bytes
			return true
		}
		if len(found) == limit {
			return false
		}
		found = append(found, descriptor{uint32(x.Len), state})
		return true
	})
	if t.revoked.Load() {
		err = ErrRevoked
	} else if err == nil && len(found) == 0 {
		err = errNoExtents
	}
	// With a part of the answer in hand the client asks again for the rest, and
	// gets the error then.
	if err != nil && (len(found) == 0 || t.revoked.Load()) {
		t.fail(r, err, nil)
		return
	}
	buf := l.buffer(chunkSize + 4 + 8*len(found))
	b := buf.b[:chunkSize]
	putChunk(b, chunkDone, chunkBlockStatus, r.Handle, 4+8*len(found))
	b = binary.BigEndian.AppendUint32(b, allocationID)
	for _, d := range found {
		b = binary.BigEndian.AppendUint32(b, d.n)
		b = binary.BigEndian.AppendUint32(b, d.state)
	}
	t.replies.push(segment{mem: b, buf: buf})
}
