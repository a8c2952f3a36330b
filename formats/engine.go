package formats

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
)

// EngineOptions bounds what an Engine may use.
type EngineOptions struct {
	CacheBytes int64 // decoded clusters, of all disks together
	TableBytes int64 // metadata tables, of all disks together
	Workers    int   // parallel decompressions; 0 = one a core
}

// Engine turns extents into bytes, for every disk made with it. Safe for
// concurrent use.
type Engine struct {
	o      EngineOptions
	tables *Tables
}

// NewEngine makes an engine; Close it after its disks.
func NewEngine(o EngineOptions) *Engine {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	return &Engine{o: o, tables: NewTables(o.TableBytes)}
}

// Close stops what the engine runs.
func (e *Engine) Close() error { return nil }

// Open opens srcs as driver's format and makes the disk, which owns srcs from
// here on, on success and on failure.
func (e *Engine) Open(ctx context.Context, driver Driver, srcs []Source, r Resolver, o Options) (*Disk, error) {
	if o.Tables == nil {
		o.Tables = e.tables
	}
	l, err := driver.Open(ctx, srcs, r, o)
	if err != nil {
		for _, s := range srcs {
			s.Close()
		}
		return nil, err
	}
	if s, ok := l.(Sourcer); ok {
		srcs = append(srcs[:len(srcs):len(srcs)], s.Sources()...)
	}
	return &Disk{e: e, layout: l, srcs: srcs}, nil
}

// decode reads and decodes one whole compressed cluster.
func (e *Engine) decode(ctx context.Context, src Source, x Extent) ([]byte, error) {
	coded := make([]byte, x.N)
	if err := src.ReadAt(ctx, coded, x.Pos); err != nil {
		return nil, err
	}
	full := make([]byte, x.Full)
	var r io.Reader
	switch x.Codec {
	case Deflate:
		r = flate.NewReader(bytes.NewReader(coded))
	case Zlib, VMDKGrain:
		if x.Codec == VMDKGrain {
			if len(coded) < 12 || int64(binary.LittleEndian.Uint32(coded[8:])) > int64(len(coded)-12) {
				return nil, fmt.Errorf("%w: grain marker at %d", ErrCorrupt, x.Pos)
			}
			coded = coded[12:]
		}
		z, err := zlib.NewReader(bytes.NewReader(coded))
		if err != nil {
			return nil, fmt.Errorf("%w: cluster at %d: %v", ErrCorrupt, x.Pos, err)
		}
		r = z
	default:
		return nil, fmt.Errorf("%w: codec %v", ErrUnsupported, x.Codec)
	}
	if _, err := io.ReadFull(r, full); err != nil {
		return nil, fmt.Errorf("%w: cluster at %d: %v", ErrCorrupt, x.Pos, err)
	}
	return full, nil
}
