package http_test

import (
	"hash/crc32"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/http"
	"glanced/contrib/testbed"
)

// open opens a store with its spool in a folder of the test; change may edit its
// configuration.
func open(t testing.TB, change func(*http.Config)) *http.Store {
	t.Helper()
	cfg := http.Defaults
	cfg.ID, cfg.Spool = "web", t.TempDir()
	if change != nil {
		change(&cfg)
	}
	s, err := http.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// site is the files of a web server.
type site struct {
	root string
	url  string
}

// put writes a file as one who publishes does: at once. Its time is made of its
// content, for nginx's ETags are of time and size, and as many as there are seconds.
func (w site) put(t testing.TB, name string, content []byte) {
	t.Helper()
	path := filepath.Join(w.root, name)
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1e9+int64(crc32.ChecksumIEEE(content)%5e8), 0)
	if err := os.Chtimes(path+".new", at, at); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (w site) location(name string) backends.Location {
	return backends.Location{Store: "web", URL: w.url + "/" + name, Size: -1}
}

func name(t testing.TB, loc backends.Location) string {
	t.Helper()
	u, err := url.Parse(loc.URL)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Base(u.Path)
}

// The contract, in front of a real server: one that objects are read from in place,
// one that serves no ranges and has no strong validator, and one that tells nothing
// of an object's states.
func TestTheContractIsKeptOverNginx(t *testing.T) {
	for kind, directives := range map[string]string{
		"in place":           "",
		"spooled":            "etag off; max_ranges 0;",
		"without validators": `etag off; max_ranges 0; add_header Last-Modified "";`,
	} {
		t.Run(kind, func(t *testing.T) {
			var now site // the suite's tests run one after the other
			nginx := testbed.NewNginx(t, "/", directives)
			configured := func(t testing.TB) backends.Store { return open(t, nil) }
			big := 0
			if directives != "" {
				big = 2<<20 + 4711 // for each opening fetches it
			}
			backendtest.Suite{
				Big: big,
				New: func(t testing.TB) backends.Store {
					root := t.TempDir()
					now = site{root, nginx.URL + root}
					return configured(t)
				},
				Again: func(t testing.TB, _ backends.Store) backends.Store { return configured(t) },
				List: func(t testing.TB, _ backends.Store) (names []string) {
					entries, err := os.ReadDir(now.root)
					if err != nil {
						t.Fatal(err)
					}
					for _, e := range entries {
						names = append(names, e.Name())
					}
					return names
				},
				Copy: func(t testing.TB, _ backends.Store, loc backends.Location) (backends.Store, backends.Location) {
					content, err := os.ReadFile(filepath.Join(now.root, name(t, loc)))
					if err != nil {
						t.Fatal(err)
					}
					root := t.TempDir()
					there := site{root, nginx.URL + root}
					there.put(t, name(t, loc), content)
					return configured(t), there.location(name(t, loc))
				},
				Replace: func(t testing.TB, _ backends.Store, loc backends.Location, content []byte) {
					now.put(t, name(t, loc), content)
				},
				Put: func(t testing.TB, _ backends.Store, key string, content []byte) backends.Location {
					now.put(t, key, content)
					return now.location(key)
				},
				Remove: func(t testing.TB, _ backends.Store, loc backends.Location) {
					u, err := url.Parse(loc.URL)
					if err == nil {
						err = os.Remove(u.Path)
					}
					if err != nil {
						t.Error(err)
					}
				},
			}.Run(t)
		})
	}
}

func TestAPasswordOpensWhatIsClosedToOthers(t *testing.T) {
	root := t.TempDir()
	secret := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(secret, []byte("us%er:{PLAIN}pass/wörd\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	nginx := testbed.NewNginx(t, root, `auth_basic "images"; auth_basic_user_file `+secret+";")
	web := site{root, nginx.URL}
	content := backendtest.Noise(1, 100_000)
	web.put(t, "disk", content)
	s := open(t, nil)
	defer s.Close()
	with := func(who string) backends.Location {
		loc := web.location("disk")
		loc.URL = "http://" + who + loc.URL[len("http://"):]
		return loc
	}
	wantRead(t, s, with("us%25er:pass%2Fw%C3%B6rd@"), content)
	for _, who := range []string{"", "us%25er:wrong-one@"} {
		_, err := s.Stat(t.Context(), with(who))
		wantErr(t, err, backends.ErrDenied)
		wantSecret(t, err, "wrong-one")
	}
}
