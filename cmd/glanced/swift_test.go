package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/contrib/testbed"
)

// swiftConfig writes a configuration with a container as the default store. Images of
// more than 4 MiB are in segments of 2 MiB.
func swiftConfig(t *testing.T, dir string, srv testbed.SwiftServer) string {
	t.Helper()
	config := filepath.Join(t.TempDir(), "glanced.toml")
	text := fmt.Sprintf(`data_dir = %q
[[stores]]
id = "far"
type = "swift"
auth_url = %q
user = %q
key_file = "swift.key"
container = %q
large_object_size = "4MiB"
large_object_chunk_size = "2MiB"
`, dir, srv.AuthURL, srv.User, srv.Container)
	for path, text := range map[string]string{config: text, filepath.Join(dir, "swift.key"): srv.Key} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// containerSite is a container as a site.
func containerSite(t *testing.T) site {
	srv := testbed.Swift(t)
	return site{
		config: func(dir string) string { return swiftConfig(t, dir, srv) },
		images: func() (ids []string) { return swiftImages(t, srv) },
		left:   func() []string { return srv.List(t) },
		begun: func(id string) bool {
			return slices.ContainsFunc(srv.List(t), func(name string) bool { return strings.HasPrefix(name, id) })
		},
		secrets: []string{srv.Key},
		noise:   5,
	}
}

// swiftImages are the ids of the images of which a container has an object or a segment.
func swiftImages(t *testing.T, srv testbed.SwiftServer) (ids []string) {
	t.Helper()
	for _, name := range srv.List(t) {
		if srv.Has(t, name) { // Swift brings its listings up to date later
			id, _, _ := strings.Cut(name, "/")
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func TestImagesInAContainerAreServedByEveryDoor(t *testing.T) {
	s := containerSite(t)
	p, ids := servedByEveryDoor(t, s)
	p.wantDeleted(s, ids...)
}

func TestAKillInAnUploadToAContainerLeavesNothingThere(t *testing.T) {
	leavesNothingOfAKilledUpload(t, containerSite(t))
}
