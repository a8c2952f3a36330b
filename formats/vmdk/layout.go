package vmdk

import (
	"context"
	"sort"

	"glanced/formats"
)

// layout is an open disk: one hosted sparse extent, or the extents that a
// descriptor file lists. Nothing in it changes after open.
type layout struct {
	info   formats.Info
	pieces []piece          // in the order of the guest disk, without gaps
	given  []formats.Source // by the resolver, Src 1 on
	parent *formats.Disk    // below a delta; nil otherwise
}

// piece is what one extent holds of the guest disk.
type piece struct {
	begin, end int64        // guest range, bytes
	kind       formats.Kind // Zero; Data (flat); Absent: as sparse says
	src        int          // where its bytes are
	pos        int64        // Data: host offset of the first byte
	sparse     *sparse
}

func (l *layout) Size() int64           { return l.info.VirtualSize }
func (l *layout) Info() formats.Info    { return l.info }
func (l *layout) Parent() *formats.Disk { return l.parent }

// Sources are the extents' files, in the order of the guest disk (formats.Sourcer).
func (l *layout) Sources() []formats.Source { return l.given }

// Close lets go of the cached grain tables.
func (l *layout) Close() error {
	for _, p := range l.pieces {
		if p.sparse != nil {
			p.sparse.tables.Close()
		}
	}
	return nil
}

// Map reads the grain tables of the range, and nothing of the grains.
func (l *layout) Map(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	run, err := formats.NewRun(l.Size(), off, n, yield)
	if err != nil {
		return err
	}
	i := sort.Search(len(l.pieces), func(i int) bool { return l.pieces[i].end > off })
	for ; off < run.End() && !run.Stopped(); i++ {
		p := &l.pieces[i]
		end := min(p.end, run.End())
		if p.sparse != nil {
			if err := p.sparse.mapRange(ctx, &run, off-p.begin, end-p.begin, p.begin, p.src); err != nil {
				return err
			}
		} else {
			run.Add(formats.Extent{Off: p.begin, Len: p.end - p.begin, Kind: p.kind, Src: p.src, Pos: p.pos})
		}
		off = end
	}
	run.Flush()
	return nil
}
