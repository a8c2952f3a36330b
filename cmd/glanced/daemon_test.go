package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"glanced/contrib/testbed"
)

// builtDaemon builds the daemon once for all tests of this package.
var builtDaemon = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "glanced-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "glanced")
	args := []string{"build", "-o", path}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-tags" { // as the tests themselves were built
				args = append(args, "-tags", s.Value)
			}
		}
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := testbed.Main(m)
	if path, err := builtDaemon(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// process is a running daemon and a client on its control socket.
type process struct {
	t        *testing.T
	dir      string
	args     []string // what it was started with, beside its addresses
	cmd      *exec.Cmd
	log      logFile
	http     string
	nbd      string
	done     chan error
	client   *http.Client
	notified chan string
}

// logFile is the path of what a daemon says on its standard error.
type logFile string

func (l logFile) String() string {
	text, err := os.ReadFile(string(l))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// startDaemon starts glanced --dir dir, or, where args name a --config, that with
// its data in dir, and waits until it says READY=1.
func startDaemon(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	return startBy(t, nil, dir, args...)
}

// startBy is startDaemon, by a program that runs it, such as prlimit(1).
func startBy(t *testing.T, runner []string, dir string, args ...string) *process {
	t.Helper()
	path, err := builtDaemon()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, dir: dir, args: args, log: logFile(filepath.Join(t.TempDir(), "log")), http: freePort(t), nbd: freePort(t), done: make(chan error, 1), notified: make(chan string, 16)}
	notify := filepath.Join(t.TempDir(), "notify")
	nc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := nc.Read(buf)
			if err != nil {
				return
			}
			p.notified <- string(buf[:n])
		}
	}()
	if !slices.Contains(args, "--config") {
		args = append([]string{"--dir", dir}, args...)
	}
	command := slices.Concat(runner, []string{path, "--http", p.http, "--nbd", p.nbd}, args)
	p.cmd = exec.Command(command[0], command[1:]...)
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+notify)
	stderr, err := os.Create(string(p.log))
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = stderr
	err = p.cmd.Start()
	stderr.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(func() {
		p.cmd.Process.Kill()
		<-p.done
		syscall.Unmount(filepath.Join(dir, "mnt"), syscall.MNT_DETACH)
	})
	sock := filepath.Join(dir, "control.sock")
	p.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sock)
	}}}
	p.await("READY=1")
	return p
}

// again starts one as p was, which has ended.
func (p *process) again() *process {
	p.t.Helper()
	return startDaemon(p.t, p.dir, p.args...)
}

func (p *process) await(state string) {
	p.t.Helper()
	for timeout := time.After(30 * time.Second); ; {
		select {
		case got := <-p.notified:
			if strings.Contains(got, state) {
				return
			}
		case err := <-p.done:
			p.done <- err
			p.t.Fatalf("the daemon ended (%v) before %s:\n%s", err, state, p.log)
		case <-timeout:
			p.t.Fatalf("no %s within 30 s:\n%s", state, p.log)
		}
	}
}

// end sends sig and waits for the process.
func (p *process) end(sig syscall.Signal) error {
	p.t.Helper()
	p.cmd.Process.Signal(sig)
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(20 * time.Second):
		p.t.Fatalf("still running 20 s after %v:\n%s", sig, p.log)
		return nil
	}
}

// call makes one request on the control socket and returns status and JSON body.
func (p *process) call(method, path, contentType string, body io.Reader) (int, map[string]any) {
	p.t.Helper()
	req, err := http.NewRequest(method, "http://control"+path, body)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v\n%s", method, path, err, p.log)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var v map[string]any
	json.Unmarshal(text, &v)
	return resp.StatusCode, v
}

// create makes a raw image of the given bytes (nil: only the record).
func (p *process) create(name, visibility string, data []byte) string {
	p.t.Helper()
	status, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(
		fmt.Sprintf(`{"name":%q,"disk_format":"raw","container_format":"bare","visibility":%q}`, name, visibility)))
	if status != http.StatusCreated {
		p.t.Fatalf("create: %d %v", status, img)
	}
	id := img["id"].(string)
	if data != nil {
		if status, v := p.call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", bytes.NewReader(data)); status != http.StatusNoContent {
			p.t.Fatalf("upload: %d %v", status, v)
		}
	}
	return id
}

func (p *process) status(id string) string {
	p.t.Helper()
	_, img := p.call("GET", "/v2/images/"+id, "", nil)
	s, _ := img["status"].(string)
	return s
}

