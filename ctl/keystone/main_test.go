package keystone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"glanced/backends/budget"
	"glanced/contrib/testbed"
	"glanced/ctl"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

// door is an Authenticator before a real Keystone, and a clock that tests put forward.
type door struct {
	*Authenticator
	t     *testing.T
	log   *bytes.Buffer
	clock *clock
	heard []string // tokens and passwords: nothing may tell of them
}

type clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// config is user glance's of srv.
func config(srv testbed.KeystoneServer) Config {
	return Config{AuthURL: srv.URL, Username: "glance", Password: testbed.KeystonePassword, ProjectName: "service", UserDomainName: "Default", ProjectDomainName: "Default"}
}

func newDoor(t *testing.T, cfg Config) *door {
	t.Helper()
	d := &door{t: t, log: &bytes.Buffer{}, clock: &clock{}, heard: []string{string(cfg.Password)}}
	cfg.now = d.clock.now
	var err error
	if d.Authenticator, err = New(cfg, NewCache(budget.New(1<<20)), slog.New(slog.NewTextHandler(d.log, nil))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.quiet(d.log.String()) })
	return d
}

// quiet wants nothing secret in a text.
func (d *door) quiet(text string) {
	d.t.Helper()
	for _, secret := range d.heard {
		if secret != "" && strings.Contains(text, secret) {
			d.t.Errorf("%q is told: %s", secret, text)
		}
	}
}

// ask is what Authenticate says of a user's token and a service's, "" = none.
func (d *door) ask(user, service string) (ctl.Identity, error) {
	d.t.Helper()
	return d.askAs(d.t.Context(), user, service)
}

func (d *door) askAs(ctx context.Context, user, service string) (ctl.Identity, error) {
	header := http.Header{}
	for key, value := range map[string]string{"X-Auth-Token": user, "X-Service-Token": service} {
		if value != "" {
			header.Set(key, value)
		}
	}
	who, err := d.Authenticate(ctx, header)
	if err != nil && fmt.Sprint(who) != fmt.Sprint(ctl.Identity{}) {
		d.t.Errorf("with error %v it is %+v", err, who)
	}
	return who, err
}

// taken wants the tokens taken, and is who they are.
func (d *door) taken(user, service string) ctl.Identity {
	d.t.Helper()
	d.heard = append(d.heard, user, service)
	who, err := d.ask(user, service)
	if err != nil {
		d.t.Fatalf("refused: %v", err)
	}
	return who
}

// refused wants an error, which says nothing that is secret.
func (d *door) refused(user, service string, want error) {
	d.t.Helper()
	d.heard = append(d.heard, user, service)
	who, err := d.ask(user, service)
	if !errors.Is(err, want) {
		d.t.Errorf("%+v, %v; want %v", who, err, want)
	}
	for _, other := range []error{ctl.ErrUnauthorized, ctl.ErrServiceToken, ctl.ErrNotChecked} {
		if other != want && errors.Is(err, other) {
			d.t.Errorf("%v is %v too", err, other)
		}
	}
	d.quiet(fmt.Sprintf("%v %+v %#v", err, err, err))
}

func wantCount(t *testing.T, p *testbed.Proxy, name string, want int) {
	t.Helper()
	if got := p.Count(name); got != want {
		t.Errorf("%s: %d times, want %d", name, got, want)
	}
}
