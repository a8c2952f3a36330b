package keystone

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"glanced/catalog/access"
	"glanced/contrib/testbed"
	"glanced/ctl"
)

func TestATokenIsItsUserWithTheRolesOfItsProject(t *testing.T) {
	srv := testbed.Keystone(t)
	d := newDoor(t, config(srv))
	rights := func(who ctl.Identity) string {
		return fmt.Sprint(access.May(who, access.List) == nil, access.May(who, access.Create) == nil, who.IsAdmin())
	}
	for role, want := range map[string]string{
		"reader": "true false false", "member": "true true false", "admin": "true true true", "service": "false false false",
	} {
		u := srv.User(t, role)
		who := d.taken(srv.Token(t, u, "project"), "")
		if who.User != u.ID || who.Project != u.ProjectID || !slices.Contains(who.Roles, role) || rights(who) != want {
			t.Errorf("%s: %+v of %+v may list, create, administer: %s, want %s", role, who, u, rights(who), want)
		}
		other := srv.User(t, role)
		if again := d.taken(srv.Token(t, other, "project"), ""); again.Project == who.Project || again.User == who.User {
			t.Errorf("%s of another project: %+v and %+v", role, who, again)
		}
	}

	// Glance's policies are about projects: an administrator of anything else has no right.
	u := srv.User(t, "admin")
	srv.Grant(t, u, "/system", "admin")
	srv.Grant(t, u, "/domains/default", "admin")
	for _, scope := range []string{"system", "domain", ""} {
		who := d.taken(srv.Token(t, u, scope), "")
		if who.User != u.ID || who.Project != "" || rights(who) != "false false false" {
			t.Errorf("scope %q: %+v", scope, who)
		}
	}
	if who := d.taken(srv.Token(t, u, "project"), ""); !who.IsAdmin() {
		t.Errorf("scope project: %+v", who)
	}
}

func TestTokensThatAreNone(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	good := srv.Token(t, srv.User(t, "member"), "project")
	for name, token := range map[string]string{
		"none": "", "too long": strings.Repeat("g", maxToken+1), "of two words": good + " " + good,
		"with a control character": good + "\x01", "beyond ASCII": "gÄÄÄÄ", "a null byte": "g\x00",
	} {
		t.Run(name, func(t *testing.T) {
			d.t = t
			d.refused(token, "", ctl.ErrUnauthorized)
			if token != "" {
				d.refused(good, token, ctl.ErrServiceToken)
			}
		})
	}
	d.t = t
	if asked := p.Requests(); len(asked) > 0 {
		t.Errorf("Keystone was asked %d times", len(asked))
	}
	gone := srv.Token(t, srv.User(t, "member"), "project")
	srv.Revoke(t, gone)
	changed := []byte(good)
	changed[len(changed)/2] ^= 1
	for name, token := range map[string]string{
		"garbage": "not-a-token", "as long as can be": strings.Repeat("g", maxToken), "changed": string(changed), "revoked": gone,
		"expired": srv.TokenUntil(t, srv.User(t, "member"), -time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			d.t = t
			p.Set(nil)
			for range 5 { // who repeats themselves is refused without Keystone
				d.refused(token, "", ctl.ErrUnauthorized)
			}
			wantCount(t, p, "validate", 1)
			d.clock.forward(refusedFor)
			d.refused(token, "", ctl.ErrUnauthorized)
			wantCount(t, p, "validate", 2)
			d.refused(good, token, ctl.ErrServiceToken)
		})
	}
	d.t = t
	d.taken(good, "")
}

func TestAServiceMayBringATokenThatHasExpired(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	u := srv.User(t, "member")
	expired, ancient := srv.TokenUntil(t, u, -time.Hour), srv.TokenUntil(t, u, -50*time.Hour)
	fresh := srv.Token(t, u, "project")
	service := srv.Token(t, testbed.KeystoneGlance, "project")
	roleless := srv.Token(t, srv.User(t, "admin"), "project")

	d.refused(expired, "", ctl.ErrUnauthorized)
	d.refused(expired, roleless, ctl.ErrUnauthorized)
	p.Set(nil)
	for range 3 {
		if who := d.taken(expired, service); who.User != u.ID || who.Project != u.ProjectID || !slices.Contains(who.Roles, "member") {
			t.Errorf("%+v", who)
		}
	}
	wantCount(t, p, "validate expired", 1)
	d.refused(expired, "", ctl.ErrUnauthorized) // still
	d.refused(expired, roleless, ctl.ErrUnauthorized)
	d.refused(ancient, service, ctl.ErrUnauthorized) // beyond Keystone's window
	d.refused(service, expired, ctl.ErrServiceToken)
	d.refused(expired, expired, ctl.ErrServiceToken)
	for _, beside := range []string{service, roleless} {
		if who := d.taken(fresh, beside); who.User != u.ID {
			t.Errorf("%+v", who)
		}
	}
	d.refused(fresh, "not-a-token", ctl.ErrServiceToken)
	srv.Revoke(t, fresh)
	d.clock.forward(checkedFor)
	d.refused(fresh, service, ctl.ErrUnauthorized)
	// What has expired is believed for no longer than Keystone was asked about it.
	p.Set(testbed.Always("validate expired", testbed.Cut))
	d.refused(expired, service, ctl.ErrNotChecked)
}

