package keystone

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"glanced/contrib/testbed"
	"glanced/ctl"
)

func TestWhileKeystoneIsAwayKnownTokensWorkAndOthersAreNotRefused(t *testing.T) {
	srv := testbed.Keystone(t)
	d := newDoor(t, config(srv))
	u := srv.User(t, "member")
	known, unknown := srv.Token(t, u, "project"), srv.Token(t, u, "project")
	d.taken(known, "")
	resume := srv.Pause(t)
	d.taken(known, "")
	d.refused(unknown, "", ctl.ErrNotChecked)
	d.refused("not-a-token", "", ctl.ErrNotChecked)
	d.refused(known, unknown, ctl.ErrNotChecked)
	for range 3 {
		d.clock.forward(checkedFor)
		d.taken(known, "")
	}
	if !strings.Contains(d.log.String(), "Keystone does not say") {
		t.Errorf("the log says %s", d.log)
	}
	resume()
	d.taken(unknown, "")
	d.refused("not-a-token", "", ctl.ErrUnauthorized)
	d.clock.forward(checkedFor)
	srv.Revoke(t, known)
	d.refused(known, "", ctl.ErrUnauthorized)
}

func TestEveryFaultOfKeystoneIsNotTheClients(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	u := srv.User(t, "member")
	known := srv.Token(t, u, "project")
	echo := func(status int) testbed.Fault { // as Keystone does
		return func(p *testbed.Proxy, w http.ResponseWriter, r *http.Request) bool {
			return testbed.Answer(status, fmt.Sprintf(`{"error": {"message": "Could not find token: %s."}}`, r.Header.Get("X-Subject-Token")))(p, w, r)
		}
	}
	for name, fault := range map[string]testbed.Fault{
		"no answer": testbed.Cut, "half an answer": testbed.Truncate,
		"an error": echo(500), "a proxy's error": echo(502), "too many requests": echo(429), "another error": echo(400),
		"no right to ask": echo(403), "another page": testbed.Answer(200, "<html>"), "nothing": testbed.Answer(200, "{}"),
		"a token of nobody":   testbed.Answer(200, `{"token": {"expires_at": "2099-01-01T00:00:00.000000Z"}}`),
		"an endless answer":   testbed.Answer(200, `{"token": {"expires_at": "2099-01-01T00:00:00.000000Z", "user": {"id": "`+strings.Repeat("a", maxAnswer)+`"}}}`),
		"a redirect":          testbed.Answer(307, "", "Location", srv.URL+"/auth/tokens"),
		"one that is no time": testbed.Answer(200, `{"token": {"user": {"id": "u"}, "expires_at": "soon"}}`),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, config(behind))
			p.Set(nil)
			d.taken(known, "")
			p.Set(testbed.Always("validate", fault))
			d.refused(srv.Token(t, u, "project"), "", ctl.ErrNotChecked)
			d.clock.forward(checkedFor)
			p.Set(testbed.Always("validate", fault))
			d.taken(known, "")
			asked := p.Count("validate")
			if asked == 0 || asked > attempts+1 { // net/http may have repeated one by itself
				t.Errorf("asked %d times", asked)
			}
			d.clock.forward(askedFor - time.Second)
			d.taken(known, "")
			wantCount(t, p, "validate", asked)
			d.clock.forward(time.Second)
			p.Set(nil)
			d.taken(known, "")
			wantCount(t, p, "validate", 1)

			// The same when it is the service's own login that fails.
			d = newDoor(t, config(behind))
			p.Set(testbed.Always("login", fault))
			d.refused(srv.Token(t, u, "project"), "", ctl.ErrNotChecked)
			if err := d.Check(t.Context()); !errors.Is(err, ctl.ErrNotChecked) {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

func TestAFaultThatPassesIsSatOut(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	u := srv.User(t, "member")
	for _, name := range []string{"login", "validate"} {
		for i, fault := range []testbed.Fault{testbed.Cut, testbed.Answer(503, "")} {
			if name == "login" {
				d = newDoor(t, config(behind))
			}
			p.Set(testbed.On(name, attempts-1, fault))
			d.taken(srv.Token(t, u, "project"), "")
			if got := p.Count(name); got < attempts { // net/http may have repeated one by itself
				t.Errorf("%s, fault %d: %d requests", name, i, got)
			}
		}
	}
}

// A Keystone that hangs is like one that is away, and a client that leaves is not waited
// for.
func TestKeystoneHangs(t *testing.T) {
	srv := testbed.Keystone(t)
	t.Parallel()
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	u := srv.User(t, "member")
	known, unknown := srv.Token(t, u, "project"), srv.Token(t, u, "project")
	d.taken(known, "")
	p.Set(testbed.Always("validate", testbed.Hold))
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error)
	go func() {
		_, err := d.askAs(ctx, unknown, "")
		left <- err
	}()
	for d.flight.Waiting(d.question(unknown, false)) == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Errorf("who left is told %v", err)
	}
	d.clock.forward(checkedFor)
	d.taken(known, "")

	// Who hangs up in the middle has not made Keystone say that a token is good.
	srv.Revoke(t, known)
	d.clock.forward(askedFor)
	p.Set(testbed.On("validate", 1, testbed.Hold))
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		_, err := d.askAs(ctx, known, "")
		left <- err
	}()
	for p.Count("validate") == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	p.Release()
	if err := <-left; !errors.Is(err, ctl.ErrUnauthorized) {
		t.Errorf("who hung up is told %v", err)
	}
	d.refused(known, "", ctl.ErrUnauthorized)
}

