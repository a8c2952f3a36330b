package nbd

import (
	"context"
	"errors"
	"iter"
	"net"

	"glanced/formats"
	"glanced/formats/engine"
)

// Sentinels of the contract with whoever supplies exports.
var (
	ErrUnknownExport = errors.New("no such export")
	ErrForbidden     = errors.New("the export may not be opened by this client")
	ErrRevoked       = errors.New("the export was withdrawn")
	ErrNoSpace       = errors.New("there is no room now to make the export readable")
	ErrWithheld      = errors.New("a disk that the export stands on was withdrawn")
	ErrUnreadable    = errors.New("the export cannot be opened") // it exists, but has no readable disk
)

// Peer is who is asking.
type Peer struct {
	Network string // tcp or unix
	Addr    net.Addr
	Who     any // what Config.Who says of the connection
}

// ExportInfo is one line of an export list.
type ExportInfo struct {
	Name        string
	Description string // for people; "" = none
}

// Exports supplies disks by name. Safe for concurrent use.
type Exports interface {
	// List yields what peer may open now (ErrForbidden for one that may open nothing), and holds no more than 128 KiB of it at a time.
	// An error is yielded once and ends it. yield may wait for the client.
	List(ctx context.Context, peer Peer) iter.Seq2[ExportInfo, error]
	// Open opens one; ErrUnknownExport, ErrForbidden, ErrWithheld, ErrNoSpace or ErrUnreadable.
	Open(ctx context.Context, name string, peer Peer) (Export, error)
}

// Export is one open read-only disk. Safe for concurrent use.
type Export interface {
	Size() int64 // bytes
	Description() string
	// Granularity: see engine.Disk.
	Granularity() int64
	// Plan: see engine.Disk. ErrRevoked when the export was withdrawn.
	Plan(ctx context.Context, p *engine.Plan, off, n int64, o engine.PlanOptions) error
	// Extents: see engine.Disk.
	Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error
	Prefetch(off, n int64)
	// Revoked is closed when the export is withdrawn: reads answer EPERM and the
	// connection closes.
	Revoked() <-chan struct{}
	Close() error
}
