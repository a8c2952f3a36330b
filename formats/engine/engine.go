package engine

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"glanced/backends/budget"
	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/codec"
)

// Options bounds what an Engine may use.
type Options struct {
	CacheBytes  int64 // decoded clusters, of all disks together; 0 = none are kept
	TableBytes  int64 // metadata tables, of all disks together
	BufferBytes int64 // coded and decoded clusters that reads are working on; 0 = 32 MiB
	Workers     int   // parallel decompressions; 0 = one a core
}

const (
	defaultBufferBytes = 32 << 20
	// maxFull bounds what one cluster decodes to, and maxCoded what it is coded
	// in, bytes. The formats that compress have clusters of 2 MiB at most, coded
	// in no more than twice that.
	maxFull  = 16 << 20
	maxCoded = 2 * maxFull
)

// Engine turns extents into bytes, for every disk made with it. Safe for
// concurrent use.
//
// Its memory is what Options says, and for each worker the contexts of the
// codecs, a few hundred KiB. A read that finds no room in BufferBytes waits. One source
// gets a part of them only, so that one that hangs does not hang the others.
type Engine struct {
	workers  int
	tables   *tables
	clusters *clusters
	buffers  buffers
	working  *budget.Budget // of coded and decoded clusters; each source has a share
	maxRun   int64          // how many coded bytes are read in one go for several clusters
	window   int64          // the most that is read ahead of one stream, bytes; 0 = nothing

	plans      sync.Pool           // of *Plan
	decoders   chan *codec.Decoder // as many as workers; who decodes holds one
	background chan struct{}       // who reads ahead holds one
	sources    atomic.Uint64       // numbers them
	closing    sync.Once
	closed     chan struct{}
}

// NewEngine makes an engine; Close it after its disks.
func New(o Options) *Engine {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.BufferBytes <= 0 {
		o.BufferBytes = defaultBufferBytes
	}
	o.CacheBytes = max(o.CacheBytes, 0)
	e := &Engine{
		workers:    o.Workers,
		tables:     newTables(o.TableBytes),
		working:    budget.New(o.BufferBytes),
		maxRun:     min(max(o.BufferBytes/32, leastRun), mostRun),
		window:     min(o.CacheBytes/32, maxWindow),
		decoders:   make(chan *codec.Decoder, o.Workers),
		background: make(chan struct{}, 2*o.Workers),
		plans:      sync.Pool{New: func() any { return new(Plan) }},
		closed:     make(chan struct{}),
	}
	e.clusters = newClusters(o.CacheBytes, &e.buffers)
	for range o.Workers {
		e.decoders <- new(codec.Decoder)
	}
	return e
}

// Close waits for decompressions under way and frees the codecs' memory. Reads
// of compressed clusters fail with ErrClosed from then on.
func (e *Engine) Close() error {
	e.closing.Do(func() {
		close(e.closed)
		for range e.workers {
			(<-e.decoders).Close()
		}
	})
	return nil
}

// OpenOptions of one Open.
type OpenOptions struct {
	Snapshot string        // see formats.Options
	Files    formats.Files // supplies other files that hold a part of the image; nil refuses all
	Parent   Parent        // supplies the disk below; nil refuses all
}

// Open opens src as driver's format and makes the disk, which owns src from here
// on, on success and on failure.
func (e *Engine) Open(ctx context.Context, driver formats.Driver, src stored.Bytes, o OpenOptions) (*Disk, error) {
	l, err := driver.Open(ctx, src, formats.Options{Snapshot: o.Snapshot, Files: o.Files, Tables: e.tables.reader})
	if err != nil {
		src.Close()
		return nil, err
	}
	srcs := []stored.Bytes{src}
	if s, ok := l.(formats.Sourcer); ok {
		srcs = append(srcs, s.Sources()...)
	}
	d := newDisk(e, l, srcs)
	if err := d.findParent(ctx, o.Parent); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// keep releases a plan and keeps it for the next read.
func (e *Engine) keep(p *Plan) {
	p.Release()
	e.plans.Put(p)
}

// decoder waits for one of the decoders; who has it gives it back to e.decoders.
func (e *Engine) decoder(ctx context.Context) (*codec.Decoder, error) {
	select {
	case d := <-e.decoders:
		return d, nil
	default:
	}
	select {
	case d := <-e.decoders:
		return d, nil
	case <-e.closed:
		return nil, formats.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// decode decodes x's cluster from its coded bytes into full, of x.Full bytes.
func decode(d *codec.Decoder, x *formats.Extent, full, coded []byte) error {
	var err error
	switch x.Codec {
	case formats.Deflate:
		err = d.Deflate(full, coded)
	case formats.Zlib:
		err = d.Zlib(full, coded)
	case formats.Zstd:
		err = d.Zstd(full, coded)
	case formats.VMDKGrain:
		err = d.VMDKGrain(full, coded)
	case formats.VMDKLastGrain:
		err = d.VMDKLastGrain(full, coded)
	default:
		return fmt.Errorf("%w: codec %v", formats.ErrUnsupported, x.Codec)
	}
	if err != nil {
		return fmt.Errorf("%w: cluster of %d coded bytes at %d: %v", formats.ErrCorrupt, x.N, x.Pos, err)
	}
	return nil
}
