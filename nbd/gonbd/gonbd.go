// Package gonbd makes an export usable by code written for
// github.com/pojntfx/go-nbd: it becomes a backend.Backend, which go-nbd's
// server, client tools and wrappers take. Nothing in this project's own server
// goes through it.
package gonbd

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/pojntfx/go-nbd/pkg/backend"

	"glanced/formats/engine"
	"glanced/nbd"
)

// ErrReadOnly is the answer to every write.
var ErrReadOnly = errors.New("the disk is read-only")

// disk is an export in go-nbd's shape. It holds a context because Backend's
// methods have none.
type disk struct {
	ctx    context.Context
	export nbd.Export
}

// New is e as a go-nbd backend: reads fail once ctx ends or e is revoked, writes
// fail with ErrReadOnly, Sync has nothing to do. It does not own e, and is safe
// for concurrent use.
func New(ctx context.Context, e nbd.Export) backend.Backend { return &disk{ctx, e} }

// ReadAt is io.ReaderAt: at the end of the disk it reads what there is, and
// says io.EOF.
func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	size := d.export.Size()
	switch {
	case off < 0:
		return 0, fmt.Errorf("read at offset %d: an offset may not be negative", off)
	case len(p) == 0:
		return 0, nil
	case off >= size:
		return 0, io.EOF
	}
	select {
	case <-d.export.Revoked():
		return 0, nbd.ErrRevoked
	default:
	}
	n := min(int64(len(p)), size-off)
	if err := d.read(p[:n], off); err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (d *disk) read(p []byte, off int64) error {
	var plan engine.Plan
	defer plan.Release()
	for len(p) > 0 {
		if err := d.export.Plan(d.ctx, &plan, off, int64(len(p)), engine.PlanOptions{}); err != nil {
			return err
		}
		n := plan.End() - off
		if err := plan.ReadInto(d.ctx, p[:n]); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	return nil
}

// WriteAt always fails, with ErrReadOnly.
func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	return 0, fmt.Errorf("write %d bytes at %d: %w", len(p), off, ErrReadOnly)
}

// Size is the size of the disk in bytes.
func (d *disk) Size() (int64, error) { return d.export.Size(), nil }

// Sync succeeds: nothing was written.
func (d *disk) Sync() error { return nil }
