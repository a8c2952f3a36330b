package nbd

import (
	"encoding/binary"
	"errors"

	"glanced/formats"
)

// maxDescriptors bounds one answer to BLOCK_STATUS; the client asks on from
// where it ends.
const maxDescriptors = 8 << 10

// errNoExtents is an export whose extents do not begin where they were asked for.
var errNoExtents = errors.New("the export has no extents where it has bytes")

// descriptor is one of an answer to BLOCK_STATUS: n bytes are in a state.
type descriptor struct{ n, state uint32 }

const (
	// statusClusters and statusSteps bound the clusters that the map is asked for in one
	// answer: a range of four gigabytes of small clusters would keep a core busy for long.
	statusClusters = 4 << 10
	statusSteps    = 16
)

// blockStatus answers BLOCK_STATUS for base:allocation, of the range or of its
// beginning ("Block status request"). A worker's.
//
// What reads as zeros, be it absent or written as a zero cluster, is hole and
// zero, as in qemu: nothing is allocated for it. Everything else is data.
func (w *worker) blockStatus(r request) {
	t, limit := w.t, maxDescriptors
	if r.CommandFlags&cmdFlagReqOne != 0 {
		limit = 1
	}
	found, err := t.states(int64(r.Offset), int64(r.Length), limit)
	// With a part of the answer in hand the client asks again for the rest, and
	// gets the error then.
	if t.revoked.Load() {
		found, err = nil, ErrRevoked
	}
	if len(found) == 0 {
		if err == nil {
			err = errNoExtents
		}
		t.fail(r, err)
		return
	}
	n := chunkSize + 4 + 8*len(found)
	buf, err := w.buffer(n, n)
	if err != nil {
		t.fail(r, err)
		return
	}
	b := buf.b[:chunkSize]
	putChunk(b, chunkDone, chunkBlockStatus, r.Handle, 4+8*len(found))
	b = binary.BigEndian.AppendUint32(b, allocationID)
	for _, d := range found {
		b = binary.BigEndian.AppendUint32(b, d.n)
		b = binary.BigEndian.AppendUint32(b, d.state)
	}
	t.replies.push(segment{mem: b, buf: buf})
}

// states is what the range from off on is made of, in at most limit descriptors.
func (t *transmission) states(off, n int64, limit int) (found []descriptor, err error) {
	end, step := off+n, n
	if c := t.export.Granularity(); c > 0 {
		step = c * statusClusters
	}
	full := false
	for range statusSteps {
		next := min(off+step, end)
		err = t.export.Extents(t.ctx, off, next-off, func(x formats.Extent) bool {
			if x.Off != off || x.Len <= 0 || x.Len > next-off {
				return false
			}
			state := uint32(0)
			if !x.Kind.Stored() {
				state = stateHole | stateZero
			}
			switch i := len(found) - 1; {
			case i >= 0 && found[i].state == state:
				found[i].n += uint32(x.Len) // the range has fewer than 2^32 bytes
			case len(found) == limit:
				full = true
				return false
			default:
				found = append(found, descriptor{uint32(x.Len), state})
			}
			off = x.End()
			return true
		})
		if err != nil || full || off != next || off == end {
			break
		}
	}
	return found, err
}
