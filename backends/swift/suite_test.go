package swift

import (
	"os"
	"strings"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/setting"
	"glanced/contrib/testbed"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

// config is that of a store on a server of the testbed.
func config(srv testbed.SwiftServer) Config {
	return Config{ID: "swift", AuthURL: srv.AuthURL, User: srv.User, Key: setting.Secret(srv.Key), Project: srv.Project, Container: srv.Container}
}

// testStore is a store with the server that it is on.
type testStore struct {
	*Store
	srv testbed.SwiftServer
}

func mustOpen(t testing.TB, srv testbed.SwiftServer, cfg Config) testStore {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return testStore{s, srv}
}

func suite(t *testing.T, first testbed.SwiftServer, set func(*Config)) {
	store := func(t testing.TB, srv testbed.SwiftServer) backends.Store {
		cfg := config(srv)
		set(&cfg)
		return mustOpen(t, srv, cfg)
	}
	backendtest.Suite{
		Big:   4<<20 + 4711,
		New:   func(t testing.TB) backends.Store { return store(t, first.NewContainer(t)) },
		Again: func(t testing.TB, s backends.Store) backends.Store { return store(t, s.(testStore).srv) },
		List:  func(t testing.TB, s backends.Store) []string { return s.(testStore).srv.List(t) },
		Replace: func(t testing.TB, s backends.Store, loc backends.Location, content []byte) {
			replace(t, s.(testStore), loc, content)
		},
	}.Run(t)
}

// replace puts other content in the place of an object, as an operator could: in the
// place of its segments, where it has some.
func replace(t testing.TB, s testStore, loc backends.Location, content []byte) {
	t.Helper()
	l, err := parseLocation(loc.URL)
	if err != nil {
		t.Fatal(err)
	}
	manifest := s.srv.Manifest(t, l.key)
	if manifest == "" {
		s.srv.Put(t, "", l.key, content, nil)
		return
	}
	_, prefix, _ := strings.Cut(manifest, "/")
	for _, name := range s.srv.List(t) {
		if strings.HasPrefix(name, prefix) {
			s.srv.Remove(t, name)
		}
	}
	c := claim{token: strings.Split(prefix, "/")[1], key: l.key}
	for i := 1; len(content) > 0; i++ {
		n := min(int(s.cfg.ChunkSize), len(content))
		s.srv.Put(t, "", c.segment(i), content[:n], nil)
		content = content[n:]
	}
}

func TestPlainObjects(t *testing.T) {
	suite(t, testbed.Swift(t), func(*Config) {})
}

// TestLargeObjects has nearly all objects in segments.
func TestLargeObjects(t *testing.T) {
	suite(t, testbed.Swift(t), func(c *Config) { c.LargeObjectSize, c.ChunkSize = 50_000, 1<<20 })
}
