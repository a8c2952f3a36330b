package main

import (
	"context"
	"runtime"
	"time"

	"glanced/ctl"
)

// status is what GET /admin/status answers.
func (d *daemon) status(ctx context.Context) (ctl.Status, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	s := ctl.Status{
		Version: version(), Node: d.node, StartedAt: d.started.UTC(), UptimeSeconds: int64(time.Since(d.started).Seconds()),
		DataDir: d.cfg.DataDir, Mountpoint: d.cfg.FUSE.Mountpoint, Listeners: d.listens,
		Images: map[string]int64{},
		Memory: ctl.MemoryStatus{BudgetBytes: int64(d.cfg.Memory.Budget), HeapBytes: int64(mem.HeapAlloc)},
	}
	counts, err := d.catalog.Counts(ctx)
	if err != nil {
		return s, err
	}
	for status, n := range counts {
		s.Images[string(status)] = n
	}
	for _, st := range d.catalog.Stores() {
		line := ctl.StoreStatus{ID: st.ID, Type: st.Type, Description: st.Description, Default: st.Default,
			ReadOnly: st.ReadOnly, Weight: st.Weight, TotalBytes: -1, FreeBytes: -1}
		if u, err := st.Store.Usage(ctx); err != nil {
			d.log.Warn("a store does not tell its usage", "store", st.ID, "error", err)
		} else {
			line.TotalBytes, line.FreeBytes = u.Total, u.Free
		}
		s.Stores = append(s.Stores, line)
	}
	return s, nil
}

func (d *daemon) exportStatus(context.Context) (ctl.ExportStatus, error) {
	out := ctl.ExportStatus{Sessions: []ctl.ExportSession{}}
	for _, s := range d.nbd.Sessions() {
		out.Sessions = append(out.Sessions, ctl.ExportSession{Export: s.Export, Peer: s.Peer.Network + " " + s.Peer.Addr.String(), Since: s.Since.UTC(), BytesRead: s.BytesRead})
	}
	return out, nil
}

func (d *daemon) mountStatus(context.Context) (ctl.MountStatus, error) {
	out := ctl.MountStatus{Mounts: []ctl.Mount{}}
	if d.mount != nil {
		select {
		case <-d.mount.Done():
		default:
			out.Mounts = append(out.Mounts, ctl.Mount{Mountpoint: d.mount.Mountpoint()})
		}
	}
	return out, nil
}
