//go:build ceph

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"glanced/contrib/testbed"
)

// cephConfig writes a configuration with a pool of a Ceph cluster as the default store.
func cephConfig(t *testing.T, dir string, srv testbed.RBDServer) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "glanced.toml")
	text := fmt.Sprintf(`data_dir = %q
[[stores]]
id = "far"
type = "rbd"
default = true
pool = %q
user = %q
conf = %q
keyring = %q
timeout = "10s"
[[stores]]
id = "local"
type = "file"
path = "images"
`, dir, srv.Pool, srv.User, srv.Conf, srv.Keyring)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config
}

// poolSite is a pool of a Ceph cluster as a site.
func poolSite(t *testing.T) (testbed.RBDServer, site) {
	srv := testbed.RBD(t)
	return srv, site{
		config: func(dir string) string { return cephConfig(t, dir, srv) },
		images: func() []string {
			return slices.Sorted(slices.Values(strings.Fields(srv.Run(t, "rbd", "ls", "--pool", srv.Pool))))
		},
		left: func() []string { return srv.List(t) },
		begun: func(string) bool {
			return slices.ContainsFunc(srv.List(t), func(name string) bool { return strings.HasPrefix(name, "image glanced-upload-") })
		},
		secrets: []string{srv.Key},
		noise:   13,
	}
}

func TestImagesInCephAreServedByEveryDoor(t *testing.T) {
	srv, s := poolSite(t)
	p, ids := servedByEveryDoor(t, s)
	// One that was cloned, as Nova does, keeps its bytes until its clone is gone, and the
	// daemon starts again.
	srv.Run(t, "rbd", "clone", srv.Pool+"/"+ids[0]+"@snap", srv.Pool+"/guest")
	for _, id := range ids {
		p.delete(id)
	}
	if got := s.images(); len(got) != 2 {
		t.Errorf("images in the pool: %v, want the clone and its parent", got)
	}
	srv.Run(t, "rbd", "rm", srv.Pool+"/guest")
	p.end(syscall.SIGTERM)
	p.again().wantDeleted(s)
}

// A site's images lie in its pool already, as Glance put them there.
func TestAnImageThatGlancePutIntoCephIsServedAndDeleted(t *testing.T) {
	srv, s := poolSite(t)
	p, id, _ := servesWhatGlancePut(t, s, func(id string, content []byte) string {
		srv.Remove(t, id)
		srv.Import(t, id, content)
		return "rbd://" + srv.FSID + "/" + srv.Pool + "/" + id + "/snap"
	})
	p.wantDeleted(s, id)
}

func TestAKillInAnUploadToCephLeavesNothingThere(t *testing.T) {
	_, s := poolSite(t)
	leavesNothingOfAKilledUpload(t, s)
}

func TestACheckSaysWhatIsWrongWithCeph(t *testing.T) {
	srv, s := poolSite(t)
	other := srv.NewPool(t)
	for name, c := range map[string]struct {
		change func(*testbed.RBDServer)
		want   string // "" = nothing is wrong
	}{
		"nothing":            {func(*testbed.RBDServer) {}, ""},
		"another user's key": {func(s *testbed.RBDServer) { s.Keyring = other.Keyring }, "keyring"},
		"no pool":            {func(s *testbed.RBDServer) { s.Pool += "-x" }, "there is no pool"},
	} {
		wrong := srv
		c.change(&wrong)
		t.Run(name, func(t *testing.T) {
			aCheckSays(t, func(dir string) string { return cephConfig(t, dir, wrong) }, c.want, s.secrets...)
		})
	}
	if left := s.left(); len(left) > 0 {
		t.Errorf("left in the pool: %v", left)
	}
}
