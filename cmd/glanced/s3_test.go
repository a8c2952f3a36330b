package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/contrib/testbed"
)

// s3Config writes a configuration with a bucket as the default store, and a folder
// beside it.
func s3Config(t *testing.T, dir string, srv testbed.S3Server) string {
	t.Helper()
	secret := filepath.Join(dir, "s3.secret")
	config := filepath.Join(t.TempDir(), "glanced.toml")
	text := fmt.Sprintf(`data_dir = %q
[[stores]]
id = "far"
type = "s3"
default = true
endpoint = %q
bucket = %q
prefix = "images/"
access_key = %q
secret_key_file = "s3.secret"
part_size = "5MiB"
[[stores]]
id = "local"
type = "file"
path = "images"
`, dir, srv.Endpoint, srv.Bucket, srv.AccessKey)
	for path, text := range map[string]string{config: text, secret: srv.SecretKey} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return config
}

// bucketSite is a bucket as a site; parts are of 5 MiB.
func bucketSite(t *testing.T) (testbed.S3Server, site) {
	srv := testbed.S3(t)
	return srv, site{
		config: func(dir string) string { return s3Config(t, dir, srv) },
		images: func() (ids []string) {
			for _, name := range srv.List(t) {
				ids = append(ids, strings.TrimPrefix(name, "images/"))
			}
			slices.Sort(ids)
			return ids
		},
		left:    func() []string { return srv.List(t) },
		begun:   func(string) bool { return srv.Parts(t) > 0 },
		secrets: []string{srv.AccessKey, srv.SecretKey},
		noise:   13,
	}
}

func TestImagesInABucketAreServedByEveryDoor(t *testing.T) {
	srv, s := bucketSite(t)
	p, ids := servedByEveryDoor(t, s)
	for _, name := range srv.List(t) {
		if !strings.HasPrefix(name, "images/") {
			t.Errorf("in the bucket: %s", name)
		}
	}
	p.wantDeleted(s, ids...)
}

// A site's images lie in its bucket already, and its records have the keys in them.
func TestAnImageThatGlancePutIntoABucketIsServedAndDeleted(t *testing.T) {
	srv, s := bucketSite(t)
	p, id, content := servesWhatGlancePut(t, s, func(id string, content []byte) string {
		// Under the bucket's root, in parts of 10 MiB.
		srv.Delete(t, "images/"+id)
		srv.PutParts(t, id, content, 10<<20)
		return "s3://" + srv.AccessKey + ":" + srv.SecretKey + "@" + strings.TrimPrefix(srv.Endpoint, "http://") + "/" + srv.Bucket + "/" + id
	})
	// Overwritten behind our back, what is cached is what was recorded; the rest is not
	// served, and the error has no keys.
	srv.PutParts(t, id, noise(4, 12<<20), 10<<20)
	p.wantServed(id, content)
	if status, v := p.call("DELETE", "/admin/cache/"+id, "", nil); status != http.StatusOK {
		t.Fatalf("evict: %d %v", status, v)
	}
	if status, _ := p.download(id); status != http.StatusServiceUnavailable {
		t.Errorf("overwritten: %d", status)
	}
	p.wantUntold(s.secrets...)
	srv.PutParts(t, id, content, 10<<20)
	p.wantServed(id, content)
	p.wantDeleted(s, id)
}

func TestAKillInAnUploadToABucketLeavesNothingThere(t *testing.T) {
	_, s := bucketSite(t)
	leavesNothingOfAKilledUpload(t, s)
}

func TestACheckSaysWhatIsWrongWithABucket(t *testing.T) {
	srv, s := bucketSite(t)
	for name, c := range map[string]struct {
		change func(*testbed.S3Server)
		want   string // "" = nothing is wrong
	}{
		"nothing":         {func(*testbed.S3Server) {}, ""},
		"a wrong secret":  {func(s *testbed.S3Server) { s.SecretKey += "x" }, "check access_key"},
		"no bucket":       {func(s *testbed.S3Server) { s.Bucket += "-x" }, "the bucket is not there"},
		"nobody is there": {func(s *testbed.S3Server) { s.Endpoint = "http://127.0.0.1:1" }, "connection refused"},
	} {
		wrong := srv
		c.change(&wrong)
		t.Run(name, func(t *testing.T) {
			aCheckSays(t, func(dir string) string { return s3Config(t, dir, wrong) }, c.want, wrong.AccessKey, wrong.SecretKey)
		})
	}
	if left := s.left(); len(left) > 0 {
		t.Errorf("left in the bucket: %v", left)
	}
}
