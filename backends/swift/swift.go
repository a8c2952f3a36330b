// Package swift keeps objects in a container of OpenStack Swift: <container>/<key>, the
// layout of Glance's swift store, so that either can read what the other wrote, and a
// container may be shared with it.
//
// Objects. Below large_object_size an object is a plain one. From there on, or of unknown
// size and larger than a buffer, it is a dynamic large object: segments, and a manifest
// under the key that says how their names begin (X-Object-Manifest). Glance names the
// segments <key>-00001; this package names them <key>/<token>/00001, the token being the
// upload's. As a key has no slash, no segment can be taken for an object, no two uploads
// share one, and none lies below a manifest of Glance. Glance reads and deletes such
// objects as it does its own. Static large objects are read and deleted, not written.
//
// Reads go to the segments: their list is asked for when an object is opened, and each
// read asks for the bytes of one or of several, with their ETags as a condition (If-Match).
//
// Versions. That of a plain object is its ETag, the MD5 of its content. That of a large one
// is a digest over its manifest and over the names, sizes and ETags of its segments; that
// of a dynamic one says also where these are, so that a deletion which lost the manifest
// and then its connection can be repeated.
//
// Claims. An upload has a token. The names of its segments hold it, and the object under
// the key carries it as metadata: what a claim names is what has its token.
//
// Keys. No two uploads get one key: within this process a look at a key and the change
// that follows are one step. Between processes the server is asked just before an object
// is made, and again by a condition (If-None-Match), which Swift holds against what is
// there when the request begins: only uploads or removals by other processes in the same
// instant get through.
//
// Hosts and credentials. Requests go to auth_url, to the auth addresses of config_file, to
// glance_hosts, and to where these say that the object store is, and nowhere else,
// whatever a location says (see Store.target). The locations that are written hold no
// credentials: swift+config://<reference>/<container>/<key>, which Glance reads if its own
// swift_store_config_file has a section of that name. Errors hold neither keys nor tokens.
//
// Requests are made once, but for those whose token has ended. What may be repeated is, by
// whoever holds the store (backends/retry). The bytes of an upload are not kept: where the
// server loses them on the way, the upload has failed.
package swift

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"glanced/backends"
	"glanced/backends/locks"
	"glanced/backends/overhttp"
)

// changing is held by place, over all stores of this process that may have it.
var changing locks.Named

var _ backends.Store = (*Store)(nil)

// Store keeps objects in one container. Safe for concurrent use, also by several
// processes over one container.
type Store struct {
	cfg        Config
	http       *http.Client
	sending    *http.Client // uploads wait for none of the others' connections
	own        *account
	references map[string]*account
	others     []*account      // of config_file, in the order of their names
	hosts      map[string]bool // host:port of glance_hosts

	mu      sync.Mutex
	foreign map[login]*account // of locations that hold credentials
	made    bool               // the container is there
}

// Open prepares a store. It asks the server nothing: one that does not answer now may
// do so later.
func Open(cfg Config) (*Store, error) {
	s, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open a swift store: %w", err)
	}
	return s, nil
}

func open(cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	references, err := cfg.references()
	if err != nil {
		return nil, err
	}
	own, err := cfg.own(references)
	if err != nil {
		return nil, err
	}
	d := dialer{connections: cfg.Connections, redirect: cfg.dial}
	if d.authorities, err = overhttp.Authorities(cfg.CAFile); err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, http: d.http(), sending: d.http(), references: map[string]*account{}, hosts: map[string]bool{}, foreign: map[login]*account{}}
	s.own = &account{s: s, login: own}
	for _, name := range slices.Sorted(maps.Keys(references)) {
		s.references[name] = &account{s: s, login: references[name]}
		s.others = append(s.others, s.references[name])
	}
	s.references[cfg.Reference] = s.own
	for _, host := range cfg.GlanceHosts {
		s.hosts[overhttp.HostPort(host, false)], s.hosts[overhttp.HostPort(host, true)] = true, true
	}
	return s, nil
}

// Close drops idle connections. What is open of the store stays usable.
func (s *Store) Close() error {
	s.http.CloseIdleConnections()
	s.sending.CloseIdleConnections()
	return nil
}

// Usage is what the quotas of the container and of the account leave, where they have
// one (Swift's container_quotas and account_quotas).
func (s *Store) Usage(ctx context.Context) (backends.Usage, error) {
	u := backends.Usage{Total: -1, Free: -1}
	for _, level := range []struct {
		at    place
		named string
	}{
		{place{account: s.own}, "Account"},
		{place{account: s.own, container: s.cfg.Container}, "Container"},
	} {
		h, err := level.at.about(ctx, "ask for the usage")
		if errors.Is(err, backends.ErrNotFound) && s.cfg.CreateContainer {
			continue
		}
		if err != nil {
			return backends.Usage{Total: -1, Free: -1}, s.wrap("measure", noContainer(err))
		}
		quota, err := strconv.ParseInt(cmp.Or(h.Get("X-"+level.named+"-Meta-Quota-Bytes"), h.Get("X-"+level.named+"-Quota-Bytes")), 10, 64)
		if err != nil || quota < 0 {
			continue
		}
		used, _ := strconv.ParseInt(h.Get("X-"+level.named+"-Bytes-Used"), 10, 64)
		if free := max(quota-used, 0); u.Total < 0 || free < u.Free {
			u = backends.Usage{Total: quota, Free: free}
		}
	}
	return u, nil
}

// noContainer is err, where it is not that the container is not there: this is no reason
// to forget what is recorded to be in it.
func noContainer(err error) error {
	if errors.Is(err, backends.ErrNotFound) {
		return fmt.Errorf("%w: the container is not there: make it, or set create_container = true", backends.ErrUnavailable)
	}
	return err
}

// makeContainer makes the container if it is to be made and is not there.
func (s *Store) makeContainer(ctx context.Context) error {
	s.mu.Lock()
	made := s.made
	s.mu.Unlock()
	if made {
		return nil
	}
	at := place{account: s.own, container: s.cfg.Container}
	_, err := at.about(ctx, "look at the container")
	if errors.Is(err, backends.ErrNotFound) && s.cfg.CreateContainer {
		_, _, err = at.ask(ctx, "make the container", request{method: http.MethodPut})
	}
	if err != nil {
		return noContainer(err)
	}
	s.mu.Lock()
	s.made = true
	s.mu.Unlock()
	return nil
}

// writable is ErrReadOnly for a store that is configured so.
func (s *Store) writable() error {
	if s.cfg.ReadOnly {
		return fmt.Errorf("%w: it is configured as read-only", backends.ErrReadOnly)
	}
	return nil
}

// wrap says what was tried, and where.
func (s *Store) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s swift store %s/%s: %w", doing, s.own.host(), s.cfg.Container, err)
}

// locate is where key lies.
func (s *Store) locate(key string, f found) backends.Location {
	return backends.Location{Store: s.cfg.ID, Size: f.size, Version: f.version,
		URL: configScheme + s.cfg.Reference + "/" + url.PathEscape(s.cfg.Container) + "/" + url.PathEscape(key)}
}
