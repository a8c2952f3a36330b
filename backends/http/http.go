// Package http reads objects at HTTP and HTTPS URLs, as Glance's http store: somebody
// else keeps them, nothing is written, and a deletion leaves them where they are.
//
// An object whose server gives it a strong ETag (RFC 9110, section 8.8.3) and serves
// ranges is read in place: its version is the ETag, every read asks for it
// (If-Match), and every answer is checked. So no two states of an object are ever
// mixed, as far as the server keeps its word: nginx makes its ETags of a file's size
// and time in seconds, and says that they are strong.
//
// Any other object is fetched as a whole into a spool on the local disk; its
// version is the SHA-256 of its content.
//
// Each call makes one attempt; package retry repeats it.
package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"glanced/backends"
	"glanced/backends/flight"
	"glanced/backends/overhttp"
	"glanced/backends/setting"
	"glanced/backends/spool"
)

// Config of one store. The tags are the keys of the configuration file that this
// kind has beside those of every store.
type Config struct {
	ID          string           `toml:"-"`           // goes into each Location
	CAFile      string           `toml:"ca_file"`     // certificates to trust, PEM; "" = the system's
	Connections int              `toml:"connections"` // at a time to one server
	Timeout     setting.Duration `toml:"timeout"`     // to connect; until an answer begins; between two pieces of it
	Spool       string           `toml:"spool"`       // folder for objects that cannot be read in place; the store makes one of its own in it
	SpoolLimit  setting.Bytes    `toml:"spool_limit"` // what they may take there
}

// Defaults are a Config's values where the configuration file gives none.
var Defaults = Config{Connections: 16, Timeout: setting.Duration(10 * time.Second), Spool: "http-spool", SpoolLimit: 16 << 30}

const (
	maxConnections = 1024
	maxHeader      = 64 << 10 // bytes of an answer's header
	fetches        = 4        // whole objects fetched at a time
)

var _ backends.Store = (*Store)(nil)

// Store is one set of servers that are asked in one way. Safe for concurrent use.
type Store struct {
	id        string
	timeout   time.Duration
	transport *http.Transport

	spool    *spool.Dir
	most     int64                        // the longest object that is spooled, bytes
	fetching flight.Group[string, string] // of objects without validators: URL to key
	sums     sums
}

// Open makes the store's folder in the spool if need be. It asks no server.
func Open(cfg Config) (*Store, error) {
	switch {
	case cfg.Connections < 1 || cfg.Connections > maxConnections:
		return nil, fmt.Errorf("open an http store: connections = %d: want 1 to %d", cfg.Connections, maxConnections)
	case cfg.Timeout <= 0:
		return nil, errors.New("open an http store: timeout is not set: want a time such as 10s")
	case cfg.Spool == "" || cfg.SpoolLimit <= 0:
		return nil, errors.New("open an http store: spool and spool_limit are needed: a folder for objects that cannot be read in place, and how much they may take, such as 16GiB")
	}
	trusted, err := overhttp.Authorities(cfg.CAFile)
	if err != nil {
		return nil, fmt.Errorf("open an http store: %w", err)
	}
	// Whatever the id has in it, this is one plain name.
	dir, err := spool.New(filepath.Join(cfg.Spool, "store-"+url.PathEscape(cfg.ID)), int64(cfg.SpoolLimit), fetches)
	if err != nil {
		return nil, fmt.Errorf("open an http store: %w", err)
	}
	for _, key := range dir.Keys() {
		if strings.HasPrefix(key, once) {
			if err := dir.Remove(key); err != nil {
				return nil, fmt.Errorf("open an http store: %w", err)
			}
		}
	}
	timeout := time.Duration(cfg.Timeout)
	return &Store{
		id: cfg.ID, timeout: timeout, spool: dir, most: int64(cfg.SpoolLimit),
		transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    timeout,
			ResponseHeaderTimeout:  timeout,
			MaxResponseHeaderBytes: maxHeader,
			MaxConnsPerHost:        cfg.Connections,
			MaxIdleConnsPerHost:    cfg.Connections,
			IdleConnTimeout:        90 * time.Second,
			DisableCompression:     true, // an ETag is of the bytes as they are sent
		},
	}, nil
}

// Begin implements backends.Store: there are no uploads.
func (s *Store) Begin(context.Context, string, int64) (backends.Writer, error) {
	return nil, fmt.Errorf("%w: http store %s reads what others keep", backends.ErrReadOnly, s.id)
}

// Abandon implements backends.Store: no claim is of this store.
func (s *Store) Abandon(context.Context, backends.Claim) error {
	return fmt.Errorf("%w: http store %s makes no claims", backends.ErrBadLocation, s.id)
}

// Delete implements backends.Store: it is always ErrForeign, and asks no server.
func (s *Store) Delete(_ context.Context, loc backends.Location) error {
	u, err := s.parse(loc)
	if err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", backends.ErrForeign, shown(u))
}

// Usage implements backends.Store: nobody can tell.
func (s *Store) Usage(context.Context) (backends.Usage, error) {
	return backends.Usage{Total: -1, Free: -1}, nil
}

// Close closes idle connections; what is open stays usable.
func (s *Store) Close() error {
	s.transport.CloseIdleConnections()
	return nil
}
