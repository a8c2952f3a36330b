package testbed

import (
	"os"
	"os/exec"
	"path/filepath"
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
	for _, program := range []string{"ceph-mon", "ceph-osd", "ceph"} {
		if _, err := exec.LookPath(program); err != nil {
			UnableFor(t, server, program+" is missing: run contrib/packages.sh full")
		}
	}
	// Not below t.TempDir, which may be too long for the path of a socket.
	dir, err := os.MkdirTemp("", "ceph-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	serve(t, exec.Command("bash", script("ceph.sh"), "run", dir, FreePort(t), FreePort(t)), func() bool {
		_, err := os.Stat(filepath.Join(dir, "ready"))
		return err == nil
	})
	return filepath.Join(dir, "ceph.conf")
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
