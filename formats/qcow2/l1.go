package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"glanced/formats"
)

// checkUnshared refuses a disk of which two L1 entries point to one L2 table: few
// bytes would be many terabytes of a disk, for whoever walks it. It is looked for
// when the image is opened, because a walk in parts (one request after another)
// would never see it. The L1 table t was checked by checkL1. What else may be
// wrong with an entry is told when it is used.
func (h *header) checkUnshared(ctx context.Context, src formats.Source, t table) error {
	n := h.l1Entries(t.size)
	room := src.Size() / h.clusterSize() // how many L2 tables the image can hold
	var tables []uint64
	b := make([]byte, min(n*8, sliceSize))
	for at := int64(0); at < n*8; at += int64(len(b)) {
		b = b[:min(int64(len(b)), n*8-at)]
		if err := src.ReadAt(ctx, b, t.l1+at); err != nil {
			return fmt.Errorf("read the L1 table: %w", err)
		}
		for i := 0; i < len(b); i += 8 {
			if off := binary.BigEndian.Uint64(b[i:]) & offsetMask; off != 0 {
				tables = append(tables, off)
			}
		}
		if int64(len(tables)) > room {
			return corruptf("the L1 table points to more L2 tables than the image can hold: some are used twice")
		}
	}
	slices.Sort(tables)
	for i := 1; i < len(tables); i++ {
		if tables[i] == tables[i-1] {
			return corruptf("two L1 entries point to the same L2 table, at %d", tables[i])
		}
	}
	return nil
}
