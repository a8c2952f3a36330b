package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"glanced/backends/budget"
	"glanced/backends/cache"
	"glanced/catalog"
	"glanced/catalog/access/hostuser"
	"glanced/ctl"
	formatsall "glanced/formats/all"
	"glanced/formats/container/spool"
	"glanced/formats/engine"
	"glanced/fs"
	"glanced/nbd"
)

const (
	// stopWithin bounds a clean end; what is under way then is cut off and rolled back.
	stopWithin = 5 * time.Second
	// headerWithin and idleWithin keep silent HTTP clients from holding sockets.
	headerWithin = 20 * time.Second
	idleWithin   = 2 * time.Minute
)

// daemon is all that runs, in the order in which it was started.
type daemon struct {
	cfg       *config // as it was at the start
	inForce   *config // with what reloads have changed; of the goroutine that reloads
	limits    limits
	transfers *budget.Budget // for the buffers of uploads and downloads
	log       *logs
	started   time.Time
	lock      *os.File
	node      string
	engine    *engine.Engine
	below     []io.Closer  // what the catalog stands on: stores, records
	stores    []openStore  // in the catalog's order; of the goroutine that reloads
	cache     *cache.Cache // nil: no store needs one
	catalog   *catalog.Catalog
	cached    *cacheAdmin // of cache
	auth      authenticator
	users     *hostuser.Table // of this host
	exports   exports
	nbd       *nbd.Server
	mount     *fs.Server // nil: no mount
	servers   []*http.Server
	listens   []ctl.ListenerStatus
	failed    chan error // a listener that died
	serving   sync.WaitGroup
	endTry    func()      // ends the first look at Keystone; nil: there was none
	ending    atomic.Bool // stop was called
}

// start brings everything up; on failure what was up goes down again.
func start(ctx context.Context, cfg *config) (d *daemon, err error) {
	d = &daemon{cfg: cfg, inForce: cfg, started: time.Now(), failed: make(chan error, 8)}
	if d.lock, err = lockDataDir(cfg.DataDir); err != nil {
		return nil, err
	}
	if d.log, err = openLogs(cfg.Log); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	if d.limits, err = divide(int64(cfg.Memory.Budget), cfg.cached()); err != nil {
		return d, err
	}
	debug.SetMemoryLimit(d.limits.runtime + cfg.uploadMemory())
	d.transfers = budget.New(d.limits.http)
	if err = os.MkdirAll(cfg.Staging.Path, 0o750); err != nil {
		return d, fmt.Errorf("make staging.path: %w", err)
	}
	if err = d.auth.open(cfg.Auth, d.limits.tokens, d.log.With("subsystem", "keystone")); err != nil {
		return d, err
	}
	if err = d.lookUpUsers(); err != nil {
		return d, err
	}
	if err = d.openCatalog(ctx); err != nil {
		return d, err
	}
	if err = d.openDoors(ctx); err != nil {
		return d, err
	}
	d.tryAuth(ctx)
	d.log.Info("ready", "version", version(), "data_dir", cfg.DataDir, "mountpoint", cfg.FUSE.Mountpoint)
	d.notify(sd.SdNotifyReady)
	return d, nil
}

func (d *daemon) openCatalog(ctx context.Context) error {
	var err error
	if d.node, err = nodeName(d.cfg.DataDir); err != nil {
		return err
	}
	d.engine = engine.New(engine.Options{CacheBytes: d.limits.clusters, TableBytes: d.limits.tables, BufferBytes: d.limits.buffers})

	// It ends before the stores do that it fetches from.
	if err := d.openCache(); err != nil {
		return err
	}
	if err := d.openStores(); err != nil {
		return err
	}
	rec, err := d.cfg.Catalog.open(ctx)
	if err != nil {
		return err
	}
	d.below = append(d.below, rec)
	// Half of the budget, though one at least.
	fills := max(1, int(d.cfg.Memory.Budget/2/spool.FillMemory))
	decompressed, err := spool.New(d.cfg.Spool.Path, int64(d.cfg.Spool.Limit), fills)
	if err != nil {
		return fmt.Errorf("spool.path: %w", err)
	}
	decompressed.ShareBytes(d.cfg.Spool.projectLimit())
	d.catalog, err = catalog.New(ctx, catalog.Config{
		Records: rec, DefaultQuota: catalog.Quota{ImageCountTotal: d.cfg.Quota.ImageCountTotal, ImageSizeTotal: d.cfg.Quota.ImageSizeTotal},
		Stores: d.entries(d.stores), Drivers: formatsall.Drivers(), Engine: d.engine, Node: d.node,
		Containers: formatsall.Containers(), Spool: decompressed,
		Shared: d.cfg.Catalog.sqlitePath() == "", Lease: time.Duration(d.cfg.Catalog.Lease), FailedUpload: catalog.Status(d.cfg.Catalog.FailedUpload), Memory: d.transfers, Uploads: d.limits.uploads, Log: d.log.With("subsystem", "catalog"),
	})
	return err
}

