package s3

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/contrib/testbed"
)

func TestLocationsAsGlanceWritesThem(t *testing.T) {
	for _, c := range []struct {
		text string
		want location
	}{
		{"s3://AK:SK@host/bucket/id", location{false, "AK", "SK", "host", "bucket/id", "id"}},
		{"s3+http://AK:SK@host:8080/bucket/id", location{false, "AK", "SK", "host:8080", "bucket/id", "id"}},
		{"s3+https://AK:S/K+/=@host/bucket/id", location{true, "AK", "S/K+/=", "host", "bucket/id", "id"}},
		{"s3+https://AK:S:K//@host/bucket/id", location{true, "AK", "S:K//", "host", "bucket/id", "id"}},
		{"s3+https://AK:S@K@host/bucket/id", location{true, "AK", "S@K", "host", "bucket/id", "id"}},
		{"s3+https://host/bucket/images/id", location{true, "", "", "host", "bucket/images/id", "id"}},
	} {
		if got, err := parseLocation(c.text); err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"", "s3://", "s3://AK:secret@host", "s3://AK:secret@host/bucket", "s3://AK:secret@host/bucket/", "s3://AK:secret@/bucket/id",
		"s3://secret@host/bucket/id", "s3://:secret@host/bucket/id", "s3://AK:secret@host/bucket/../id", "s3://AK:secret@host//id", "s3://AK:secret@ho st/bucket/id",
		"http://AK:secret@host/bucket/id", "s3+ftp://AK:secret@host/bucket/id", "s3://AK:secret@host?x/bucket/id", "s3://AK:secret@host/bucket/a\x00b"} {
		if got, err := parseLocation(text); err == nil || got != (location{}) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}

// A site's images lie where its Glance put them, with the keys of that day in their
// records.
func TestWhatGlanceWroteIsReadAsItIs(t *testing.T) {
	srv := testbed.S3TLS(t)
	elsewhere, another := testbed.S3(t), srv.NewBucket(t)
	content := backendtest.Noise(5, 21<<20)
	for _, b := range []testbed.S3Server{srv, another, elsewhere} {
		b.PutParts(t, "3f1c", content, 10<<20)
	}
	host := func(s testbed.S3Server) string { _, h, _ := strings.Cut(s.Endpoint, "://"); return h }
	url := func(scheme string, s testbed.S3Server, keys string) string {
		return scheme + "://" + keys + host(s) + "/" + s.Bucket + "/3f1c"
	}
	keys := srv.AccessKey + ":" + srv.SecretKey + "@"
	for _, c := range []struct {
		name, url string
		hosts     []string
		want      error
	}{
		{"ours", url("s3+https", srv, keys), nil, nil},
		{"ours, the keys were rotated", url("s3+https", srv, "old:testbed/secret/of/yore@"), nil, nil},
		{"ours, recorded as plain HTTP", url("s3", srv, keys), nil, nil},
		{"ours, without keys", url("s3+https", srv, ""), nil, nil},
		{"another bucket of our host", url("s3+https", another, keys), nil, nil},
		{"another bucket, the keys were rotated", url("s3+https", another, "testbedkey:testbed/secret/of/yore@"), nil, backends.ErrDenied},
		{"another bucket, without keys: not with ours", url("s3+https", another, ""), nil, backends.ErrBadLocation},
		{"another host", url("s3", elsewhere, keys), nil, backends.ErrBadLocation},
		{"another host that is allowed", url("s3", elsewhere, keys), []string{host(elsewhere)}, nil},
		{"the same without keys", url("s3", elsewhere, ""), []string{host(elsewhere)}, backends.ErrBadLocation},
	} {
		cfg := on(srv)
		cfg.Prefix, cfg.GlanceHosts = "images/", c.hosts
		s := openStore(t, cfg)
		loc := backends.Location{Store: "s3", URL: c.url, Size: -1}
		full, err := s.Stat(t.Context(), loc)
		if c.want != nil {
			wantErr(t, c.name, err, c.want)
			continue
		}
		if err != nil || full.URL != loc.URL || full.Size != int64(len(content)) || full.Version == "" {
			t.Errorf("%s: %d bytes, version %q, %v", c.name, full.Size, full.Version, err)
			continue
		}
		b, err := s.Open(t.Context(), full)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := make([]byte, 1<<20)
		if err := b.ReadAt(t.Context(), got, 10<<20-500); err != nil || string(got) != string(content[10<<20-500:][:1<<20]) {
			t.Errorf("%s: %v, or other bytes", c.name, err)
		}
	}
	cfg := on(srv)
	s := openStore(t, cfg)
	for _, b := range []testbed.S3Server{srv, another} {
		if err := s.Delete(t.Context(), backends.Location{Store: "s3", URL: url("s3+https", b, keys), Size: int64(len(content))}); err != nil {
			t.Error(err)
		}
		if left := b.List(t); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// A record must not have the daemon send requests to whatever host it names.
func TestARecordDoesNotChooseTheHost(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var came atomic.Int64
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			c.Close()
		}
	}()
	s := openStore(t, Config{ID: "s3", Endpoint: "http://127.0.0.1:1", Bucket: "b", AccessKey: "testbedkey", SecretKey: "testbed/secret", GlanceHosts: []string{"old.example"}})
	for _, scheme := range []string{"s3", "s3+http", "s3+https"} {
		for _, keys := range []string{"", "a:b@", "a:b@127.0.0.1:1/b/k@", "127.0.0.1:1@"} {
			loc := backends.Location{Store: "s3", URL: fmt.Sprintf("%s://%s%s/b/k", scheme, keys, ln.Addr()), Size: 1}
			_, err := s.Stat(t.Context(), loc)
			wantErr(t, loc.URL, err, backends.ErrBadLocation)
			_, err = s.Open(t.Context(), loc)
			wantErr(t, loc.URL, err, backends.ErrBadLocation)
			wantErr(t, loc.URL, s.Delete(t.Context(), loc), backends.ErrBadLocation)
		}
	}
	if n := came.Load(); n > 0 {
		t.Errorf("%d connections came", n)
	}
}

func TestLocationsHoldNoKeys(t *testing.T) {
	s := openStore(t, Config{ID: "s3", Endpoint: "https://s3.example:443/", Bucket: "b", Prefix: "images/", AccessKey: "testbedkey", SecretKey: "testbed/secret"})
	if got := s.locate("id", head{3, "tag", ""}); got != (backends.Location{Store: "s3", URL: "s3+https://s3.example/b/images/id", Size: 3, Version: "tag"}) {
		t.Errorf("%+v", got)
	}
	s = openStore(t, Config{ID: "s3", Endpoint: "http://127.0.0.1:9000", Bucket: "b"})
	if got := s.locate("id", head{}).URL; got != "s3+http://127.0.0.1:9000/b/id" {
		t.Error(got)
	}
}

func TestWhatIsWrongWithAConfiguration(t *testing.T) {
	good := Config{Endpoint: "https://host", Bucket: "b", AccessKey: "AK", SecretKey: "top/secret"}
	file := filepath.Join(t.TempDir(), "secret")
	for name, c := range map[string]struct {
		change func(*Config)
		want   string // "" = nothing is wrong
	}{
		"good":            {func(*Config) {}, ""},
		"no endpoint":     {func(c *Config) { c.Endpoint = "" }, "endpoint"},
		"a bare host":     {func(c *Config) { c.Endpoint = "host" }, "endpoint"},
		"a path":          {func(c *Config) { c.Endpoint = "https://host/s3" }, "endpoint"},
		"keys in it":      {func(c *Config) { c.Endpoint = "https://AK:top%2Fsecret@host" }, "endpoint"},
		"no bucket":       {func(c *Config) { c.Bucket = "" }, "bucket"},
		"a bucket's path": {func(c *Config) { c.Bucket = "a/b" }, "bucket"},
		"a bare prefix":   {func(c *Config) { c.Prefix = "images" }, "prefix"},
		"a style":         {func(c *Config) { c.PathStyle = "dns" }, "path_style"},
		"half a key":      {func(c *Config) { c.SecretKey = "" }, "access_key"},
		"the other half":  {func(c *Config) { c.AccessKey = "" }, "access_key"},
		"two secrets":     {func(c *Config) { c.SecretKeyFile = file }, "secret_key_file"},
		"no secret":       {func(c *Config) { c.SecretKey, c.SecretKeyFile = "", file+"x" }, "secret_key_file"},
		"unsigned":        {func(c *Config) { c.AccessKey, c.SecretKey = "", "" }, ""},
		"small parts":     {func(c *Config) { c.PartSize = 1 << 20 }, "part_size"},
		"large parts":     {func(c *Config) { c.PartSize = 65 << 20 }, "part_size"},
		"no connections":  {func(c *Config) { c.Connections = -1 }, "connections"},
		"no authority":    {func(c *Config) { c.CAFile = file }, "ca_file"},
	} {
		cfg := good
		c.change(&cfg)
		s, err := Open(cfg)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "top") || strings.Contains(fmt.Sprintf("%v %+v %#v", cfg, cfg, s), "top/") {
			t.Errorf("%s: the secret is told: %v %+v", name, err, cfg)
		}
	}
	if err := os.WriteFile(file, []byte(" top/secret \nand more"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (Config{SecretKeyFile: file}).secret(); got != "top/secret" || err != nil {
		t.Errorf("the file's secret is %q, %v", got, err)
	}
}

func TestBucketsAreHostsWhereTheyAreToBe(t *testing.T) {
	for _, c := range []struct {
		style, endpoint, bucket string
		path                    bool
	}{
		{"auto", "https://s3.eu-west-1.amazonaws.com", "b", false}, {"auto", "https://s3.eu-west-1.amazonaws.com", "b.c", true},
		{"auto", "https://rgw.example", "b", true}, {"path", "https://s3.eu-west-1.amazonaws.com", "b", true}, {"virtual", "https://rgw.example", "b", false},
		{"auto", "https://amazonaws.com.example", "b", true},
	} {
		at, err := parseEndpoint(c.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		if got := (Config{PathStyle: c.style, Bucket: c.bucket}).pathStyle(at); got != c.path {
			t.Errorf("%+v: path style %v", c, got)
		}
	}
}
