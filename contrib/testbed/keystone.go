package testbed

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// KeystoneServer is a Keystone that runs. Its service project has user glance (password
// KeystonePassword), who may validate tokens, and has the role service.
type KeystoneServer struct {
	URL string // http://127.0.0.1:port/v3

	server *sharedServer
	admin  *keystoneAdmin
}

// KeystonePassword is user glance's, of project service; both of domain Default.
const KeystonePassword = "glance-secret"

// keystoneAdmin is what an administrator knows, once for all tests of a program.
type keystoneAdmin struct {
	mu    sync.Mutex
	token string
	roles map[string]string // ids by name
}

var keystoneAdmins keystoneAdmin

// KeystoneUser is a user of domain Default, and a project of that domain.
type KeystoneUser struct {
	ID, Name, Password string
	ProjectID, Project string
}

// KeystoneGlance is user glance of the server, whose ids nobody needs.
var KeystoneGlance = KeystoneUser{Name: "glance", Password: KeystonePassword, Project: "service"}

// Keystone is one Keystone for all tests of a program: see Main. It takes some time to
// start.
func Keystone(t testing.TB) KeystoneServer {
	t.Helper()
	needKeystone(t, "keystone")
	s := share(t, "keystone", 1, "", func(dir string, ports []string) *exec.Cmd {
		return exec.Command("bash", script("keystone.sh"), "run", dir, ports[0])
	})
	return KeystoneServer{URL: "http://127.0.0.1:" + s.ports[0] + "/v3", server: s, admin: &keystoneAdmins}
}

func needKeystone(t testing.TB, server string) {
	t.Helper()
	for program, pkg := range map[string]string{"keystone-manage": "keystone", "uwsgi": "uwsgi-core"} {
		if _, err := exec.LookPath(program); err != nil {
			UnableFor(t, server, program+" is missing: install "+pkg)
		}
	}
}

// User makes a user with these roles in a project of its own.
func (k KeystoneServer) User(t testing.TB, roles ...string) KeystoneUser {
	t.Helper()
	name := "testbed-" + strings.ToLower(rand.Text()[:12])
	u := KeystoneUser{Name: name, Password: rand.Text(), Project: name}
	var made struct {
		Project, User struct{ ID string }
	}
	k.call(t, "POST", "/projects", object{"project": object{"name": name, "domain_id": "default"}}, &made)
	k.call(t, "POST", "/users", object{"user": object{"name": name, "domain_id": "default", "password": u.Password}}, &made)
	u.ID, u.ProjectID = made.User.ID, made.Project.ID
	k.Grant(t, u, "/projects/"+u.ProjectID, roles...)
	return u
}

// Grant gives a user roles in a scope: /system, /domains/<id> or /projects/<id>.
func (k KeystoneServer) Grant(t testing.TB, u KeystoneUser, scope string, roles ...string) {
	t.Helper()
	for _, name := range roles {
		k.call(t, "PUT", scope+"/users/"+u.ID+"/roles/"+k.role(t, name), nil, nil)
	}
}

func (k KeystoneServer) role(t testing.TB, name string) string {
	t.Helper()
	k.admin.mu.Lock()
	defer k.admin.mu.Unlock()
	if k.admin.roles == nil {
		var list struct{ Roles []struct{ ID, Name string } }
		k.callAs(t, k.adminToken(t), "GET", "/roles", nil, &list)
		k.admin.roles = map[string]string{}
		for _, r := range list.Roles {
			k.admin.roles[r.Name] = r.ID
		}
	}
	id := k.admin.roles[name]
	if id == "" {
		t.Fatalf("Keystone has no role %q", name)
	}
	return id
}

// Token is a token of the user: scope is project (the user's), system, domain (the
// default one), or "" = unscoped.
func (k KeystoneServer) Token(t testing.TB, u KeystoneUser, scope string) string {
	t.Helper()
	domain := object{"id": "default"}
	scopes := map[string]any{
		"project": object{"project": object{"name": u.Project, "domain": domain}},
		"system":  object{"system": object{"all": true}},
		"domain":  object{"domain": domain},
		"":        "unscoped",
	}
	return k.callAs(t, "", "POST", "/auth/tokens", object{"auth": object{
		"identity": object{"methods": []string{"password"}, "password": object{"user": object{"name": u.Name, "domain": domain, "password": u.Password}}},
		"scope":    scopes[scope],
	}}, nil).Get("X-Subject-Token")
}

