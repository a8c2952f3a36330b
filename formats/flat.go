package formats

import (
	"context"
	"fmt"

	"glanced/backends/stored"
)

// NewFlat is the layout of a disk that lies in src as it is, from src's first
// byte on: raw disks, and those with nothing but a trailer. What follows
// info.VirtualSize in src is no part of the disk. Where src knows its own holes
// (stored.Extenter), they are told as Zero. It fails with ErrCorrupt where src is
// shorter than the disk.
func NewFlat(src stored.Bytes, info Info, o Options) (Layout, error) {
	if info.VirtualSize < 0 || info.VirtualSize > src.Size() {
		return nil, fmt.Errorf("%w: a disk of %d bytes in a file of %d; it is cut off", ErrCorrupt, info.VirtualSize, src.Size())
	}
	l := &flat{info: info, whole: info.VirtualSize == src.Size()}
	if x, ok := stored.As[stored.Extenter](src); ok {
		tables := holeTables{x, src.Size()}
		l.holes = &LongTable{Tables: o.TablesOf(tables), End: tables.Size(), Each: holeTable}
	}
	return l, nil
}

// flat maps every byte to the same place of source 0. Nothing in it changes.
type flat struct {
	info  Info
	whole bool       // source 0 is the disk, and nothing else
	holes *LongTable // holeTables; nil: all is data
}

func (l *flat) Size() int64 { return l.info.VirtualSize }
func (l *flat) Info() Info  { return l.info }

func (l *flat) Close() error {
	if l.holes != nil {
		l.holes.Tables.Close()
	}
	return nil
}

// Identical implements formats.Identical.
func (l *flat) Identical() bool { return l.whole }

// Map asks for the holes of the windows that the range lies in.
func (l *flat) Map(ctx context.Context, off, n int64, yield func(Extent) bool) error {
	run, err := NewRun(l.Size(), off, n, yield)
	if err != nil {
		return err
	}
	if l.holes == nil {
		run.Add(Extent{Off: off, Len: n, Kind: Data, Pos: off})
		off = run.End()
	}
	for off < run.End() && !run.Stopped() {
		if err := ctx.Err(); err != nil {
			return err
		}
		window := off / holeWindow
		table, err := l.holes.Slice(ctx, window, (run.End()-1)/holeWindow*holeTable+1)
		if err != nil {
			return err
		}
		base, end := window*holeWindow, min((window+1)*holeWindow, run.End())
		for off < end && !run.Stopped() {
			first := (off - base) / holeBlock
			blocks, hole := equalBits(table, first, (end-base+holeBlock-1)/holeBlock)
			next := min(base+(first+blocks)*holeBlock, end)
			x := Extent{Off: off, Len: next - off, Kind: Zero}
			if !hole {
				x.Kind, x.Pos = Data, off
			}
			run.Add(x)
			off = next
		}
	}
	run.Flush()
	return nil
}
