package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"

	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/catalog/access/hostuser"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/nbd"
)

// snapshotSep parts an image's id and the name of a snapshot in it. Ids are UUIDs,
// and have none.
const snapshotSep = "@"

// exports shows the catalog to the NBD server: the active images that have a
// guest disk, under their ids, and the snapshots in them, as id@name. Over TCP a client
// without a ticket sees what nbd.anonymous says; at the unix socket, users of this host
// see what control.users makes them.
type exports struct {
	catalog   *catalog.Catalog
	users     *hostuser.Table
	anonymous atomic.Pointer[string] // none | public | all
}

// identity is who a connection is to the catalog; nbd.ErrForbidden where it is nobody.
func (e *exports) identity(p nbd.Peer) (access.Identity, error) {
	if p.Network == "unix" {
		known, ok := p.Who.(peer)
		switch {
		case !ok:
			return access.Identity{}, fmt.Errorf("%w: it is not known which user of this host is at the other end", nbd.ErrForbidden)
		case known.err != nil:
			return access.Identity{}, fmt.Errorf("%w: %w", nbd.ErrForbidden, known.err)
		}
		return known.who, nil
	}
	switch *e.anonymous.Load() {
	case "public":
		return access.Anyone(catalog.Scope{Visibility: []string{access.Public}}), nil
	case "all":
		return access.Anyone(catalog.Everything), nil
	}
	return access.Identity{}, nil
}

// List implements nbd.Exports. Names and snapshots are all that is read of the images.
func (e *exports) List(ctx context.Context, peer nbd.Peer) iter.Seq2[nbd.ExportInfo, error] {
	who, err := e.identity(peer)
	q := catalog.Query{Scope: access.Sees(who), Status: []catalog.Status{catalog.Active}, Brief: true}
	return func(yield func(nbd.ExportInfo, error) bool) {
		if err != nil {
			yield(nbd.ExportInfo{}, err)
			return
		}
		for img, err := range e.catalog.Walk(ctx, q) {
			if err != nil {
				yield(nbd.ExportInfo{}, err)
				return
			}
			if img.DiskError != "" {
				continue
			}
			if !yield(nbd.ExportInfo{Name: img.ID, Description: describe(img, "")}, nil) {
				return
			}
			for _, s := range img.Snapshots {
				if !yield(nbd.ExportInfo{Name: img.ID + snapshotSep + s.Name, Description: describe(img, s.Name)}, nil) {
					return
				}
			}
		}
	}
}

func (e *exports) Open(ctx context.Context, name string, peer nbd.Peer) (nbd.Export, error) {
	id, snapshot, isSnapshot := strings.Cut(name, snapshotSep)
	// One text for what is not there and what may not be seen: a guess learns nothing.
	hidden := fmt.Errorf("%w: no active image %q that this connection may see (over TCP those that nbd.anonymous says; at the unix socket those of its user)", nbd.ErrUnknownExport, name)
	who, err := e.identity(peer)
	if err != nil {
		return nil, err
	}
	if isSnapshot && snapshot == "" {
		return nil, hidden // a name that ends in "@" is no other way to write the image's
	}
	h, err := e.catalog.Open(ctx, who, id, catalog.View{Snapshot: snapshot})
	switch {
	case err == nil:
		return export{h, snapshot}, nil
	case errors.Is(err, catalog.ErrNoSnapshot):
		return nil, fmt.Errorf("%w: %w", nbd.ErrUnknownExport, err)
	case errors.Is(err, catalog.ErrNotFound), errors.Is(err, catalog.ErrNoData), errors.Is(err, catalog.ErrDeactivated),
		errors.Is(err, catalog.ErrRevoked):
		return nil, hidden
	case errors.Is(err, catalog.ErrStoredOnly):
		return nil, fmt.Errorf("%w: %w", nbd.ErrUnreadable, err)
	case errors.Is(err, catalog.ErrSpoolFull):
		return nil, fmt.Errorf("%w: %w", nbd.ErrNoSpace, err)
	case errors.Is(err, catalog.ErrParentDeactivated):
		return nil, fmt.Errorf("%w: %w", nbd.ErrWithheld, err)
	}
	return nil, err
}

// export is an open guest disk in NBD's words.
type export struct {
	*catalog.Handle
	snapshot string // its name; "" = the active disk
}

func (x export) Description() string { return describe(x.Image(), x.snapshot) }

func (x export) Plan(ctx context.Context, p *engine.Plan, off, n int64, o engine.PlanOptions) error {
	return asNBD(x.Handle.Plan(ctx, p, off, n, o))
}

func (x export) Extents(ctx context.Context, off, n int64, yield func(formats.Extent) bool) error {
	return asNBD(x.Handle.Extents(ctx, off, n, yield))
}

// asNBD says in NBD's words that an image was withdrawn: a read may learn it from
// the catalog before the session is told.
func asNBD(err error) error {
	if errors.Is(err, catalog.ErrRevoked) {
		return fmt.Errorf("%w: %w", nbd.ErrRevoked, err)
	}
	return err
}

// describe is an export's line for people.
func describe(img catalog.Image, snapshot string) string {
	var text string
	if img.Name != nil {
		text = *img.Name
	}
	if snapshot != "" {
		text = strings.TrimSpace(text + " (snapshot " + snapshot + ")")
	}
	return text
}