// A credential with rules is good for the requests that they name only. Nothing here looks at
// them, so it must not be good for all.
func TestApplicationCredentials(t *testing.T) {
	srv := testbed.Keystone(t)
	d := newDoor(t, config(srv))
	u := srv.User(t, "member")
	if who := d.taken(srv.TokenByCredential(t, u, ""), ""); who.User != u.ID || who.Project != u.ProjectID || !slices.Contains(who.Roles, "member") {
		t.Errorf("%+v", who)
	}
	d.refused(srv.TokenByCredential(t, u, "GET /v2/images"), "", ctl.ErrUnauthorized)
}

func TestARevokedTokenIsRefusedWithinAMinute(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	token := srv.Token(t, srv.User(t, "member"), "project")
	d.taken(token, "")
	for range 3 {
		d.taken(token, "")
	}
	wantCount(t, p, "validate", 1)
	d.clock.forward(checkedFor)
	for range 3 {
		d.taken(token, "")
	}
	wantCount(t, p, "validate", 2)
	srv.Revoke(t, token)
	d.clock.forward(checkedFor)
	d.refused(token, "", ctl.ErrUnauthorized)
	d.refused(token, "", ctl.ErrUnauthorized)
	wantCount(t, p, "validate", 3)
}

func TestATokenExpiresWithoutKeystone(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	u := srv.User(t, "member")
	token := srv.TokenUntil(t, u, 30*time.Minute)
	d.taken(token, "")
	p.Set(testbed.Always("validate", testbed.Cut))
	d.clock.forward(29 * time.Minute)
	d.taken(token, "")
	d.clock.forward(time.Minute)
	d.refused(token, "", ctl.ErrUnauthorized)
}

func TestTheChallengeIsKeystonemiddlewares(t *testing.T) {
	d := newDoor(t, Config{AuthURL: "https://keystone.example.org:5000/v3", Username: "u", Password: "secret", ProjectName: "p", UserDomainName: "d", ProjectDomainName: "d"})
	if got := d.Challenge(); got != `Keystone uri="https://keystone.example.org:5000/v3"` {
		t.Error(got)
	}
}

func TestWhatAConfigurationMustSay(t *testing.T) {
	good := Config{AuthURL: "https://keystone.example.org", Username: "u", Password: "secret", ProjectName: "p", UserDomainName: "d", ProjectDomainName: "d"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		want   string
		change func(*Config)
	}{
		{"auth_url: ", func(c *Config) { c.AuthURL = "" }},
		{"want https://host[:port]/v3", func(c *Config) { c.AuthURL = "keystone.example.org:5000" }},
		{"want https://host[:port]/v3", func(c *Config) { c.AuthURL = `https://keystone.example.org/"x` }},
		{"no credentials in it", func(c *Config) { c.AuthURL = "https://u:secret@keystone.example.org" }},
		{"username is not set", func(c *Config) { c.Username = "" }},
		{"project_name is not set", func(c *Config) { c.ProjectName = "" }},
		{"user_domain_name is not set", func(c *Config) { c.UserDomainName = "" }},
		{"project_domain_name is not set", func(c *Config) { c.ProjectDomainName = "" }},
		{"set either password or password_file", func(c *Config) { c.Password = "" }},
		{"set either password or password_file", func(c *Config) { c.PasswordFile = "/some/file" }},
		{"password_file: ", func(c *Config) { c.Password, c.PasswordFile = "", t.TempDir()+"/missing" }},
		{"cafile: ", func(c *Config) { c.CAFile = t.TempDir() + "/missing" }},
	} {
		cfg := good
		c.change(&cfg)
		_, err := New(cfg, nil, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, want %s", cfg, err, c.want)
		}
	}
	for text, want := range map[string]string{
		"https://k": "https://k/v3/", "https://k/": "https://k/v3/", "https://k/v3": "https://k/v3/", "https://k/v3//": "https://k/v3/",
		"https://k/identity": "https://k/identity/v3/", "https://k/identity/v3": "https://k/identity/v3/",
	} {
		if got := (Config{AuthURL: text}).endpoint(); got != want {
			t.Errorf("%s is at %s, want %s", text, got, want)
		}
	}
}

// What is known outlives the Authenticator, so that a reload while Keystone is away refuses
// nobody; but it is one Keystone's.
func TestWhatIsKnownIsKnownToTheNextOneOfTheSameKeystone(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	token := srv.Token(t, srv.User(t, "admin"), "project")
	d.taken(token, "")
	p.Set(testbed.Always("validate", testbed.Cut))
	for address, want := range map[string]error{behind.URL: nil, "http://127.0.0.1:" + testbed.FreePort(t): ctl.ErrNotChecked} {
		cfg := config(behind)
		cfg.AuthURL = address
		next, err := New(cfg, d.cache, d.Authenticator.log)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := next.Authenticate(t.Context(), http.Header{"X-Auth-Token": {token}}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", address, err, want)
		}
	}
}
