// Package s3 keeps objects in a bucket of a server that speaks S3: <prefix><key>,
// without a prefix the layout of Glance's s3 store. A bucket may be shared with it.
//
// Versions. The version of an object is its ETag. Each write gives a new one (an MD5
// of the content, or of the parts' MD5s and their number), and every read asks for
// the one that was opened (If-Match): what was overwritten behind our back is an
// error, never mixed bytes. A copy that was made in other parts has another ETag. The
// versions of a bucket that keeps them (versionId) are not looked at.
//
// Claims. An upload in parts is made known to the server before its first byte, so
// that the claim can name it (claim.go). Each object that is written carries, as
// metadata, a token that is in its upload's claim: by it an object is known to be of
// this upload, and what no claim names is not touched.
//
// Keys. No two uploads get one key: the server is asked first, and is asked again as
// a condition of the write (If-None-Match). A server that does not know the condition
// (Ceph 16.2 for uploads in parts) is asked just before; then only uploads by
// other processes, in the same instant, get through. So it is with removals
// (If-Match of DELETE).
//
// Requests are made once. What may be repeated is, by whoever holds the store
// (backends/retry), but for the parts of an upload, which only this package can.
package s3

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"

	"glanced/backends"
	"glanced/backends/locks"
	"glanced/backends/overhttp"
	"glanced/backends/retry"
)

// changing is held by place, over all stores of this process that may have it.
var changing locks.Named

var _ backends.Store = (*Store)(nil)

// Store keeps objects in one bucket. Safe for concurrent use, also by several
// processes over one bucket.
type Store struct {
	cfg     Config
	at      endpoint
	place   string          // for messages: host/bucket
	allowed map[string]bool // host:port, of glance_hosts

	http, patient *http.Client  // patient waits for parts to be put together
	client, slow  *awss3.Client // of these, with the configured keys

	sending retry.Policy // of the parts of an upload
	memory  memory       // of all uploads

	mu   sync.Mutex
	made bool // the bucket is there
}

// Open prepares a store. It asks the server nothing: one that does not answer now may
// do so later.
func Open(cfg Config) (*Store, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, fmt.Errorf("open an s3 store: %w", err)
	}
	secret, err := cfg.secret()
	if err != nil {
		return nil, fmt.Errorf("open an s3 store: %w", err)
	}
	d := dialer{connections: cfg.Connections, redirect: cfg.dial}
	if d.authorities, err = overhttp.Authorities(cfg.CAFile); err != nil {
		return nil, fmt.Errorf("open an s3 store: %w", err)
	}
	s := &Store{cfg: cfg, allowed: map[string]bool{}, http: d.http(cfg.stall), patient: d.http(max(cfg.stall, completeTime))}
	s.at, _ = parseEndpoint(cfg.Endpoint)
	s.place = s.at.text() + "/" + cfg.Bucket
	for _, host := range cfg.GlanceHosts {
		s.allowed[overhttp.HostPort(host, false)], s.allowed[overhttp.HostPort(host, true)] = true, true
	}
	s.client = s.api(s.http, s.at, cfg.AccessKey, secret)
	s.slow = s.api(s.patient, s.at, cfg.AccessKey, secret)
	s.cfg.SecretKey = "" // whatever prints a store does not print it
	s.sending = retry.Policy{Total: 2 * time.Minute, Pause: 200 * time.Millisecond, LongPause: 10 * time.Second}
	s.memory.free = cfg.Memory()
	return s, nil
}

// Close drops idle connections. What is open of the store stays usable.
func (s *Store) Close() error {
	s.http.CloseIdleConnections()
	s.patient.CloseIdleConnections()
	return nil
}

// Usage is unknown: S3 does not tell.
func (s *Store) Usage(context.Context) (backends.Usage, error) {
	return backends.Usage{Total: -1, Free: -1}, nil
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
	return fmt.Errorf("%s s3 store %s: %w", doing, s.place, err)
}
