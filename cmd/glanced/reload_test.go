package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"glanced/contrib/testbed"
)

// reloadable is a daemon whose configuration a test rewrites.
type reloadable struct {
	*process
	config string
}

func startReloadable(t *testing.T, dir, text string) *reloadable {
	t.Helper()
	config := filepath.Join(t.TempDir(), "glanced.toml")
	if err := os.WriteFile(config, []byte(fmt.Sprintf("data_dir = %q\n", dir)+text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &reloadable{startDaemon(t, dir, "--config", config), config}
}

// reload has the daemon read text, and returns what it logged then.
func (r *reloadable) reload(text string) string {
	r.t.Helper()
	if err := os.WriteFile(r.config, []byte(fmt.Sprintf("data_dir = %q\n", r.dir)+text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	before := len(r.log.String())
	r.cmd.Process.Signal(syscall.SIGHUP)
	r.await("RELOADING=1")
	r.await("READY=1")
	return r.log.String()[before:]
}

func (r *reloadable) wantReload(text, want string) {
	r.t.Helper()
	if got := r.reload(text); !strings.Contains(got, want) {
		r.t.Errorf("reloading says %s, want %s", got, want)
	}
}

// upload makes a raw image in a store ("" = the default one), and returns the status of
// the upload.
func (p *process) uploadTo(store string, data []byte) (id string, status int) {
	p.t.Helper()
	id = p.create("image", "private", nil)
	req, err := http.NewRequest("PUT", "http://control/v2/images/"+id+"/file", bytes.NewReader(data))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if store != "" {
		req.Header.Set("X-Image-Meta-Store", store)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	resp.Body.Close()
	return id, resp.StatusCode
}

func (p *process) wantUpload(store string, want int) (id string) {
	p.t.Helper()
	id, status := p.uploadTo(store, []byte("some bytes of a disk"))
	if status != want {
		p.t.Errorf("an upload to store %q: %d, want %d\n%s", store, status, want, p.log)
	}
	return id
}

// stores are the lines of /admin/status.
func (p *process) stores() (lines []map[string]any) {
	p.t.Helper()
	_, v := p.call("GET", "/admin/status", "", nil)
	for _, s := range v["stores"].([]any) {
		line := s.(map[string]any)
		delete(line, "total_bytes")
		delete(line, "free_bytes")
		lines = append(lines, line)
	}
	return lines
}

const oneStore = `
[[stores]]
id = "local"
type = "file"
path = "images"
`

func TestHangupAddsAStoreAndChangesWhatItMay(t *testing.T) {
	dir := t.TempDir()
	p := startReloadable(t, dir, oneStore)
	first := p.wantUpload("", http.StatusNoContent)

	// An upload that is under way ends in the store that it began in.
	slow := p.create("slow", "private", nil)
	r, w := io.Pipe()
	req, err := http.NewRequest("PUT", "http://control/v2/images/"+slow+"/file", r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	done := make(chan error, 1)
	go func() {
		resp, err := p.client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusNoContent {
				err = errors.New(resp.Status)
			}
		}
		done <- err
	}()
	if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}

	two := `
[[stores]]
id = "new"
type = "file"
path = "more"
default = true
weight = 5
[[stores]]
id = "local"
type = "file"
path = "images"
description = "old disks"
read_only = true
`
	p.wantReload(two, `"msg":"reloaded"}`)
	want := []map[string]any{
		{"id": "new", "type": "file", "description": "", "default": true, "read_only": false, "weight": 5.0},
		{"id": "local", "type": "file", "description": "old disks", "default": false, "read_only": true, "weight": 0.0},
	}
	if got := p.stores(); !reflect.DeepEqual(got, want) {
		t.Errorf("stores %v, want %v", got, want)
	}
	in := func(id, folder string) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(dir, folder, id)); err != nil {
			t.Error(err)
		}
	}
	in(p.wantUpload("", http.StatusNoContent), "more")
	p.wantUpload("local", http.StatusForbidden)
	if status, v := p.call("DELETE", "/v2/images/"+first, "", nil); status != http.StatusForbidden {
		t.Errorf("delete from a store that is read-only now: %d %v", status, v)
	}
	w.Write([]byte("the end"))
	w.Close()
	if err := <-done; err != nil {
		t.Errorf("the upload that was under way: %v", err)
	}
	in(slow, "images")
	for _, id := range []string{first, slow} {
		if status, _ := p.download(id); status != http.StatusOK {
			t.Errorf("download from the store as it was: %d", status)
		}
	}

	// And back again, with a folder more.
	p.wantReload(strings.NewReplacer("read_only = true", "", `path = "images"`, `paths = [{path = "images"}, {path = "images2", priority = 9}]`).Replace(two), `"msg":"reloaded"}`)
	in(p.wantUpload("local", http.StatusNoContent), "images2")
	for _, id := range []string{first, slow} {
		p.delete(id)
	}
	if left := storedFiles(t, dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAReloadIsAllOrNothingAndSaysWhatTakesARestart(t *testing.T) {
	dir := t.TempDir()
	p := startReloadable(t, dir, oneStore+"[nbd]\nanonymous = \"none\"\n")
	kept := p.wantUpload("", http.StatusNoContent)
	before := p.stores()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := oneStore + "default = true\n[[stores]]\nid = \"new\"\ntype = \"file\"\npath = \"more\"\n"
	for name, c := range map[string]struct{ text, want string }{
		"a store that cannot be opened": {good + "[[stores]]\nid = \"bad\"\ntype = \"file\"\npath = \"file/x\"\n", "file/x"},
		"a log that cannot be opened":   {good + "[log]\nlevel = \"debug\"\nfile = \"nowhere/log\"\n", "nowhere/log"},
		"a token that is none":          {good + "[[auth.tokens]]\nfile = \"file\"\nproject = \"p\"\nroles = [\"member\"]\n", "should hold one token"},
		"a value that is none":          {good + "[nbd]\nanonymous = \"some\"\n", "want one of none, public, all"},
		"two defaults":                  {good + "default = true\n", "exactly one must have default"},
	} {
		said := p.reload(c.text)
		if !strings.Contains(said, "the old configuration stays in force") || !strings.Contains(said, c.want) {
			t.Errorf("%s: it says %s, want %s", name, said, c.want)
		}
		if got := p.stores(); !reflect.DeepEqual(got, before) {
			t.Errorf("%s: stores %v, before %v", name, got, before)
		}
	}
	p.wantUpload("new", http.StatusBadRequest)

	said := p.reload(`
[http]
listen = "127.0.0.1:1"
trust_forwarded = true
[memory]
budget = "300MiB"
[[stores]]
id = "new"
type = "file"
path = "more"
default = true
`)
	for _, key := range []string{"http.trust_forwarded", "memory.budget", "stores.local (removed)"} {
		if !strings.Contains(said, key) {
			t.Errorf("it does not say that %s takes a restart: %s", key, said)
		}
	}
	if strings.Contains(said, "http.listen") { // the command line says that
		t.Errorf("it says %s", said)
	}
	if status, _ := p.download(kept); status != http.StatusOK {
		t.Errorf("download from the removed store: %d", status)
	}
	p.wantUpload("new", http.StatusNoContent)

	// A store that would be somewhere else stays as it is but for what every store has.
	said = p.reload(strings.NewReplacer(`"images"`, `"elsewhere"`, "type =", "weight = 7\nreserve = \"1MiB\"\ndefault = true\ntype =").Replace(oneStore))
	for _, key := range []string{"stores.local.path", "stores.local.reserve", "stores.new (removed)"} {
		if !strings.Contains(said, key) {
			t.Errorf("it does not say that %s takes a restart: %s", key, said)
		}
	}
	if status, _ := p.download(kept); status != http.StatusOK || p.stores()[0]["weight"] != 7.0 {
		t.Errorf("download: %d, stores %v", status, p.stores())
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); !os.IsNotExist(err) {
		t.Errorf("the other folder: %v", err)
	}
}

// The file says that HTTP stays on loopback, but the listener is another one until a
// restart: nobody may be let in without a token there.
func TestAuthIsCheckedAgainstTheListenerThatIsInForce(t *testing.T) {
	dir := t.TempDir()
	_, port, err := net.SplitHostPort(freePort(t))
	if err != nil {
		t.Fatal(err)
	}
	open := "[http]\nlisten = \"0.0.0.0:" + port + "\"\nallow_plaintext = true\n"
	config := filepath.Join(t.TempDir(), "glanced.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(config, []byte(fmt.Sprintf("data_dir = %q\n%s[fuse]\nmountpoint = \"\"\n[nbd]\nlisten = []\n", dir, text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(open)
	path, err := builtDaemon()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	cmd := startLogged(t, log, path, "--config", config)
	waitForText(t, log, `"msg":"ready"`)
	list := func() int {
		t.Helper()
		resp, err := http.Get("http://127.0.0.1:" + port + "/v2/images")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, text := range []string{
		strings.Replace(open, "0.0.0.0", "127.0.0.1", 1) + "[auth]\nmode = \"none\"\n",
		"[http]\nlisten = \"\"\n[auth]\nmode = \"none\"\n",
	} {
		write(text)
		cmd.Process.Signal(syscall.SIGHUP)
		waitForText(t, log, "together with what stays as it is until a restart")
		if got := list(); got != http.StatusUnauthorized {
			t.Errorf("without a token: %d", got)
		}
		if err := os.Truncate(log, 0); err != nil {
			t.Fatal(err)
		}
	}

	// The log goes where the file says from now on.
	write(open + "[log]\nfile = \"other.log\"\n")
	cmd.Process.Signal(syscall.SIGHUP)
	waitForText(t, filepath.Join(dir, "other.log"), `"msg":"reloaded"`)
	if got, err := os.ReadFile(log); err != nil || len(got) > 0 {
		t.Errorf("the old log: %q, %v", got, err)
	}
}

func TestHangupTakesARotatedKey(t *testing.T) {
	srv := testbed.S3(t)
	dir := t.TempDir()
	config := s3Config(t, dir, srv)
	secret := filepath.Join(dir, "s3.secret")
	p := startDaemon(t, dir, "--config", config)
	first := p.wantUpload("far", http.StatusNoContent)
	for _, c := range []struct {
		key  string
		want int
	}{{"a key of before", http.StatusServiceUnavailable}, {srv.SecretKey, http.StatusNoContent}} {
		if err := os.WriteFile(secret, []byte(c.key+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p.cmd.Process.Signal(syscall.SIGHUP)
		p.await("RELOADING=1")
		p.await("READY=1")
		p.wantUpload("far", c.want)
	}
	p.delete(first)
	p.wantUntold(srv.AccessKey, srv.SecretKey)
}

// A disk is not mounted when the daemon starts, and is later.
func TestADaemonStartsWithoutOneOfItsDisks(t *testing.T) {
	dir := t.TempDir()
	disk, at := filepath.Join(t.TempDir(), "disk"), filepath.Join(dir, "images")
	for _, folder := range []string{disk, at} {
		if err := os.Mkdir(folder, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	mount := func() {
		t.Helper()
		if err := syscall.Mount(disk, at, "", syscall.MS_BIND, ""); err != nil {
			testbed.Unable(t, "cannot mount: "+err.Error()+"; run this test as root")
		}
	}
	mount()
	t.Cleanup(func() { syscall.Unmount(at, syscall.MNT_DETACH) })
	text := `
[[stores]]
id = "local"
type = "file"
paths = [{path = "images", priority = 10}, {path = "others"}]
`
	p := startReloadable(t, dir, text)
	lost := p.wantUpload("", http.StatusNoContent)
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Unmount(at, 0); err != nil {
		t.Fatal(err)
	}
	p = startReloadable(t, dir, text)
	if said := p.log.String(); !strings.Contains(said, "a part of a store cannot be used") || !strings.Contains(said, "mount its disk") {
		t.Errorf("the log does not tell: %s", said)
	}
	if status, body := p.download(lost); status != http.StatusServiceUnavailable {
		t.Errorf("download of what lies there: %d %s", status, body)
	}
	if status, check := p.call("POST", "/admin/stores/local/check", "", nil); status != http.StatusOK || check["ok"] != false || !strings.Contains(fmt.Sprint(check), at) {
		t.Errorf("check: %d %v", status, check)
	}
	kept := p.wantUpload("", http.StatusNoContent)
	if _, err := os.Stat(filepath.Join(dir, "others", kept)); err != nil {
		t.Error(err)
	}
	if got := storedFiles(t, dir); len(got) > 0 {
		t.Errorf("the mount point has %v", got)
	}
	mount()
	for _, id := range []string{lost, kept} {
		if status, _ := p.download(id); status != http.StatusOK {
			t.Errorf("after the mount: %d", status)
		}
		p.delete(id)
	}
}