func TestKeystoneIsAskedOnceForAllWhoBringOneToken(t *testing.T) {
	const clients = 20
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	token := srv.Token(t, srv.User(t, "member"), "project")
	p.Set(testbed.Always("validate", testbed.Hold))
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			if _, err := d.askAs(t.Context(), token, ""); err != nil {
				t.Error(err)
			}
		})
	}
	for d.flight.Waiting(d.question(token, false)) < clients {
		time.Sleep(time.Millisecond)
	}
	p.Release()
	all.Wait()
	wantCount(t, p, "validate", 1)
	wantCount(t, p, "login", 1)
}

func TestTheServicesOwnTokenIsRenewed(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	d := newDoor(t, config(behind))
	u := srv.User(t, "member")
	d.taken(srv.Token(t, u, "project"), "")
	d.taken(srv.Token(t, u, "project"), "")
	wantCount(t, p, "login", 1)
	wantCount(t, p, "validate", 2)

	// Keystone does not take it any more.
	own := d.client.own
	srv.Revoke(t, own.id)
	d.taken(srv.Token(t, u, "project"), "")
	wantCount(t, p, "login", 2)
	wantCount(t, p, "validate", 4)

	// It is about to expire: Keystone is not shown it.
	own = d.client.own
	d.clock.forward(own.expires.Sub(d.clock.now()) - early)
	p.Set(nil)
	d.client.attempt(t.Context(), "not-a-token", false)
	wantCount(t, p, "login", 1)
	wantCount(t, p, "validate", 1)
	if d.client.own.id == own.id {
		t.Error("it is the same token")
	}
	d.heard = append(d.heard, own.id, d.client.own.id)

	// Whatever token it gives, it takes none: that is no answer, and no endless one.
	p.Set(testbed.Always("validate", testbed.Answer(401, "")))
	d.refused(srv.Token(t, u, "project"), "", ctl.ErrNotChecked)
	wantCount(t, p, "validate", 2)
}

func TestAUserThatKeystoneRefuses(t *testing.T) {
	srv := testbed.Keystone(t)
	p, behind := srv.Behind(t)
	u := srv.User(t, "member")
	token := srv.Token(t, u, "project")
	wrong := config(behind)
	wrong.Password = "the-wrong-one"
	d := newDoor(t, wrong)
	err := d.Check(t.Context())
	if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), `user "glance" of domain "Default"`) {
		t.Errorf("Check: %v", err)
	}
	d.quiet(fmt.Sprintf("%v %#v", err, err))
	for range 5 {
		d.refused(token, "", ctl.ErrNotChecked)
	}
	wantCount(t, p, "login", 1) // who fails often may be locked
	d.clock.forward(deniedPause)
	d.refused(token, "", ctl.ErrNotChecked)
	wantCount(t, p, "login", 2)

	for key, change := range map[string]func(*Config){
		"project": func(c *Config) { c.ProjectName = "nowhere" },
		"user":    func(c *Config) { c.Username = "nobody" },
		"domain":  func(c *Config) { c.UserDomainName = "nowhere" },
	} {
		cfg := config(behind)
		change(&cfg)
		if err := newDoor(t, cfg).Check(t.Context()); !errors.Is(err, ErrDenied) {
			t.Errorf("another %s: %v", key, err)
		}
	}
	cfg := config(behind)
	cfg.AuthURL += "/elsewhere"
	if err := newDoor(t, cfg).Check(t.Context()); !errors.Is(err, ctl.ErrNotChecked) || errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "check auth_url") {
		t.Errorf("another path: %v", err)
	}

	// One who is no service may ask about nobody else's token.
	cfg = config(behind)
	cfg.Username, cfg.Password, cfg.ProjectName = u.Name, "", u.Project
	cfg.PasswordFile = filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(cfg.PasswordFile, []byte(u.Password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d = newDoor(t, cfg)
	if err := d.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	other := srv.Token(t, srv.User(t, "member"), "project")
	_, err = d.ask(other, "")
	if !errors.Is(err, ctl.ErrNotChecked) || !strings.Contains(err.Error(), "give it the role service") {
		t.Errorf("without a right to: %v", err)
	}
}

func TestKeystoneBehindTLS(t *testing.T) {
	srv := testbed.Keystone(t)
	p, _ := srv.Behind(t)
	files := testbed.Certify(t)
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(p)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(server.Close)
	token := srv.Token(t, srv.User(t, "member"), "project")
	cfg := config(srv)
	cfg.AuthURL = server.URL
	newDoor(t, cfg).refused(token, "", ctl.ErrNotChecked)
	cfg.CAFile = files.CA
	newDoor(t, cfg).taken(token, "")
}