// trickle uploads without end, slowly, and returns once the image is saving.
func (p *process) trickle(id string) {
	p.t.Helper()
	r, w := io.Pipe()
	p.t.Cleanup(func() { w.Close() })
	go func() {
		block := bytes.Repeat([]byte("glanced "), 8<<10)
		for {
			if _, err := w.Write(block); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	req, err := http.NewRequest("PUT", "http://control/v2/images/"+id+"/file", r)
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	go func() {
		if resp, err := p.client.Do(req); err == nil {
			resp.Body.Close()
		}
		r.Close()
	}()
	for range 300 {
		if p.status(id) == "saving" {
			time.Sleep(50 * time.Millisecond) // let some bytes reach the store
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	p.t.Fatalf("image %s is %s, not saving", id, p.status(id))
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// storedFiles are the objects of the store in dir, and what is on its way to be one.
func storedFiles(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "images"), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != ".glanced-folder" {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func mounted(t *testing.T, dir string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), " "+filepath.Join(dir, "mnt")+" ")
}

func TestTermEndsCleanlyWithAnUploadUnderWay(t *testing.T) {
	dir := t.TempDir()
	p := startDaemon(t, dir)
	kept := p.create("kept", "private", []byte("some bytes of a disk"))
	cut := p.create("cut", "private", nil)
	p.trickle(cut)

	began := time.Now()
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("exit: %v\n%s", err, p.log)
	}
	t.Logf("stopped in %v", time.Since(began))
	if mounted(t, dir) {
		t.Error("the mount is still there")
	}
	for _, s := range []string{"control.sock", "nbd.sock"} {
		if _, err := os.Lstat(filepath.Join(dir, s)); !os.IsNotExist(err) {
			t.Errorf("%s is still there (%v)", s, err)
		}
	}
	if got := storedFiles(t, dir); len(got) != 1 {
		t.Errorf("stored: %v, want the one finished image", got)
	}
	p = startDaemon(t, dir)
	if a, b := p.status(kept), p.status(cut); a != "active" || b != "queued" {
		t.Errorf("after a restart: kept is %s, cut is %s", a, b)
	}
}

func TestKillInAnUploadLeavesAQueuedImageAndNoBytes(t *testing.T) {
	dir := t.TempDir()
	p := startDaemon(t, dir)
	kept := p.create("kept", "private", []byte("some bytes of a disk"))
	cut := p.create("cut", "private", nil)
	p.trickle(cut)
	p.end(syscall.SIGKILL)
	if !mounted(t, dir) {
		t.Fatal("the kill left no stale mount: the test tests nothing")
	}

	p = startDaemon(t, dir)
	if a, b := p.status(kept), p.status(cut); a != "active" || b != "queued" {
		t.Errorf("after a restart: kept is %s, cut is %s", a, b)
	}
	if got := storedFiles(t, dir); len(got) != 1 {
		t.Errorf("stored: %v, want the one finished image", got)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "mnt/images", kept, "disk")); err != nil || string(got) != "some bytes of a disk" {
		t.Errorf("through the new mount: %q, %v", got, err)
	}
	if status, _ := p.call("PUT", "/v2/images/"+cut+"/file", "application/octet-stream", strings.NewReader("again")); status != http.StatusNoContent {
		t.Errorf("a second upload of the cut image: %d", status)
	}
}

func TestOnlyPublicImagesAreExportedOverTCP(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	p := startDaemon(t, t.TempDir())
	public := p.create("pub", "public", bytes.Repeat([]byte("p"), 4096))
	private := p.create("priv", "private", bytes.Repeat([]byte("q"), 4096))
	queued := p.create("queued", "public", nil)
	info := func(args ...string) string {
		out, _ := exec.Command("nbdinfo", args...).CombinedOutput()
		return string(out)
	}
	unix := "nbd+unix:///%s?socket=" + filepath.Join(p.dir, "nbd.sock")
	tcp := "nbd://" + p.nbd + "/%s"

	if got := info("--list", fmt.Sprintf(unix, "")); !strings.Contains(got, public) || !strings.Contains(got, private) || strings.Contains(got, queued) {
		t.Errorf("the unix socket lists:\n%s", got)
	}
	if got := info("--list", fmt.Sprintf(tcp, "")); !strings.Contains(got, public) || strings.Contains(got, private) {
		t.Errorf("TCP lists:\n%s", got)
	}
	for uri, want := range map[string]string{
		fmt.Sprintf(unix, private): "4096\n",
		fmt.Sprintf(unix, public):  "4096\n",
		fmt.Sprintf(tcp, public):   "4096\n",
	} {
		if got := info("--size", uri); got != want {
			t.Errorf("%s: size %q, want %q", uri, got, want)
		}
	}
	for _, uri := range []string{fmt.Sprintf(tcp, private), fmt.Sprintf(unix, queued), fmt.Sprintf(unix, "nothing")} {
		if got := info("--size", uri); !strings.Contains(got, "no export named") {
			t.Errorf("%s: %q, want to be told that there is no such image", uri, got)
		}
	}
}

func TestOnlyWhoMayUseTheSocketsMayReadTheMount(t *testing.T) {
	p := startDaemon(t, t.TempDir())
	id := p.create("private", "private", []byte("secret"))
	for path, want := range map[string]os.FileMode{
		"control.sock": 0o660, "nbd.sock": 0o660, "mnt": 0o500, "mnt/images/" + id: 0o555, "mnt/images/" + id + "/disk": 0o444,
	} {
		if st, err := os.Stat(filepath.Join(p.dir, path)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %v, %v; want %v", path, st.Mode(), err, want)
		}
	}
	cat := exec.Command("cat", filepath.Join(p.dir, "mnt/images", id, "disk"))
	cat.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cat.CombinedOutput(); err == nil {
		t.Errorf("nobody reads %q", out)
	}
}

func TestAMountThatSomebodyTookAwayIsListedNoMore(t *testing.T) {
	p := startDaemon(t, t.TempDir())
	mounts := func() int {
		_, v := p.call("GET", "/admin/mounts", "", nil)
		list, _ := v["mounts"].([]any)
		return len(list)
	}
	if got := mounts(); got != 1 {
		t.Fatalf("%d mounts are listed after the start", got)
	}
	if err := syscall.Unmount(filepath.Join(p.dir, "mnt"), 0); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); mounts() != 0; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the mount is still listed")
		}
	}
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("the end without a mount: %v\n%s", err, p.log)
	}
	if !strings.Contains(p.log.String(), "somebody unmounted") {
		t.Errorf("the log does not tell:\n%s", p.log)
	}
}