func (d *daemon) openDoors(ctx context.Context) error {
	d.exports.catalog, d.exports.users = d.catalog, d.users
	d.exports.anonymous.Store(&d.cfg.NBD.Anonymous)
	d.nbd = nbd.NewServer(nbd.Config{Exports: &d.exports, Who: d.exports.who, Log: d.log.With("subsystem", "nbd"),
		ServerBytes: d.limits.nbd, MaxConns: d.limits.nbdConns})
	mode, err := d.cfg.Control.mode()
	if err != nil {
		return err
	}
	for _, l := range d.cfg.NBD.Listen {
		network, addr, err := splitListen(l)
		if err != nil {
			return err
		}
		ln, err := d.listen(network, addr, mode, d.cfg.Control.Group)
		if err != nil {
			return err
		}
		d.serve("nbd", ln, func() error { return d.nbd.Serve(ln) })
	}

	admin := ctl.Admin{Status: d.status, Exports: d.exportStatus, Mounts: d.mountStatus}
	if d.cache != nil {
		d.cached = newCacheAdmin(d.cache, d.catalog)
		admin.Cache = d.cached
	}
	api := ctl.New(ctl.Config{Catalog: d.catalog, Auth: &d.auth, Peer: d.users.Of, TrustForwarded: d.cfg.HTTP.TrustForwarded, Log: d.log.With("subsystem", "ctl"), Memory: d.transfers, Records: budget.New(d.limits.records), Admin: admin})
	ln, err := d.listen("unix", d.cfg.Control.Socket, mode, d.cfg.Control.Group)
	if err != nil {
		return err
	}
	d.serveHTTP("control", ln, d.limits.adminConns, &http.Server{Handler: api.Control(), ConnContext: api.ControlConnContext})
	if d.cfg.HTTP.Listen != "" {
		ln, err := d.listen("tcp", d.cfg.HTTP.Listen, 0, "")
		if err != nil {
			return err
		}
		d.serveHTTP("http", ln, d.limits.httpConns, &http.Server{Handler: api.HTTP()})
	}

	if d.cfg.FUSE.Mountpoint != "" {
		// The mount shows all images, so only administrators may enter it.
		users, groups := d.users.Administrators()
		d.mount, err = fs.Mount(ctx, fs.Config{Catalog: d.catalog, Mountpoint: d.cfg.FUSE.Mountpoint, Users: users, Groups: groups,
			Passthrough: d.cfg.FUSE.Passthrough, MemoryBytes: d.limits.mounts, RecordBytes: d.limits.shown, MaxOpen: d.limits.mountFiles, Log: d.log.With("subsystem", "fs")})
		if err != nil {
			return fmt.Errorf("mount %s: %w", d.cfg.FUSE.Mountpoint, err)
		}
		go func() { // ends with the mount, which stop takes away
			<-d.mount.Done()
			if !d.ending.Load() {
				d.log.Warn("somebody unmounted the images; the other doors stay open, and a restart mounts them again", "mountpoint", d.cfg.FUSE.Mountpoint)
			}
		}()
	}
	return nil
}

