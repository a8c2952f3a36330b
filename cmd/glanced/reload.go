package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"runtime/debug"
	"slices"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"glanced/backends/all"
	"glanced/ctl"
)

// reload puts a new configuration in force, as far as that can be done while the daemon
// runs: the log's level and file, who may ask (auth), nbd.anonymous and the stores. It
// is all or nothing: everything is read, checked and opened first. What else has
// changed stays as it was until a restart, and the log says what that is.
func (d *daemon) reload(load func() (*config, error)) {
	d.notify(sd.SdNotifyReloading)
	defer d.notify(sd.SdNotifyReady)
	cfg, err := load()
	var r *reloading
	if err == nil {
		r, err = d.prepare(cfg)
	}
	if err == nil {
		err = r.apply(d)
	}
	if err != nil {
		d.log.Error("reload failed; the old configuration stays in force", "error", err)
		return
	}
	if len(r.restart) > 0 {
		d.log.Warn("reloaded, but for what takes a restart", "restart_for", r.restart)
		return
	}
	d.log.Info("reloaded")
}

// reloading is a reload that is prepared.
type reloading struct {
	cfg     *config // that will be in force
	restart []string
	log     *os.File
	auth    ctl.Authenticator
	stores  []openStore
	opened  []int // of these, those that were opened now
}

// prepare checks cfg and opens what it needs. When it fails, nothing is left open.
func (d *daemon) prepare(cfg *config) (r *reloading, err error) {
	r = &reloading{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.discard())
		}
	}()
	next := *d.inForce
	next.Log.Level, next.Log.File = cfg.Log.Level, cfg.Log.File
	next.Auth, next.NBD.Anonymous = cfg.Auth, cfg.NBD.Anonymous
	r.cfg, r.restart = &next, differences(&next, cfg)
	next.Stores = r.mergeStores(d.stores, cfg.Stores)
	// The listeners are those that are in force, whatever cfg says of them.
	if err := next.check(); err != nil {
		return r, fmt.Errorf("together with what stays as it is until a restart: %w", err)
	}
	if next.cached() && d.cache == nil {
		r.restart = append(r.restart, "cache")
	}
	if err := r.openStores(d); err != nil {
		return r, err
	}
	if r.log, err = openLogFile(next.Log.File); err != nil {
		return r, err
	}
	// Last, as it makes token files that are missing.
	if r.auth, err = d.auth.read(next.Auth); err == nil {
		err = d.auth.try(context.Background(), r.auth)
	}
	return r, err
}

// differences are the keys that have other values in next, [[stores]] aside.
func differences(now, next *config) (keys []string) {
	a, b := reflect.ValueOf(now).Elem(), reflect.ValueOf(next).Elem()
	for i := range a.NumField() {
		section := a.Type().Field(i).Tag.Get("toml")
		switch {
		case section == "-" || section == "stores":
		case a.Field(i).Kind() != reflect.Struct:
			if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				keys = append(keys, section)
			}
		default:
			for _, key := range all.Differences(a.Field(i).Interface(), b.Field(i).Interface()) {
				keys = append(keys, section+"."+key)
			}
		}
	}
	return keys
}

// mergeStores is what can be in force of next: a store that is not in it stays, and so
// does what says where a store is.
func (r *reloading) mergeStores(now []openStore, next []all.Config) (merged []all.Config) {
	for _, c := range next {
		if i := slices.IndexFunc(now, func(s openStore) bool { return s.cfg.ID == c.ID }); i >= 0 {
			var fixed []string
			c, fixed = c.Reloaded(now[i].cfg)
			for _, key := range fixed {
				r.restart = append(r.restart, fmt.Sprintf("stores.%s.%s", c.ID, key))
			}
		}
		merged = append(merged, c)
	}
	for _, s := range now {
		if !slices.ContainsFunc(next, func(c all.Config) bool { return c.ID == s.cfg.ID }) {
			s.cfg.Default = false
			merged = append(merged, s.cfg)
			r.restart = append(r.restart, fmt.Sprintf("stores.%s (removed)", s.cfg.ID))
		}
	}
	return merged
}

// openStores opens the stores that are new, or that are to be opened anew. Those in
// whose place they come stay open for who uses them, until the daemon ends.
func (r *reloading) openStores(d *daemon) error {
	for _, c := range r.cfg.Stores {
		i := slices.IndexFunc(d.stores, func(s openStore) bool { return s.cfg.ID == c.ID })
		if i >= 0 && !c.Reopens(d.stores[i].cfg, d.stores[i].files) {
			s := d.stores[i]
			s.cfg = c
			r.stores = append(r.stores, s)
			continue
		}
		s, err := d.openStore(c)
		if err != nil {
			return err
		}
		r.opened = append(r.opened, len(r.stores))
		r.stores = append(r.stores, s)
	}
	return nil
}

// discard closes what was opened.
func (r *reloading) discard() error {
	closeLogFile(r.log)
	var errs []error
	for _, i := range r.opened {
		errs = append(errs, r.stores[i].below.Close())
	}
	return errors.Join(errs...)
}

// apply puts it in force, or nothing of it.
func (r *reloading) apply(d *daemon) error {
	if err := d.catalog.SetStores(d.entries(r.stores)); err != nil {
		return errors.Join(err, r.discard())
	}
	d.stores = r.stores
	for _, i := range r.opened {
		d.below = append(d.below, r.stores[i].below)
	}
	debug.SetMemoryLimit(d.limits.runtime + r.cfg.uploadMemory())
	d.log.out.use(r.log)
	d.log.setLevel(r.cfg.Log.Level)
	d.auth.current.Store(&r.auth)
	d.exports.anonymous.Store(&r.cfg.NBD.Anonymous)
	d.inForce = r.cfg
	return nil
}
