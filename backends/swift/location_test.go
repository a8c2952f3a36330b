package swift

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"glanced/backends"
	"glanced/backends/setting"
)

func TestLocationsAreReadAsGlanceWritesThem(t *testing.T) {
	const id = "71c675ab-d94f-49cd-a114-e12490b328d9"
	for text, want := range map[string]location{
		"swift+config://ref1/glance/" + id:                            {reference: "ref1", container: "glance", key: id},
		"swift+https://service%3Aglance:pw@auth:5000/v3/glance/" + id: {tls: true, user: "service:glance", secret: "pw", host: "auth:5000", path: "v3", container: "glance", key: id},
		"swift+http://a%3Ab:p%40/w%3A@auth/auth/v1.0/glance/" + id:    {user: "a:b", secret: "p@/w:", host: "auth", path: "auth/v1.0", container: "glance", key: id},
		"swift://u:p@auth/v2.0/c/" + id:                               {tls: true, user: "u", secret: "p", host: "auth", path: "v2.0", container: "c", key: id},
		"swift+https://store:8080/v1/AUTH_x/glance_" + id + "/" + id:  {tls: true, host: "store:8080", path: "v1/AUTH_x", container: "glance_" + id, key: id},
		"swift+config://ref1/a%20b/k%41%25":                           {reference: "ref1", container: "a b", key: "kA%"},
	} {
		if got, err := parseLocation(text); err != nil || got != want {
			t.Errorf("%s:\n %+v, %v\nwant %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "swift", "swift://", "s3://b/k", "swift+config://ref1/c", "swift+config://ref1/c/d/k", "swift+config://u:p@ref1/c/k/x",
		"swift+http://u@h/v3/c/k", "swift+http://:p@h/v3/c/k", "swift+http://u:@h/v3/c/k", "swift+http://u:p%zz@h/v3/c/k", "swift+http://h/v1/c/k",
		"swift+http://h/v1/AUTH_x/c/../k", "swift+http://h/v1/AUTH_x/c/..", "swift+http://h/v1//c/k", "swift+http://h/v1/A%2F/c/k", "swift+http://h/v1/A/c/%2e%2e",
		"swift+http://h/v1/A/c%2Fd/k", "swift+http://h/v1/A/c/k?x", "swift+http://h/v1/A/c/k#x", "swift+http://h x/v1/A/c/k", "swift+http:///v1/A/c/k"} {
		if l, err := parseLocation(text); err == nil {
			t.Errorf("%q is read as %+v", text, l)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// The accounts of Glance's file, and who is asked with which key.
func TestARecordSendsRequestsOnlyToHostsOfTheConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "swift.conf")
	const ini = `
# Glance's
[DEFAULT]
auth_version = 3
[ref2]
user = service:other
key: "100%%'s"
auth_address = https://two.example/v3
project_domain_name = Acme
[ref3]
user = acc:user
key = k3
auth_address = http://three.example:8080/auth/v1.0
auth_version = 1
`
	if err := os.WriteFile(file, []byte(ini), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{ID: "swift", AuthURL: "https://one.example:5000/v3", User: "service:glance", Key: "k1", ConfigFile: file,
		Region: "R", GlanceHosts: []string{"old.example"}})
	if err != nil {
		t.Fatal(err)
	}
	own := login{"https://one.example:5000/v3", 3, "service", "glance", "k1", domain{id: "default"}, domain{id: "default"}, "R", "public"}
	two := login{"https://two.example/v3", 3, "service", "other", "100%'s", domain{id: "default"}, domain{name: "Acme"}, "R", "public"}
	three := login{"http://three.example:8080/auth/v1.0", 1, "", "acc:user", "k3", domain{id: "default"}, domain{id: "default"}, "R", "public"}
	with := func(l login, project, user, key string) login {
		l.project, l.user, l.key = project, user, setting.Secret(key)
		return l
	}
	for text, want := range map[string]login{
		"swift+config://ref1/glance/k":                                     own,
		"swift+config://ref2/c/k":                                          two,
		"swift+config://ref3/c/k":                                          three,
		"swift+https://service%3Aglance:old-key@one.example:5000/v3/c/k":   own, // its key has been changed since
		"swift+https://service%3Aglance:old-key@one.example:5000/v2.0/c/k": own,
		"swift+https://p%3Au:theirs@one.example:5000/v3/c/k":               with(own, "p", "u", "theirs"),
		"swift+https://service%3Aother:theirs@two.example/v3/c/k":          two,
		"swift+http://acc%3Auser:theirs@three.example:8080/auth/v1.0/c/k":  three,
		"swift+http://acc%3Ano:theirs@three.example:8080/auth/v1.0/c/k":    with(three, "", "acc:no", "theirs"),
		"swift+https://p%3Au:theirs@old.example/v2.0/c/k":                  with(login{"https://old.example/v2.0", 2, "", "", "", own.userDomain, own.projectDomain, "R", "public"}, "p", "u", "theirs"),
	} {
		p, err := s.target(t.Context(), backends.Location{Store: "swift", URL: text})
		if err != nil || p.account.login != want {
			t.Errorf("%s: %v", text, err)
			if err == nil {
				t.Errorf("  is asked with %+v %q, want %+v %q", p.account.login, string(p.account.login.key), want, string(want.key))
			}
		}
	}
	for _, text := range []string{"swift+config://ref4/c/k", "swift+https://service%3Aglance:k1@evil.example/v3/c/k",
		"swift+https://service%3Aglance:k1@one.example:5001/v3/c/k", "swift+https://service%3Aglance:k1@one.example:5000.evil.example/v3/c/k",
		"swift+https://service%3Aglance:k1@one.example/v3/c/k"} {
		_, err := s.target(t.Context(), backends.Location{Store: "swift", URL: text})
		if !errors.Is(err, backends.ErrBadLocation) || strings.Contains(err.Error(), "k1") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestConfigurationsThatCannotBe(t *testing.T) {
	good := Config{AuthURL: "https://h/v3", User: "p:u", Key: "secret-key"}
	if _, err := Open(good); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Config){
		"auth_url":          func(c *Config) { c.AuthURL = "" },
		"no credentials":    func(c *Config) { c.AuthURL = "https://u:secret-key@h/v3" },
		"user is not set":   func(c *Config) { c.User = "" },
		"key or key_file":   func(c *Config) { c.KeyFile = "x" },
		"auth_version":      func(c *Config) { c.AuthVersion = 4 },
		"endpoint_type":     func(c *Config) { c.EndpointType = "x" },
		"container":         func(c *Config) { c.Container = "a/b" },
		"reference":         func(c *Config) { c.Reference = "a/b" },
		"large_object_size": func(c *Config) { c.LargeObjectSize = 6 << 30 },
		"chunk_size":        func(c *Config) { c.ChunkSize = -1 },
		"connections":       func(c *Config) { c.Connections = -1 },
		"no such file":      func(c *Config) { c.ConfigFile = "/does/not/exist" },
		"ca_file":           func(c *Config) { c.CAFile = "/does/not/exist" },
		"no section [ref1]": func(c *Config) { *c = Config{ConfigFile: os.DevNull} },
	} {
		cfg := good
		change(&cfg)
		if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret-key") {
			t.Errorf("want %q: %v", want, err)
		}
	}
	for _, text := range []string{"a = b", "[x", "[x]\nb", "[x]\n[x]", "[x]\nkey = a%b", "[x]\nkey = \"a"} {
		if s, err := parseINI(text); err == nil {
			t.Errorf("%q is read as %v", text, s)
		}
	}
}
