package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"glanced/contrib/testbed"
)

// keystoneAuth is a configuration whose tokens are Keystone's; the password is in a file
// of the data folder.
func keystoneAuth(srv testbed.KeystoneServer, more string) string {
	return fmt.Sprintf(oneStore+`default = true
[auth]
mode = "keystone"
[auth.keystone]
auth_url = %q
password_file = "keystone.password"
%s`, srv.URL, more)
}

func writePassword(t *testing.T, dir, password string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "keystone.password"), []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// asks makes one request over HTTP with a user's token and a service's, "" = none.
func (p *process) asks(method, path, token, service, body string) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequest(method, "http://"+p.http+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	for key, value := range map[string]string{"X-Auth-Token": token, "X-Service-Token": service} {
		if value != "" {
			req.Header.Set(key, value)
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", method, path, err, p.log)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, string(text)
}

// wantStatus asks for a list of images.
func (p *process) wantStatus(token, service string, want int) (*http.Response, string) {
	p.t.Helper()
	resp, text := p.asks("GET", "/v2/images", token, service, "")
	if resp.StatusCode != want {
		p.t.Errorf("answer %d, want %d: %s\n%s", resp.StatusCode, want, text, p.log)
	}
	return resp, text
}

func TestTokensOfKeystone(t *testing.T) {
	srv := testbed.Keystone(t)
	dir := t.TempDir()
	writePassword(t, dir, testbed.KeystonePassword)
	faults, behind := srv.Behind(t)
	p := startReloadable(t, dir, keystoneAuth(behind, ""))
	user := srv.User(t, "member")
	member, admin := srv.Token(t, user, "project"), srv.Token(t, srv.User(t, "admin"), "project")
	reader := srv.Token(t, srv.User(t, "reader"), "project")

	resp, text := p.asks("POST", "/v2/images", member, "", `{"name": "mine"}`)
	var img struct{ ID, Owner string }
	if err := json.Unmarshal([]byte(text), &img); err != nil || resp.StatusCode != http.StatusCreated || img.Owner != user.ProjectID {
		t.Fatalf("create: %d %s", resp.StatusCode, text)
	}
	for name, c := range map[string]struct {
		token, method, path, body string
		want                      int
		words                     string
	}{
		"the owner":         {member, "GET", "/v2/images/" + img.ID, "", 200, ""},
		"an administrator":  {admin, "GET", "/v2/images/" + img.ID, "", 200, ""},
		"another project":   {reader, "GET", "/v2/images/" + img.ID, "", 404, "No image found"},
		"a reader":          {reader, "POST", "/v2/images", `{"name": "mine"}`, 403, "add_image"},
		"system scope":      {systemToken(t, srv), "GET", "/v2/images", "", 403, "scoped to a project"},
		"unscoped":          {srv.Token(t, user, ""), "GET", "/v2/images", "", 403, "scoped to a project"},
		"nobody":            {"", "GET", "/v2/images", "", 401, "X-Auth-Token"},
		"garbage":           {"not-a-token", "GET", "/v2/nothing", "", 401, "X-Auth-Token"},
		"longer than any":   {strings.Repeat("g", 8<<10), "GET", "/v2/images", "", 401, "X-Auth-Token"},
		"what is not there": {member, "GET", "/v2/nothing", "", 404, ""},
	} {
		resp, text := p.asks(c.method, c.path, c.token, "", c.body)
		if resp.StatusCode != c.want || !strings.Contains(text, c.words) {
			t.Errorf("%s: %d %s, want %d", name, resp.StatusCode, text, c.want)
		}
		challenge := ""
		if c.want == http.StatusUnauthorized {
			challenge = `Keystone uri="` + behind.URL + `"`
		}
		if got := resp.Header.Get("WWW-Authenticate"); got != challenge {
			t.Errorf("%s: WWW-Authenticate is %q, want %q", name, got, challenge)
		}
	}
	expired, service := srv.TokenUntil(t, user, -60e9), srv.Token(t, testbed.KeystoneGlance, "project")
	p.wantStatus(expired, "", http.StatusUnauthorized)
	p.wantStatus(expired, service, http.StatusOK)
	if _, text := p.wantStatus(member, "not-a-token", http.StatusUnauthorized); !strings.Contains(text, "X-Service-Token") {
		t.Errorf("a bad service token: %s", text)
	}

	// Keystone goes, and comes back. The other doors need none.
	faults.Set(testbed.Always("validate", testbed.Cut))
	unknown := srv.Token(t, user, "project")
	p.wantStatus(member, "", http.StatusOK)
	resp, text = p.wantStatus(unknown, "", http.StatusServiceUnavailable)
	if resp.Header.Get("Retry-After") == "" || !strings.Contains(text, "identity service") {
		t.Errorf("Retry-After is %q: %s", resp.Header.Get("Retry-After"), text)
	}
	if status, _ := p.call("GET", "/v2/images/"+img.ID, "", nil); status != http.StatusOK {
		t.Errorf("on the control socket: %d", status)
	}
	faults.Set(nil)
	p.wantStatus(unknown, "", http.StatusOK)
	if told := p.log.String(); strings.Contains(told, member) || strings.Contains(told, unknown) || strings.Contains(told, testbed.KeystonePassword) || strings.Contains(told, service) {
		t.Errorf("the log tells of a token or a password: %s", told)
	}
}

func systemToken(t *testing.T, srv testbed.KeystoneServer) string {
	t.Helper()
	u := srv.User(t)
	srv.Grant(t, u, "/system", "admin")
	return srv.Token(t, u, "system")
}

// A password is rotated by a reload; what is wrong with the new one is told, and then the
// old one holds.
func TestKeystonesPasswordIsRotatedByAReload(t *testing.T) {
	srv := testbed.Keystone(t)
	dir := t.TempDir()
	proxy, behind := srv.Behind(t)
	service := srv.User(t, "admin")
	auth := keystoneAuth(behind, fmt.Sprintf("username = %q\nproject_name = %q\n", service.Name, service.Project))
	tokens := oneStore + "default = true\n"
	writePassword(t, dir, service.Password)
	p := startReloadable(t, dir, tokens)
	own, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	static := strings.TrimSpace(string(own))
	user := srv.User(t, "member")
	first := srv.Token(t, user, "project")
	p.wantStatus(static, "", http.StatusOK)
	p.wantStatus(first, "", http.StatusUnauthorized)

	p.wantReload(auth, `"msg":"reloaded"}`)
	p.wantStatus(static, "", http.StatusUnauthorized)
	p.wantStatus(first, "", http.StatusOK)

	srv.SetPassword(t, service, "the-next-one")
	p.wantStatus(first, "", http.StatusOK)
	second := srv.Token(t, user, "project")
	p.wantStatus(second, "", http.StatusServiceUnavailable)
	said := p.reload(auth) // the file is as it was
	if !strings.Contains(said, "the old configuration stays in force") || !strings.Contains(said, "check the names and the password") {
		t.Errorf("it says %s", said)
	}
	writePassword(t, dir, "the-next-one")
	p.wantReload(auth, `"msg":"reloaded"}`)
	p.wantStatus(second, "", http.StatusOK)

	// While Keystone is away a reload forgets nobody, and Keystone is not needed for it.
	proxy.Set(testbed.Always("login", testbed.Cut))
	said = p.reload(auth)
	if !strings.Contains(said, "Keystone cannot be asked now") || !strings.Contains(said, `"msg":"reloaded"}`) {
		t.Errorf("it says %s", said)
	}
	p.wantStatus(second, "", http.StatusOK)
	p.wantStatus(srv.Token(t, user, "project"), "", http.StatusServiceUnavailable)

	// Nor for a start.
	p.end(syscall.SIGTERM)
	again := startDaemon(t, dir, "--config", p.config)
	again.wantStatus(second, "", http.StatusServiceUnavailable)
	if status, _ := again.call("GET", "/v2/images", "", nil); status != http.StatusOK {
		t.Errorf("on the control socket: %d", status)
	}
	proxy.Set(nil)
	again.wantStatus(second, "", http.StatusOK)
	again.wantStatus("not-a-token", "", http.StatusUnauthorized)
	again.end(syscall.SIGTERM)

	writePassword(t, dir, "the-wrong-one")
	wrong := startDaemon(t, dir, "--config", p.config)
	waitForText(t, string(wrong.log), "until this is set right and the daemon told")
	wrong.wantStatus(second, "", http.StatusServiceUnavailable)
	if told := p.log.String() + again.log.String() + wrong.log.String(); strings.Contains(told, "-one") {
		t.Errorf("the log tells a password: %s", told)
	}
}

// The stock client finds the daemon in Keystone's catalog.
func TestOpenstackclientFindsImagesByKeystone(t *testing.T) {
	testbed.Need(t, "openstack", "python3-openstackclient")
	srv := testbed.Keystone(t)
	dir := t.TempDir()
	writePassword(t, dir, testbed.KeystonePassword)
	p := startReloadable(t, dir, keystoneAuth(srv, ""))
	region := srv.ImageService(t, "http://"+p.http)
	user := srv.User(t, "member")
	data := filepath.Join(dir, "data")
	if err := os.WriteFile(data, noise(1, 300_000), 0o600); err != nil {
		t.Fatal(err)
	}
	client := func(program string, stdin string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "COLUMNS=500", "OS_IDENTITY_API_VERSION=3", "OS_AUTH_URL=" + srv.URL, "OS_REGION_NAME=" + region,
			"OS_USERNAME=" + user.Name, "OS_PASSWORD=" + user.Password, "OS_PROJECT_NAME=" + user.Project, "OS_USER_DOMAIN_NAME=Default", "OS_PROJECT_DOMAIN_NAME=Default"}
		cmd.Stdin = strings.NewReader(stdin)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil || strings.Contains(errs.String(), "HTTP") {
			t.Fatalf("%s %v: %v\n%s%s\n%s", program, args, err, out.Bytes(), errs.Bytes(), p.log)
		}
		return out.String()
	}
	out := json.NewDecoder(strings.NewReader(client("openstack", strings.Join([]string{
		"image create -f json --disk-format raw --container-format bare --file " + data + " disk",
		"image list -f json",
		"image show -f json disk",
		"image delete disk",
		"image list -f json",
	}, "\n")+"\n")))
	var made, shown map[string]any
	var list, left []map[string]any
	for _, v := range []any{&made, &list, &shown, &left} {
		if err := out.Decode(v); err != nil {
			t.Fatal(err)
		}
	}
	if made["name"] != "disk" || len(list) != 1 || list[0]["Name"] != "disk" || list[0]["Status"] != "active" || len(left) != 0 {
		t.Errorf("made %v, listed %v, left %v", made, list, left)
	}
	if shown["owner"] != user.ProjectID || shown["size"] != 300_000.0 || shown["id"] != list[0]["ID"] {
		t.Errorf("shown %v", shown)
	}
	if out := client("glance", "", "image-create", "--name", "another", "--disk-format", "raw", "--container-format", "bare", "--file", data); !strings.Contains(out, user.ProjectID) {
		t.Errorf("glance: %s", out)
	}
}
