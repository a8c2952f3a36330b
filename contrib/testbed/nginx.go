package testbed

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Nginx is a web server of its own process, behind a Wire, so that
// its address stays while it is stopped and started again.
type Nginx struct {
	URL string // http://127.0.0.1:port

	t      testing.TB
	dir    string // its configuration, log and socket
	cmd    *exec.Cmd
	exited chan struct{}
}

// NewNginx serves the files below root, with directives of the server block added to
// those that there are. It ends with the test.
func NewNginx(t testing.TB, root, directives string) *Nginx {
	t.Helper()
	Need(t, "nginx", "nginx-light")
	dir, err := os.MkdirTemp("", "nginx-") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	n := &Nginx{t: t, dir: dir}
	t.Cleanup(func() { os.RemoveAll(dir) })
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // what tests write is nobody else's to read
	}
	config := fmt.Sprintf(`%s daemon off; master_process off; pid %[2]s/pid; error_log %[2]s/log;
events { worker_connections 512; }
http {
	access_log off; default_type application/octet-stream; keepalive_requests 100000;
	client_body_temp_path %[2]s; proxy_temp_path %[2]s; fastcgi_temp_path %[2]s; uwsgi_temp_path %[2]s; scgi_temp_path %[2]s;
	server { listen unix:%[2]s/socket; root %[3]s; %[4]s }
}
`, user, dir, root, directives)
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	n.URL = "http://" + NewWire(t, "unix", filepath.Join(dir, "socket")).Addr
	n.Start()
	t.Cleanup(n.Stop)
	return n
}

// Start starts it, and waits until it answers.
func (n *Nginx) Start() {
	n.t.Helper()
	socket := filepath.Join(n.dir, "socket")
	os.Remove(socket)
	n.cmd = exec.Command("nginx", "-p", n.dir, "-c", filepath.Join(n.dir, "conf"), "-e", filepath.Join(n.dir, "log"))
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	exited := make(chan struct{})
	n.exited = exited
	go func(cmd *exec.Cmd) { cmd.Wait(); close(exited) }(n.cmd)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for {
		if resp, err := client.Get("http://nginx/"); err == nil {
			resp.Body.Close()
			return
		}
		select {
		case <-exited:
			log, _ := os.ReadFile(filepath.Join(n.dir, "log"))
			n.t.Fatalf("nginx ended at once: %s", log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop ends it; connections break off.
func (n *Nginx) Stop() {
	n.cmd.Process.Kill()
	<-n.exited
}
