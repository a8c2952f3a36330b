package all

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"glanced/backends/file"
	"glanced/backends/s3"
	"glanced/backends/setting"
	"glanced/backends/swift"
)

func TestWhatOfAStoreIsReloaded(t *testing.T) {
	bucket := s3.Config{Endpoint: "https://s3.example.org", Bucket: "b", AccessKey: "a", SecretKey: "s"}
	elsewhere, rotated := bucket, bucket
	elsewhere.Bucket, elsewhere.Connections = "c", 5
	rotated.AccessKey, rotated.SecretKey = "a2", "s2"
	container := swift.Config{AuthURL: "https://keystone.example.org/v3", User: "u", Key: "k"}
	otherUser, otherAccount := container, container
	otherUser.User, otherUser.Key = "u2", "k2"
	otherAccount.Project = "p"
	folders := func(reserve setting.Bytes, paths ...string) *file.Config {
		c := &file.Config{Reserve: setting.Part{Bytes: reserve}}
		for _, p := range paths {
			c.Paths = append(c.Paths, file.Folder{Path: p})
		}
		return c
	}
	for name, c := range map[string]struct {
		typ     string
		was, is any
		fixed   []string
		reopens bool
	}{
		"nothing":          {"s3", &bucket, &bucket, nil, false},
		"another bucket":   {"s3", &bucket, &elsewhere, []string{"bucket", "connections"}, false},
		"other keys":       {"s3", &bucket, &rotated, nil, true},
		"another user":     {"swift", &container, &otherUser, nil, true},
		"another account":  {"swift", &container, &otherAccount, []string{"project"}, false},
		"one folder more":  {"file", &file.Config{Path: "/a"}, folders(0, "/b", "/a"), nil, true},
		"another folder":   {"file", folders(0, "/a", "/b"), folders(5, "/a", "/c"), []string{"paths", "reserve"}, false},
		"another reserve":  {"file", folders(0, "/a"), folders(5, "/a"), nil, true},
		"no folder at all": {"file", folders(0, "/a"), folders(0), []string{"paths"}, false},
	} {
		common := Common{ID: "x", Type: c.typ, Weight: 1}
		was, is := Config{common, c.was}, Config{common, c.is}
		is.Weight = 2
		next, fixed := is.Reloaded(was)
		if !slices.Equal(fixed, c.fixed) || next.Weight != 2 {
			t.Errorf("%s: fixed %v, want %v; weight %d", name, fixed, c.fixed, next.Weight)
		}
		if got := next.Reopens(was, was.Files()); got != c.reopens {
			t.Errorf("%s: opened anew %v", name, got)
		}
	}
	was, is := Config{Common{ID: "x", Type: "file"}, folders(0, "/a")}, Config{Common{ID: "x", Type: "s3"}, &bucket}
	if next, fixed := is.Reloaded(was); next.Type != "file" || next.Own != was.Own || !slices.Equal(fixed, []string{"type"}) {
		t.Errorf("another type: %+v, fixed %v", next, fixed)
	}
	web, err := New("http")
	if err != nil {
		t.Fatal(err)
	}
	other, err := New("http")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Below(func(path string) string { return "/x" + path }); err != nil {
		t.Fatal(err)
	}
	if next, fixed := other.Reloaded(web); len(fixed) == 0 || next.Reopens(web, web.Files()) {
		t.Errorf("a store that is opened once: fixed %v", fixed)
	}
}

func TestAKeyFileThatChangesIsSeen(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	c := Config{Common{ID: "x", Type: "s3"}, &s3.Config{SecretKeyFile: key}}
	seen := map[string]bool{c.Files(): true}
	for _, text := range []string{"", "one", "two"} {
		if err := os.WriteFile(key, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if was := c.Files(); c.Reopens(c, was) {
			t.Error("it is opened anew, and nothing has changed")
		}
		seen[c.Files()] = true
	}
	if len(seen) != 3 { // one that is not there is as one that is empty
		t.Errorf("%d digests", len(seen))
	}
}