func TestHangupReopensTheLogAndReadsTokensAnew(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "glanced.toml")
	logFile := filepath.Join(dir, "log")
	text := strings.Replace(string(defaultConfig), `file = ""`, `file = "log"`, 1)
	text = strings.Replace(text, `mountpoint = "mnt"`, `mountpoint = ""`, 1)
	httpAddr := freePort(t)
	text = strings.NewReplacer("127.0.0.1:9292", httpAddr, "127.0.0.1:10809", freePort(t)).Replace(text)
	if err := os.WriteFile(config, []byte("data_dir = \""+dir+"\"\n"+text), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := builtDaemon()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "--config", config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() }()
	waitForText(t, logFile, `"msg":"ready"`)

	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	list := func(token string) int {
		req, err := http.NewRequest("GET", "http://"+httpAddr+"/v2/images", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Auth-Token", strings.TrimSpace(token))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if list(string(token)) != http.StatusOK || list("another-token-of-length") != http.StatusUnauthorized {
		t.Error("the token file's token is not what opens the door")
	}
	if err := os.Rename(logFile, logFile+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "admin.token"), []byte("another-token-of-length\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitForText(t, logFile, "reloaded")
	if list(string(token)) != http.StatusUnauthorized || list("another-token-of-length") != http.StatusOK {
		t.Error("the new token is not in force")
	}
}

// startLogged starts a program whose standard error goes to the end of a file.
func startLogged(t *testing.T, log, program string, args ...string) *exec.Cmd {
	t.Helper()
	stderr, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer stderr.Close()
	cmd := exec.Command(program, args...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	return cmd
}

func waitForText(t *testing.T, path, want string) {
	t.Helper()
	for range 300 {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), want) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	b, _ := os.ReadFile(path)
	t.Fatalf("%s never said %s:\n%s", path, want, b)
}

func TestCommandLineMistakesEndWithTwo(t *testing.T) {
	path, err := builtDaemon()
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{}, {"--dir", "x", "--config", "y"}, {"--bogus"}, {"--config", "/nonexistent"}, {"--dir", t.TempDir(), "--http", "0.0.0.0:1"}, {"stray"}} {
		out, err := exec.Command(path, args...).CombinedOutput()
		exit, ok := err.(*exec.ExitError)
		if !ok || exit.ExitCode() != 2 || len(out) == 0 {
			t.Errorf("glanced %v: %v\n%s", args, err, out)
		}
	}
}

func TestASecondDaemonOnOneFolderIsRefused(t *testing.T) {
	p := startDaemon(t, t.TempDir())
	path, _ := builtDaemon()
	out, err := exec.Command(path, "--dir", p.dir, "--http", freePort(t), "--nbd", freePort(t)).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another glanced runs") {
		t.Errorf("%v\n%s", err, out)
	}
	if got := p.status(p.create("still here", "private", []byte("x"))); got != "active" {
		t.Errorf("the first daemon suffered: %s", got)
	}
}
