//go:build ceph

package rbd

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"glanced/backends"
	"glanced/backends/locks"
)

// changing is held by pool and image, over all stores of this process that may have it.
var changing locks.Named

var _ backends.Store = (*Store)(nil)

// Store keeps objects in one pool. Safe for concurrent use, also by several processes
// over one pool.
type Store struct {
	cfg           Config
	reads, writes calls

	mu      sync.Mutex
	current *session
	attempt *connecting // under way
	closed  bool
}

// Open prepares a store. It asks the cluster nothing: one that does not answer now may
// do so later.
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("open an rbd store: %w", err)
	}
	return &Store{cfg: cfg, reads: make(calls, cfg.Connections), writes: make(calls, cfg.Connections)}, nil
}

// Close ends the connection once nothing is open any more. What is open of the store
// stays usable.
func (s *Store) Close() error {
	s.mu.Lock()
	ses := s.current
	s.closed, s.current = true, nil
	s.mu.Unlock()
	if ses != nil {
		ses.retire()
	}
	return nil
}

// Usage is the pool's: what is stored in it, and what could still be. Unknown in a
// cluster without a manager, which counts it.
func (s *Store) Usage(ctx context.Context) (backends.Usage, error) {
	unknown := backends.Usage{Total: -1, Free: -1}
	ses, err := s.session(ctx)
	if err != nil {
		return unknown, s.wrap("ask for the usage of", err)
	}
	text, err := do(ctx, s.reads, ses, func() ([]byte, error) {
		text, _, err := ses.conn.MonCommand([]byte(`{"prefix": "df", "format": "json"}`))
		return text, s.heed(ses, explain("df", err))
	}, nil)
	if err != nil {
		return unknown, s.wrap("ask for the usage of", err)
	}
	u, err := poolUsage(text, s.cfg.Pool)
	return u, s.wrap("ask for the usage of", err)
}

// poolUsage reads the answer to "ceph df --format json".
func poolUsage(text []byte, pool string) (backends.Usage, error) {
	unknown := backends.Usage{Total: -1, Free: -1}
	var df struct {
		Pools []struct {
			Name  string
			Stats struct {
				Stored   int64
				MaxAvail int64 `json:"max_avail"`
			}
		}
	}
	if err := json.Unmarshal(text, &df); err != nil {
		return unknown, fmt.Errorf("%w: the answer to df is not JSON", backends.ErrUnavailable)
	}
	for _, p := range df.Pools {
		if s := p.Stats; p.Name == pool && s.Stored >= 0 && s.MaxAvail >= 0 && s.Stored+s.MaxAvail > 0 {
			return backends.Usage{Total: s.Stored + s.MaxAvail, Free: s.MaxAvail}, nil
		}
	}
	return unknown, nil
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
	return fmt.Errorf("%s rbd store %s: %w", doing, s.cfg.Pool, err)
}

// locate is the image of a location, which must be of this store.
func (s *Store) locate(loc backends.Location) (location, error) {
	if loc.Store != s.cfg.ID {
		return location{}, fmt.Errorf("%w: the location is of store %q, this is %q", backends.ErrBadLocation, loc.Store, s.cfg.ID)
	}
	l, err := parseLocation(loc.URL)
	if err != nil {
		return l, fmt.Errorf("%w: %w", backends.ErrBadLocation, err)
	}
	if l.pool != "" && l.pool != s.cfg.Pool {
		return l, fmt.Errorf("%w: it is in pool %q", backends.ErrBadLocation, l.pool)
	}
	return l, nil
}

// in checks that a location is of the session's cluster.
func (l location) in(ses *session) error {
	if l.fsid != "" && l.fsid != ses.fsid {
		return fmt.Errorf("%w: it is in the cluster %s, this is %s", backends.ErrBadLocation, l.fsid, ses.fsid)
	}
	return nil
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}
