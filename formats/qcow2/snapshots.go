package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"glanced/backends/stored"
	"glanced/formats"
)

// snapshot is one internal snapshot: a disk with an L1 table of its own, which is
// checked when the snapshot is opened. A damaged one is no reason to refuse the
// others, or the active disk.
type snapshot struct {
	id, name string
	disk     table
}

const (
	maxSnapshots     = 65536   // QEMU's own limit
	maxSnapshotTable = 4 << 20 // bytes
	maxSnapshotExtra = 1024    // bytes; QEMU's own limit
	snapshotFixed    = 40      // bytes in front of the extra data
	maxNamed         = 16      // snapshots that an error names
)

// readSnapshots reads the snapshot table.
func (h *header) readSnapshots(ctx context.Context, src stored.Bytes) error {
	if h.snapshotCount == 0 {
		return nil
	}
	if h.snapshotCount > maxSnapshots {
		return fmt.Errorf("%w: %d snapshots, at most %d", formats.ErrLimit, h.snapshotCount, maxSnapshots)
	}
	if h.snapshotsOff < h.clusterSize() || h.snapshotsOff%h.clusterSize() != 0 {
		return corruptf("a snapshot table at %d: not a cluster of its own", h.snapshotsOff)
	}
	c := cursor{src: src, what: "snapshot table", at: h.snapshotsOff, end: src.Size()}
	for range h.snapshotCount {
		s, err := h.readSnapshot(ctx, &c)
		if err != nil {
			return err
		}
		h.snapshots = append(h.snapshots, s)
		if c.at-h.snapshotsOff > maxSnapshotTable {
			return fmt.Errorf("%w: a snapshot table of more than %d bytes", formats.ErrLimit, maxSnapshotTable)
		}
	}
	return nil
}

func (h *header) readSnapshot(ctx context.Context, c *cursor) (snapshot, error) {
	b, err := c.next(ctx, snapshotFixed)
	if err != nil {
		return snapshot{}, err
	}
	l1 := binary.BigEndian.Uint64(b)
	l1N := int64(binary.BigEndian.Uint32(b[8:]))
	idLen, nameLen := int(binary.BigEndian.Uint16(b[12:])), int(binary.BigEndian.Uint16(b[14:]))
	extraLen := binary.BigEndian.Uint32(b[36:])
	if extraLen > maxSnapshotExtra {
		return snapshot{}, fmt.Errorf("%w: a snapshot with %d bytes of extra data, at most %d", formats.ErrLimit, extraLen, maxSnapshotExtra)
	}
	s := snapshot{disk: table{size: h.disk.size, l1N: l1N}}
	if l1 > math.MaxInt64 {
		return snapshot{}, corruptf("a snapshot's L1 table at %d", l1)
	}
	s.disk.l1 = int64(l1)
	length := int(extraLen) + idLen + nameLen
	if b, err = c.next(ctx, length); err != nil {
		return snapshot{}, err
	}
	extra, b := b[:extraLen], b[extraLen:]
	if len(extra) >= 16 { // older images do not say: the disk never changed size
		size := binary.BigEndian.Uint64(extra[8:])
		if size > math.MaxInt64 {
			return snapshot{}, corruptf("a snapshot of %d bytes", size)
		}
		s.disk.size = int64(size)
	}
	s.id, s.name = text(b[:idLen]), text(b[idLen:idLen+nameLen])
	c.skip(int64(-(snapshotFixed + length) & 7))
	return s, nil
}

// find is the snapshot with this id, or else the only one with this name, as in
// QEMU, which takes the first of several. It fails with ErrSnapshot, and says
// which there are.
func (h *header) find(wanted string) (snapshot, error) {
	var byID, byName []snapshot
	for _, s := range h.snapshots {
		if s.id == wanted {
			byID = append(byID, s)
		}
		if s.name == wanted {
			byName = append(byName, s)
		}
	}
	switch {
	case len(byID) == 1:
		return byID[0], nil
	case len(byID) > 1:
		return snapshot{}, corruptf("%d snapshots have the id %s", len(byID), quote(wanted))
	case len(byName) == 1:
		return byName[0], nil
	case len(byName) > 1:
		return snapshot{}, fmt.Errorf("%w: %d have the name %s; ask for one by its id: %s", formats.ErrSnapshot, len(byName), quote(wanted), listed(byName))
	case len(h.snapshots) == 0:
		return snapshot{}, fmt.Errorf("%w: %s; the image has none", formats.ErrSnapshot, quote(wanted))
	}
	return snapshot{}, fmt.Errorf("%w: %s; the image has %s", formats.ErrSnapshot, quote(wanted), listed(h.snapshots))
}

// listed names snapshots in an error, the first ones of many.
func listed(all []snapshot) string {
	var names []string
	for _, s := range all[:min(len(all), maxNamed)] {
		names = append(names, fmt.Sprintf("%s (%s)", quote(s.id), quote(s.name)))
	}
	list := strings.Join(names, ", ")
	if more := len(all) - maxNamed; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}
