package s3

import (
	"net"
	"strings"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/setting"
	"glanced/contrib/testbed"
)

// on is the configuration of a store on a server.
func on(srv testbed.S3Server) Config {
	return Config{ID: "s3", Endpoint: srv.Endpoint, Bucket: srv.Bucket, Region: srv.Region,
		AccessKey: srv.AccessKey, SecretKey: setting.Secret(srv.SecretKey), CAFile: srv.CAFile, PartSize: minPart}
}

func openStore(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// suite is the contract's, on one server: each store has a bucket of its own.
func suite(srv testbed.S3Server, change func(*Config)) backendtest.Suite {
	buckets := map[*Store]testbed.S3Server{}
	open := func(t testing.TB, srv testbed.S3Server) *Store {
		cfg := on(srv)
		change(&cfg)
		s := openStore(t, cfg)
		buckets[s] = srv
		return s
	}
	return backendtest.Suite{
		New:   func(t testing.TB) backends.Store { return open(t, srv.NewBucket(t)) },
		Again: func(t testing.TB, s backends.Store) backends.Store { return open(t, buckets[s.(*Store)]) },
		List:  func(t testing.TB, s backends.Store) []string { return buckets[s.(*Store)].List(t) },
		Replace: func(t testing.TB, s backends.Store, loc backends.Location, content []byte) {
			srv := buckets[s.(*Store)]
			_, key, _ := strings.Cut(loc.URL, srv.Bucket+"/")
			srv.Put(t, key, content)
		},
	}
}

func TestContract(t *testing.T) {
	suite(testbed.S3(t), func(c *Config) { c.Prefix = "images/" }).Run(t)
}

// Over TLS nothing of a body is signed, and the library would add checksums of its
// own; buckets are hosts.
func TestContractOverTLSWithBucketsAsHosts(t *testing.T) {
	srv := testbed.S3TLS(t)
	_, port, err := net.SplitHostPort(strings.TrimPrefix(srv.Endpoint, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	suite(srv, func(c *Config) {
		c.Endpoint, c.PathStyle = "https://s3.localhost:"+port, "virtual"
		c.dial = func(addr string) string {
			if !strings.HasSuffix(addr, ".s3.localhost:"+port) {
				t.Errorf("a connection to %s", addr)
			}
			return "127.0.0.1:" + port
		}
	}).Run(t)
}

// Ceph 16.2 knows no conditions on uploads in parts and on deletions; what this
// process does is kept apart all the same.
func TestContractOnCeph(t *testing.T) {
	suite(testbed.RadosGW(t), func(*Config) {}).Run(t)
}
