package main

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pelletier/go-toml/v2"

	"glanced/backends/all"
	"glanced/backends/file"
	httpstore "glanced/backends/http"
	"glanced/backends/setting"
)

const goodConfig = `
data_dir = "%DIR%"
[http]
listen = "127.0.0.1:9292"
[control]
socket = "/run/x/control.sock"
mode = "0600"
[nbd]
listen = ["unix:nbd.sock", "tcp:127.0.0.1:10809"]
anonymous = "none"
[fuse]
mountpoint = ""
[memory]
budget = "64MiB"
[[auth.tokens]]
file = "admin.token"
project = "admin"
roles = ["admin"]
[[stores]]
id = "local"
type = "file"
path = "images"
`

func writeConfig(t *testing.T, text string) (dir, path string) {
	t.Helper()
	dir = t.TempDir()
	path = filepath.Join(dir, "glanced.toml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "%DIR%", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, path
}

func TestConfigFileIsReadAndPathsLieBelowDataDir(t *testing.T) {
	dir, path := writeConfig(t, goodConfig)
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		c.Control.Socket:      "/run/x/control.sock",
		c.NBD.Listen[0]:       "unix:" + dir + "/nbd.sock",
		c.NBD.Listen[1]:       "tcp:127.0.0.1:10809",
		c.Auth.Tokens[0].File: dir + "/admin.token",
		c.Catalog.URL:         "sqlite:" + dir + "/catalog.db",
		storePath(c):          dir + "/images",
		c.FUSE.Mountpoint:     "",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if c.Memory.Budget != 64<<20 {
		t.Errorf("memory.budget = %d", c.Memory.Budget)
	}
	if !c.Stores[0].Default {
		t.Error("the only store is not the default one")
	}
}

// storePath is the folder of the first store.
func storePath(c *config) string { return c.Stores[0].Own.(*file.Config).Path }

func TestAStoreHasTheKeysOfEveryStoreAndItsKinds(t *testing.T) {
	dir, path := writeConfig(t, strings.Replace(goodConfig, `path = "images"`, `path = "images"
description = "slow disks"
weight = -5
read_only = true
[[stores]]
id = "fast"
type = "file"
path = "/srv/images"
default = true`, 1))
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []all.Config{
		{Common: all.Common{ID: "local", Type: "file", Description: "slow disks", Weight: -5, ReadOnly: true}, Own: &file.Config{Path: dir + "/images", Memory: dir + "/file-stores"}},
		{Common: all.Common{ID: "fast", Type: "file", Default: true}, Own: &file.Config{Path: "/srv/images", Memory: dir + "/file-stores"}},
	}
	if !reflect.DeepEqual(c.Stores, want) {
		t.Errorf("stores %+v, want %+v", c.Stores, want)
	}
}

func TestAFileStoreMayHaveSeveralFolders(t *testing.T) {
	dir, path := writeConfig(t, strings.Replace(goodConfig, `path = "images"`, `paths = [{path = "fast", priority = 10}, {path = "/srv/slow"}]
reserve = "5%"`, 1))
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	want := &file.Config{Memory: dir + "/file-stores", Paths: []file.Folder{{Path: dir + "/fast", Priority: 10}, {Path: "/srv/slow"}}, Reserve: setting.Part{Percent: 5}}
	if got := c.Stores[0].Own; !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestBadConfigSaysWhereAndWhatToDo(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown key":                  {`budget = "64MiB"`, "budget = \"64MiB\"\nbugdet = 1", `unknown key "memory.bugdet"`},
		"unknown key names its line":   {`[fuse]`, "colour = 1\n[fuse]", "line 11: unknown key"},
		"syntax error names its line":  {`mode = "0600"`, `mode = `, "line 7"},
		"wrong type":                   {`mode = "0600"`, `mode = 600`, "line 7: toml: cannot decode TOML integer: string is wanted here"},
		"no size":                      {`"64MiB"`, `"64 megs"`, "write it like 512MiB"},
		"size overflow":                {`"64MiB"`, `"9999999999TiB"`, "write it like 512MiB"},
		"tiny budget":                  {`"64MiB"`, `"1MiB"`, "at least 32MiB"},
		"bad word":                     {`anonymous = "none"`, `anonymous = "some"`, "want one of none, public, all"},
		"HTTP beyond loopback":         {`"127.0.0.1:9292"`, `"0.0.0.0:9292"`, "http.allow_plaintext"},
		"NBD beyond loopback":          {`tcp:127.0.0.1:10809`, `tcp:0.0.0.0:10809`, "nbd.allow_plaintext"},
		"no auth beyond loopback":      {"listen = \"127.0.0.1:9292\"", "listen = \"0.0.0.0:9292\"\nallow_plaintext = true\n[auth]\nmode = \"none\"", "must stay on loopback"},
		"Keystone that is nowhere":     {"[[auth.tokens]]", "[auth]\nmode = \"keystone\"\n[[auth.tokens]]", "auth.keystone: auth_url"},
		"Keystone without a password":  {"[[auth.tokens]]", "[auth]\nmode = \"keystone\"\nkeystone.auth_url = \"https://k\"\n[[auth.tokens]]", "set either password or password_file"},
		"unknown auth":                 {"[[auth.tokens]]", "[auth]\nmode = \"magic\"\n[[auth.tokens]]", "want one of token, keystone, none"},
		"NBD listener without network": {`tcp:127.0.0.1:10809`, `127.0.0.1:10809`, "want unix:PATH or tcp:HOST:PORT"},
		"no data_dir":                  {`data_dir = "%DIR%"`, ``, "data_dir is not set"},
		"two stores of one id":         {"[[stores]]", "[[stores]]\nid = \"local\"\ntype = \"file\"\npath = \"b\"\ndefault = true\n[[stores]]", `called "local" is there already`},
		"no default store":             {"[[stores]]", "[[stores]]\nid = \"b\"\ntype = \"file\"\npath = \"b\"\n[[stores]]", "exactly one must have default"},
		"unknown key of a store":       {`path = "images"`, "path = \"images\"\nbucket = \"b\"", `store "local": unknown key "bucket"; a store of type file has id, type, description, default, weight, read_only, path, paths, reserve`},
		"unknown key of a folder":      {`path = "images"`, "paths = [{path = \"a\", prio = 1}]", `store "local": paths: unknown key "paths.prio"`},
		"a reserve that is none":       {`path = "images"`, "path = \"images\"\nreserve = \"a lot\"", `store "local": reserve: `},
		"a time that is none":          {"type = \"file\"\npath = \"images\"", "type = \"http\"\ntimeout = \"soon\"", `store "local": timeout: `},
		"a store's table of its own":   {`path = "images"`, "path = \"images\"\n[stores.auth]\nuser = \"u\"", `store "local": unknown key "auth"`},
		"no type of store":             {"id = \"local\"\ntype = \"file\"", `id = "local"`, `store "local": type is not set; known are file`},
		"unknown type of store":        {`type = "file"`, `type = "tape"`, `store "local": there is no type "tape"; known are file`},
		"a store without an id":        {"id = \"local\"\n", "", "stores 1: id is not set"},
		"wrong type in a store":        {`path = "images"`, `path = 5`, `store "local": path: toml: cannot decode TOML integer: string is wanted here`},
		"wrong type in any store":      {`path = "images"`, "path = \"images\"\nweight = \"heavy\"", `store "local": weight: `},
		"a word for a truth":           {`path = "images"`, "path = \"images\"\nread_only = \"yes\"", `store "local": read_only: `},
		"another database":             {"[fuse]", "[catalog]\nurl = \"postgres:x\"\n[fuse]", "want sqlite:PATH"},
		"bad socket mode":              {`mode = "0600"`, `mode = "rw"`, "octal"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(goodConfig, c.old, c.new, 1)
			if text == goodConfig {
				t.Fatalf("%q is not in the good configuration", c.old)
			}
			_, path := writeConfig(t, text)
			_, err := loadConfig(path)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Fatalf("got %v, want the file's name and %q", err, c.want)
			}
		})
	}
}

