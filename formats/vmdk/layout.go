package vmdk

import (
	"context"
	"errors"
	"sort"

	"glanced/backends/stored"
	"glanced/formats"
)

// layout is an open disk: one hosted sparse extent, or the extents that a
// descriptor file lists. Nothing in it changes after open.
type layout struct {
	info   formats.Info
	pieces []piece        // in the order of the guest disk, without gaps
	given  []stored.Bytes // the extents' files, Src 1 on
}

// piece is what one extent holds of the guest disk.
type piece struct {
	begin, end int64 // guest range, bytes
	// Where its bytes are; neither of the last two is set where there are none.
	src    int
	sparse *sparse
	flat   formats.Layout // the whole file, of which the piece …
	pos    int64          // … is from this byte on
}

func (l *layout) Size() int64        { return l.info.VirtualSize }
func (l *layout) Info() formats.Info { return l.info }

// Sources are the extents' files, in the order of the guest disk (formats.Sourcer).
func (l *layout) Sources() []stored.Bytes { return l.given }

// Close lets go of the cached grain tables.
func (l *layout) Close() error {
	var errs []error
	for _, p := range l.pieces {
		switch {
		case p.sparse != nil:
			p.sparse.tables.Close()
		case p.flat != nil:
			errs = append(errs, p.flat.Close())
		}
	}
	return errors.Join(errs...)
}

// Check refuses grain tables that are used twice (formats.Checker).
func (l *layout) Check(ctx context.Context) error {
	for i := range l.pieces {
		if p := &l.pieces[i]; p.sparse != nil {
			if err := p.sparse.dir.check(ctx); err != nil {
				return err
			}
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
		if err := p.mapRange(ctx, &run, off, end); err != nil {
			return err
		}
		off = end
	}
	run.Flush()
	return nil
}

// mapRange adds guest range [off, end), which lies in the piece.
func (p *piece) mapRange(ctx context.Context, run *formats.Run, off, end int64) error {
	switch {
	case p.sparse != nil:
		return p.sparse.mapRange(ctx, run, off-p.begin, end-p.begin, p.begin, p.src)
	case p.flat != nil:
		return p.flat.Map(ctx, off-p.begin+p.pos, end-off, func(x formats.Extent) bool {
			run.Add(moved(x, p.begin-p.pos, p.src))
			return !run.Stopped()
		})
	}
	run.Add(formats.Extent{Off: off, Len: end - off, Kind: formats.Zero})
	return nil
}

// moved is an extent of a piece as one of the disk: by so many bytes further on,
// and in source src where it has bytes.
func moved(x formats.Extent, by int64, src int) formats.Extent {
	x.Off += by
	if x.Kind.Stored() {
		x.Src = src
	}
	return x
}