// tryAuth has the log say early what is wrong with [auth.keystone]. The daemon starts all the
// same: its other doors need no Keystone. ctx ends it.
func (d *daemon) tryAuth(ctx context.Context) {
	auth := *d.auth.current.Load()
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	d.endTry = func() { cancel(); <-done }
	go func() {
		defer close(done)
		if err := d.auth.try(ctx, auth); err != nil {
			d.log.Error("until this is set right and the daemon told (SIGHUP), requests over HTTP are answered 503", "error", err)
		}
	}()
}

// serveHTTP runs one HTTP door. There is no overall read or write timeout: an
// image of a terabyte takes as long as it takes, and ctl bounds what is silent.
func (d *daemon) serveHTTP(kind string, ln net.Listener, conns int, s *http.Server) {
	s.ReadHeaderTimeout, s.IdleTimeout = headerWithin, idleWithin
	s.ConnState = admit(conns, kind, d.log.Logger).changed
	s.ErrorLog = slogErrors(d.log)
	d.servers = append(d.servers, s)
	d.serve(kind, ln, func() error {
		if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

// serve runs one door; its unexpected end ends the daemon.
func (d *daemon) serve(kind string, ln net.Listener, run func() error) {
	addr := ln.Addr().String()
	d.listens = append(d.listens, ctl.ListenerStatus{Kind: kind, Address: addr})
	d.serving.Go(func() {
		if err := run(); err != nil {
			d.failed <- fmt.Errorf("%s listener on %s: %w", kind, addr, err)
		}
	})
}

// stop ends everything in reverse: no new work, then what is under way within
// stopWithin, then the mount, then the catalog, whose close rolls back what was cut off.
func (d *daemon) stop() error {
	d.ending.Store(true)
	d.notify(sd.SdNotifyStopping)
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()

	var wg sync.WaitGroup
	for _, s := range d.servers {
		wg.Go(func() {
			if s.Shutdown(ctx) != nil {
				s.Close() // ends the requests' contexts: uploads are rolled back
			}
		})
	}
	if d.nbd != nil {
		wg.Go(func() { d.nbd.Shutdown(ctx) })
	}
	wg.Wait()
	d.serving.Wait()
	if d.endTry != nil {
		d.endTry()
	}

	var errs []error
	if d.mount != nil {
		errs = append(errs, d.mount.Unmount())
	}
	if d.cached != nil {
		d.cached.Close()
	}
	if d.catalog != nil {
		errs = append(errs, d.catalog.Close())
	}
	if d.engine != nil {
		errs = append(errs, d.engine.Close())
	}
	for _, c := range d.below {
		errs = append(errs, c.Close())
	}
	if err := errors.Join(errs...); err != nil {
		d.log.Error("stopped with errors", "error", err)
		d.lock.Close()
		return err
	}
	d.log.Info("stopped")
	return d.lock.Close()
}

// notify tells systemd, where it is there.
func (d *daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("systemd was not told", "state", state, "error", err)
	}
}

// welcome prints what to try next; for people who started with --dir.
func (d *daemon) welcome(w io.Writer) {
	rel := func(path string) string {
		if wd, err := os.Getwd(); err == nil {
			if r, err := filepath.Rel(wd, path); err == nil && !strings.HasPrefix(r, "..") {
				return r
			}
		}
		return path
	}
	self, err := os.Executable()
	cli := "glancectl"
	if err == nil {
		cli = rel(filepath.Join(filepath.Dir(self), "glancectl"))
	}
	sock := rel(d.cfg.Control.Socket)
	fmt.Fprintf(w, "glanced is ready. In another terminal, in this folder, try:\n")
	fmt.Fprintf(w, "  qemu-img create -f qcow2 /tmp/first.qcow2 1G\n")
	fmt.Fprintf(w, "  %s --socket %s image create --name first --disk-format qcow2 --container-format bare --visibility public --file /tmp/first.qcow2\n", cli, sock)
	if d.cfg.FUSE.Mountpoint != "" {
		fmt.Fprintf(w, "  ls -l %s/\n", rel(filepath.Join(d.cfg.FUSE.Mountpoint, "by-name", "first")))
	}
	for _, l := range d.listens {
		if l.Kind == "nbd" && strings.HasPrefix(l.Address, "/") {
			fmt.Fprintf(w, "  nbdinfo --list 'nbd+unix:///?socket=%s'\n", rel(l.Address))
			break
		}
	}
}