func TestSampleAndEmbeddedConfigurationsAreGood(t *testing.T) {
	if _, err := loadConfig("../../contrib/glanced.toml"); err != nil {
		t.Error(err)
	}
	dir := t.TempDir()
	c, err := dirConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if c.Control.Socket != dir+"/control.sock" || c.FUSE.Mountpoint != dir+"/mnt" || storePath(c) != dir+"/images" {
		t.Errorf("paths are not below the folder: %+v", c)
	}
	if err := c.override("127.0.0.1:1", []string{"127.0.0.1:2", "tcp:127.0.0.1:3"}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.NBD.Listen, " "); got != "unix:"+dir+"/nbd.sock tcp:127.0.0.1:2 tcp:127.0.0.1:3" || c.HTTP.Listen != "127.0.0.1:1" {
		t.Errorf("override: http %s, nbd %s", c.HTTP.Listen, got)
	}
}

func TestTokenFileIsMadeOnceAndGuarded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.token")
	first, err := readToken(path)
	if err != nil || len(first) < 32 {
		t.Fatalf("token %q, %v", first, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	if again, err := readToken(path); err != nil || again != first {
		t.Fatalf("read again: %q, %v", again, err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readToken(path); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
		t.Errorf("a token that everybody can read: %v", err)
	}
	if err := os.WriteFile(path, []byte("short\n"), 0o600); err != nil || os.Chmod(path, 0o600) != nil {
		t.Fatal(err)
	}
	if _, err := readToken(path); err == nil {
		t.Error("a token of five letters was taken")
	}
}

func TestDataDirHasOneDaemon(t *testing.T) {
	dir := t.TempDir()
	lock, err := lockDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockDataDir(dir); err == nil || !strings.Contains(err.Error(), "another glanced") {
		t.Errorf("second lock: %v", err)
	}
	lock.Close()
	again, err := lockDataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()

	name, err := nodeName(dir)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := nodeName(dir); err != nil || same != name {
		t.Errorf("the node's name changed from %s to %s (%v)", name, same, err)
	}
}

func TestOnlyAStaleSocketIsCleared(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	ln, err := listenUnix(path, 0o600, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, 0o600, ""); err == nil || !strings.Contains(err.Error(), "already answers") {
		t.Errorf("a socket in use: %v", err)
	}
	ln.(interface{ SetUnlinkOnClose(bool) }).SetUnlinkOnClose(false)
	ln.Close()
	if ln, err = listenUnix(path, 0o640, ""); err != nil {
		t.Fatalf("a stale socket: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	ln.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, 0o600, ""); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a plain file: %v", err)
	}
	if _, err := listenUnix("/"+strings.Repeat("x", 200), 0o600, ""); err == nil {
		t.Error("an over-long path was taken")
	}
	if err := own(dir, 0o700, "no-such-group-here"); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unknown group: %v", err)
	}
}

func TestWhatTheFileLeavesOutIsAsEmbedded(t *testing.T) {
	dir, path := writeConfig(t, `data_dir = "%DIR%"`)
	short, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	embedded, err := dirConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(short, embedded) {
		t.Errorf("a file that only says data_dir means\n%+v\n--dir means\n%+v", short, embedded)
	}

	_, path = writeConfig(t, `data_dir = "%DIR%"
[nbd]
listen = ["unix:other.sock"]
[[auth.tokens]]
file = "ops.token"
project = "ops"
roles = ["member"]
[[stores]]
id = "big"
type = "file"
path = "big"
`)
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.NBD.Listen) != 1 || len(c.Auth.Tokens) != 1 || len(c.Stores) != 1 {
		t.Fatalf("the file's lists do not replace the embedded ones: %+v", c)
	}
	if tok := c.Auth.Tokens[0]; tok.Project != "ops" || tok.User != "" || !slices.Equal(tok.Roles, []string{"member"}) {
		t.Errorf("a token takes over the embedded one's user or roles: %+v", tok)
	}
	if s := c.Stores[0]; s.ID != "big" {
		t.Errorf("store %+v", s)
	}
}

