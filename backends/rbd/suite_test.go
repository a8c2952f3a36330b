//go:build ceph

package rbd

import (
	"bytes"
	"os"
	"slices"
	"testing"

	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/setting"
	"glanced/contrib/testbed"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

// config is that of a store on a cluster of the testbed.
func config(srv testbed.RBDServer) Config {
	return Config{ID: "rbd", Pool: srv.Pool, User: srv.User, Conf: srv.Conf, Keyring: srv.Keyring}
}

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// openStore is a store that is closed when the test ends.
func openStore(t testing.TB, srv testbed.RBDServer) *Store {
	t.Helper()
	s := mustOpen(t, config(srv))
	t.Cleanup(func() { s.Close() })
	return s
}

// operator is client.admin in the cluster of the testbed: as fast as the library, where the
// programs of Ceph take a second each to start.
func operator(t testing.TB, srv testbed.RBDServer) *session {
	t.Helper()
	ses, err := connect(Config{User: "admin", Conf: srv.Admin, Pool: srv.Pool, Timeout: setting.Duration(defaultTimeout), Connections: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ses.retire)
	return ses
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// list names the objects in the pool, but for those that every pool for RBD has, and the
// images.
func list(t testing.TB, ses *session) (names []string) {
	t.Helper()
	must(t, ses.ioctx.ListObjects(func(name string) {
		if !slices.Contains([]string{"rbd_directory", "rbd_info", "rbd_trash", "rbd_children"}, name) {
			names = append(names, name)
		}
	}))
	images, err := librbd.GetImageNames(ses.ioctx)
	must(t, err)
	for _, name := range images {
		names = append(names, "image "+name)
	}
	return names
}

func TestContract(t *testing.T) {
	srv := testbed.RBD(t)
	admin := operator(t, srv)
	backendtest.Suite{
		Big:   17<<20 + 4711, // three RADOS objects
		New:   func(t testing.TB) backends.Store { return mustOpen(t, config(srv)) },
		Again: func(t testing.TB, s backends.Store) backends.Store { return mustOpen(t, config(srv)) },
		List:  func(t testing.TB, s backends.Store) []string { return list(t, admin) },
		Replace: func(t testing.TB, s backends.Store, loc backends.Location, content []byte) {
			l, err := parseLocation(loc.URL)
			must(t, err)
			replace(t, admin, l.image, content)
		},
	}.Run(t)
}

// replace puts other content in the place of an image, as an operator could: the image is
// put aside, and one of the other content gets its name. The content of the one put aside
// is put back by giving that its name again.
func replace(t testing.TB, admin *session, image string, content []byte) {
	t.Helper()
	aside := "aside-" + image
	id, err := idOf(admin, aside)
	must(t, err)
	if id == "" {
		must(t, librbd.GetImage(admin.ioctx, image).Rename(aside))
	} else {
		id, err := idOf(admin, image)
		must(t, err)
		must(t, removeSnapshots(admin, id))
		must(t, librbd.RemoveImage(admin.ioctx, image))
	}
	if bytes.Equal(contentOf(t, admin, aside), content) {
		must(t, librbd.GetImage(admin.ioctx, aside).Rename(image))
		return
	}
	options := librbd.NewRbdImageOptions()
	defer options.Destroy()
	must(t, librbd.CreateImage(admin.ioctx, image, uint64(len(content)), options))
	img, err := librbd.OpenImage(admin.ioctx, image, librbd.NoSnapshot)
	must(t, err)
	_, err = img.WriteAt(content, 0)
	must(t, err)
	must(t, protect(img))
	must(t, img.Close())
}

func contentOf(t testing.TB, admin *session, image string) []byte {
	t.Helper()
	img, err := librbd.OpenImageReadOnly(admin.ioctx, image, snapName)
	must(t, err)
	defer img.Close()
	size, err := img.GetSize()
	must(t, err)
	content := make([]byte, size)
	_, err = img.ReadAt(content, 0)
	must(t, err)
	return content
}
