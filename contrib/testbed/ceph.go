package testbed

import (
	"context"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Ceph starts a cluster of one monitor and one OSD, in memory, that ends with the
// test, and is the path of its configuration, as CEPH_CONF names it. It takes half a
// minute: tests that need it run where GLANCED_CEPH is set (make test-full), or
// GLANCED_MUST_RUN names server, which is what they need it for.
func Ceph(t testing.TB, server string) (conf string) {
	t.Helper()
	if os.Getenv("GLANCED_CEPH") == "" && !named(os.Getenv("GLANCED_MUST_RUN"), server) {
		t.Skip("GLANCED_CEPH is not set")
	}
	needCeph(t, server)
	// Not below t.TempDir, which may be too long for the path of a socket.
	dir, err := os.MkdirTemp("", "ceph-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	serve(t, exec.Command("bash", script("ceph.sh"), "run", dir, FreePort(t), FreePort(t)), exists(filepath.Join(dir, "ready")))
	return filepath.Join(dir, "ceph.conf")
}

func needCeph(t testing.TB, server string) {
	t.Helper()
	for _, program := range []string{"ceph-mon", "ceph-osd", "ceph", "rbd"} {
		if _, err := exec.LookPath(program); err != nil {
			UnableFor(t, server, program+" is missing: run contrib/packages.sh test")
		}
	}
}

// RBDServer is a Ceph cluster that runs, and a pool of its own for the test.
type RBDServer struct {
	Conf    string // path; the cluster's, without keys of users
	Admin   string // path; the configuration of client.admin
	FSID    string
	Pool    string // there, and empty
	User    string // may do to the pool what Ceph's documentation gives to Glance
	Keyring string // path; that user's
	Key     string // what is in it
}

// RBD is a Ceph cluster, one for all tests of a program: see Main.
func RBD(t testing.TB) RBDServer {
	t.Helper()
	needCeph(t, "rbd")
	dir := share(t, "ceph", 2, "ready", func(dir string, ports []string) *exec.Cmd {
		return exec.Command("bash", append([]string{script("ceph.sh"), "run", dir}, ports...)...)
	}).dir
	srv := RBDServer{Admin: filepath.Join(dir, "ceph.conf")}
	srv.FSID = strings.TrimSpace(srv.Run(t, "ceph", "fsid"))
	srv.Conf = filepath.Join(dir, "client.conf")
	text, err := os.ReadFile(srv.Admin)
	if err != nil {
		t.Fatal(err)
	}
	var client []string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "[mon") {
			break
		}
		if !strings.HasPrefix(line, "keyring") && !strings.HasPrefix(line, "admin socket") {
			client = append(client, line)
		}
	}
	if err := os.WriteFile(srv.Conf, []byte(strings.Join(client, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return srv.NewPool(t)
}

// NewPool is the same cluster with one more pool, and one more user.
func (srv RBDServer) NewPool(t testing.TB) RBDServer {
	t.Helper()
	name := "testbed-" + strings.ToLower(rand.Text()[:12])
	srv.Pool, srv.User, srv.Keyring = name, name, filepath.Join(t.TempDir(), "keyring")
	srv.Run(t, "ceph", "osd", "pool", "create", name, "8")
	srv.Run(t, "rbd", "pool", "init", name)
	srv.Run(t, "ceph", "auth", "get-or-create", "client."+name, "mon", "profile rbd", "osd", "profile rbd pool="+name, "-o", srv.Keyring)
	srv.Key = strings.TrimSpace(srv.Run(t, "ceph", "auth", "print-key", "client."+name))
	t.Cleanup(func() {
		cmd := srv.Command(context.Background(), "ceph", "osd", "pool", "rm", name, name, "--yes-i-really-really-mean-it")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("remove the pool: %v\n%s", err, out)
		}
	})
	return srv
}

// Command is a program that is client.admin of the cluster: ceph, rbd or rados.
func (srv RBDServer) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "CEPH_CONF="+srv.Admin)
	return cmd
}

// Run runs such a program, and is its output; the test ends when it fails.
func (srv RBDServer) Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	cmd := srv.Command(t.Context(), program, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// List names the objects in the pool, but for those that every pool for RBD has.
func (srv RBDServer) List(t testing.TB) (names []string) {
	t.Helper()
	for name := range strings.Lines(srv.Run(t, "rados", "-p", srv.Pool, "ls")) {
		if name = strings.TrimSpace(name); !slices.Contains([]string{"rbd_directory", "rbd_info", "rbd_trash", "rbd_children"}, name) {
			names = append(names, name)
		}
	}
	for name := range strings.Lines(srv.Run(t, "rbd", "ls", "--pool", srv.Pool)) {
		names = append(names, "image "+strings.TrimSpace(name))
	}
	return names
}

// Import puts content into the pool as Glance does: an image of 8 MiB objects, with the
// protected snapshot snap.
func (srv RBDServer) Import(t testing.TB, image string, content []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	srv.Run(t, "rbd", "import", "--object-size", "8M", file, srv.Pool+"/"+image)
	srv.Run(t, "rbd", "snap", "create", srv.Pool+"/"+image+"@snap")
	srv.Run(t, "rbd", "snap", "protect", srv.Pool+"/"+image+"@snap")
}

// Remove takes an image away as Glance does.
func (srv RBDServer) Remove(t testing.TB, image string) {
	t.Helper()
	srv.Run(t, "rbd", "snap", "unprotect", srv.Pool+"/"+image+"@snap")
	srv.Run(t, "rbd", "snap", "rm", srv.Pool+"/"+image+"@snap")
	srv.Run(t, "rbd", "rm", srv.Pool+"/"+image)
}

// RadosGW is S3TLS by the gateway of a Ceph cluster of its own.
func RadosGW(t testing.TB) S3Server {
	t.Helper()
	conf := Ceph(t, "radosgw")
	if _, err := exec.LookPath("radosgw"); err != nil {
		UnableFor(t, "radosgw", "radosgw is missing: run contrib/packages.sh full")
	}
	c, port := Certify(t), FreePort(t)
	srv := S3Server{Endpoint: "https://127.0.0.1:" + port, CAFile: c.CA, Region: "us-east-1", AccessKey: "testbedkey", SecretKey: s3Secret}
	cmd := exec.Command("bash", script("radosgw.sh"), "run", filepath.Dir(conf), port)
	cmd.Env = append(os.Environ(), "GW_ACCESS_KEY="+srv.AccessKey, "GW_SECRET_KEY="+srv.SecretKey, "GW_CERT="+c.Cert, "GW_KEY="+c.Key)
	serve(t, cmd, listens("127.0.0.1:"+port))
	return srv.withBucket(t)
}