// A key that default.toml forgets would silently be false, 0 or "".
func TestDefaultAndSampleSetTheSameKeys(t *testing.T) {
	sample, err := os.ReadFile("../../contrib/glanced.toml")
	if err != nil {
		t.Fatal(err)
	}
	keys := func(text []byte) map[string]bool {
		var doc map[string]any
		if err := toml.Unmarshal(text, &doc); err != nil {
			t.Fatal(err)
		}
		// data_dir is what --dir says, and a file has to; of control.users there are none by default.
		set := map[string]bool{"data_dir": true, "control.users": true}
		for section, body := range doc {
			if table, ok := body.(map[string]any); ok {
				for key := range table {
					set[section+"."+key] = true
				}
			}
		}
		return set
	}
	if got, want := keys(defaultConfig), keys(sample); !reflect.DeepEqual(got, want) {
		t.Errorf("default.toml sets\n%v\ncontrib/glanced.toml\n%v", got, want)
	}
}

// The sample's [auth.keystone] can be used as it is; what it does not set holds by default.
func TestTheSamplesKeystoneIsRight(t *testing.T) {
	sample, err := os.ReadFile("../../contrib/glanced.toml")
	if err != nil {
		t.Fatal(err)
	}
	_, path := writeConfig(t, strings.Replace(string(sample), `mode = "token"`, `mode = "keystone"`, 1))
	shown, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	dir, path := writeConfig(t, `data_dir = "%DIR%"
[auth]
mode = "keystone"
[auth.keystone]
auth_url = "https://keystone.example.org:5000/v3"
password_file = "keystone.password"
`)
	short, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := &short.Auth.Keystone.PasswordFile; *got != filepath.Join(dir, "keystone.password") {
		t.Errorf("the password is in %s", *got)
	} else {
		*got = shown.Auth.Keystone.PasswordFile
	}
	if !reflect.DeepEqual(shown.Auth.Keystone, short.Auth.Keystone) {
		t.Errorf("the sample's %+v, by default %+v", shown.Auth.Keystone, short.Auth.Keystone)
	}
}