// TokenByCredential is a token of the user's project by an application credential, which is
// for requests like rule only, where that is not "": "GET /v2/images".
func (k KeystoneServer) TokenByCredential(t testing.TB, u KeystoneUser, rule string) string {
	t.Helper()
	credential := object{"name": rand.Text(), "secret": rand.Text()}
	if method, path, ok := strings.Cut(rule, " "); ok {
		credential["access_rules"] = []object{{"service": "image", "method": method, "path": path}}
	}
	var made struct {
		Credential struct{ ID string } `json:"application_credential"`
	}
	k.callAs(t, k.Token(t, u, "project"), "POST", "/users/"+u.ID+"/application_credentials", object{"application_credential": credential}, &made)
	return k.callAs(t, "", "POST", "/auth/tokens", object{"auth": object{"identity": object{
		"methods":                []string{"application_credential"},
		"application_credential": object{"id": made.Credential.ID, "secret": credential["secret"]},
	}}}, nil).Get("X-Subject-Token")
}

// TokenUntil is a token of the user's project that expires in a while, or has expired so
// long ago.
func (k KeystoneServer) TokenUntil(t testing.TB, u KeystoneUser, left time.Duration) string {
	t.Helper()
	return strings.TrimSpace(Run(t, "bash", script("keystone.sh"), "token", k.server.dir, u.ID, u.ProjectID, strconv.Itoa(int(left/time.Second))))
}

// Revoke ends a token.
func (k KeystoneServer) Revoke(t testing.TB, token string) {
	t.Helper()
	k.callAs(t, token, "DELETE", "/auth/tokens", nil, nil, "X-Subject-Token", token)
}

// SetPassword changes the user's, as an administrator does. It returns in the second after:
// Keystone counts in seconds, and revokes what tokens it made in that one.
func (k KeystoneServer) SetPassword(t testing.TB, u KeystoneUser, password string) {
	t.Helper()
	k.call(t, "PATCH", "/users/"+u.ID, object{"user": object{"password": password}}, nil)
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second)))
}

// ImageService makes the image service of a region of its own, which is at address.
func (k KeystoneServer) ImageService(t testing.TB, address string) (region string) {
	t.Helper()
	var made struct {
		Service, Region struct{ ID string }
	}
	k.call(t, "POST", "/regions", object{"region": object{}}, &made)
	k.call(t, "POST", "/services", object{"service": object{"type": "image", "name": "glance"}}, &made)
	k.call(t, "POST", "/endpoints", object{"endpoint": object{"service_id": made.Service.ID, "region_id": made.Region.ID, "interface": "public", "url": address}}, nil)
	return made.Region.ID
}

// Pause ends Keystone until resume is called, or the test ends. No other test may use it
// meanwhile.
func (k KeystoneServer) Pause(t testing.TB) (resume func()) {
	t.Helper()
	return k.server.pause(t)
}

// Behind is the same server as a proxy's clients see it. Requests are named "login",
// "validate" and "validate expired", and others by their method.
func (k KeystoneServer) Behind(t testing.TB) (*Proxy, KeystoneServer) {
	t.Helper()
	p := NewProxy(t, Passing(t, k.URL), func(r *http.Request) string {
		switch {
		case r.URL.Path != "/v3/auth/tokens":
			return r.Method
		case r.Method == "POST":
			return "login"
		case r.URL.Query().Has("allow_expired"):
			return "validate expired"
		}
		return "validate"
	})
	k.URL = p.URL + "/v3"
	return p, k
}

type object map[string]any

// call makes a request as the administrator.
func (k KeystoneServer) call(t testing.TB, method, path string, body, answer any) {
	t.Helper()
	k.admin.mu.Lock()
	token := k.adminToken(t)
	k.admin.mu.Unlock()
	k.callAs(t, token, method, path, body, answer)
}

// adminToken is under k.admin.mu.
func (k KeystoneServer) adminToken(t testing.TB) string {
	t.Helper()
	if k.admin.token == "" {
		k.admin.token = k.Token(t, KeystoneUser{Name: "admin", Password: "admin-secret", Project: "service"}, "project")
	}
	return k.admin.token
}

// callAs makes a request with a token, "" = none, and is the answer's headers. more are
// headers, in pairs.
func (k KeystoneServer) callAs(t testing.TB, token, method, path string, body, answer any, more ...string) http.Header {
	t.Helper()
	var text io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, k.URL+path, text)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("X-Auth-Token", token)
	}
	for i := 0; i < len(more); i += 2 {
		req.Header.Set(more[i], more[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		t.Fatalf("%s %s: %d %s %v", method, path, resp.StatusCode, b, err)
	}
	if answer != nil {
		if err := json.Unmarshal(b, answer); err != nil {
			t.Fatal(fmt.Errorf("%s %s: %w", method, path, err))
		}
	}
	return resp.Header
}
