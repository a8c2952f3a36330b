package parallels

import (
	"context"
	"encoding/binary"
	"fmt"

	"glanced/formats"
)

// sliceBytes is how much of the BAT is read at once: with clusters of 1 MiB, it
// maps 16 GiB.
const sliceBytes = 64 << 10

// layout maps one image. Nothing in it changes after open.
type layout struct {
	*image
	bat     formats.LongTable
	srcSize int64
}

func (l *layout) Size() int64        { return l.info.VirtualSize }
func (l *layout) Info() formats.Info { return l.info }

// Close lets go of the cached parts of the BAT.
func (l *layout) Close() error {
	l.bat.Tables.Close()
	return nil
}

// Map reads the parts of the BAT that the range lies in.
func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	run, err := formats.NewRun(l.Size(), off, n, yield)
	if err != nil {
		return err
	}
	const entries = sliceBytes / 4
	size := l.h.cluster()
	for cluster := off / size; cluster*size < run.End() && !run.Stopped(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		first := cluster / entries * entries
		slice, err := l.bat.Slice(ctx, cluster/entries, l.bat.Pos+(run.End()+size-1)/size*4)
		if err != nil {
			return fmt.Errorf("ploop BAT: %w", err)
		}
		for cluster < first+int64(len(slice)/4) && cluster*size < run.End() && !run.Stopped() {
			x, err := l.cluster(cluster, binary.LittleEndian.Uint32(slice[4*(cluster-first):]))
			if err != nil {
				return err
			}
			same := int64(1)
			if !x.Kind.Stored() {
				same = formats.Same(slice, 4, int(cluster-first), (run.End()-x.Off-1)/size+1)
				x.Len = min(same*size, l.Size()-x.Off)
			}
			run.Add(x)
			cluster += same
		}
	}
	run.Flush()
	return nil
}

// cluster is the extent of a cluster of the guest disk from its BAT entry. Of the
// last one only what the disk has of it must be in the file.
func (l *layout) cluster(cluster int64, entry uint32) (formats.Extent, error) {
	begin := cluster * l.h.cluster()
	x := formats.Extent{Off: begin, Len: min(l.h.cluster(), l.Size()-begin)}
	if entry == 0 {
		x.Kind = formats.Absent
		return x, nil
	}
	x.Kind, x.N = formats.Data, x.Len
	wrong := ""
	switch {
	case l.h.flags&flagEmpty != 0:
		wrong = "in an image that is marked as empty"
	case int64(entry) > (l.srcSize-x.N)/l.h.unit():
		wrong = fmt.Sprintf("past the end of the file (%d bytes)", l.srcSize)
	default:
		x.Pos = int64(entry) * l.h.unit()
		wrong = l.h.inDataArea(x.Pos)
		if ext := int64(l.h.extOff) * sector; wrong == "" && ext != 0 && x.Pos < ext+l.h.cluster() && ext < x.Pos+x.N {
			wrong = "where the Format Extension is"
		}
	}
	if wrong != "" {
		return x, fmt.Errorf("%w: the ploop cluster of guest offset %d is said to be at %d × %d bytes: %s", formats.ErrCorrupt, begin, entry, l.h.unit(), wrong)
	}
	return x, nil
}