// What the sample shows of other types can be used as it is.
func TestTheSamplesOtherStoresAreRight(t *testing.T) {
	sample, err := os.ReadFile("../../contrib/glanced.toml")
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`(?m)^# ([a-z_]+ = |\[\[stores\]\])`).ReplaceAllString(string(sample), "$1")
	path := filepath.Join(t.TempDir(), "glanced.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for i, s := range cfg.Stores {
		shown[s.Type] = true
		for _, key := range s.Keys() {
			common := slices.Contains([]string{"description", "default", "weight", "read_only"}, key)
			if _, ok := cfg.StoreTables[i][key]; !ok && !common && key != "secret_key" && key != "paths" {
				t.Errorf("store %s: the sample does not show %s", s.ID, key)
			}
		}
		if own, ok := s.Own.(*httpstore.Config); ok { // the sample says what holds without its keys, too
			want := httpstore.Defaults
			want.Spool = "/var/lib/glance/http-spool"
			if *own != want || !s.Foreign() {
				t.Errorf("store %s: %+v, want %+v", s.ID, *own, want)
			}
		}
		if s.Type == "s3" {
			if _, err := s.Open(); err == nil || !strings.Contains(err.Error(), "s3.secret") {
				t.Errorf("open the sample's store: %v", err)
			}
		}
	}
	for _, typ := range all.Types() {
		if !shown[typ] {
			t.Errorf("the sample shows no store of type %s", typ)
		}
	}
}
