package main

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"glanced/contrib/testbed"
)

// nodesConfig writes the configuration of one of several daemons that share a database
// and a store, with a data folder of its own.
func nodesConfig(t *testing.T, db testbed.PostgresDatabase, store string) (dir, config string) {
	t.Helper()
	dir, config = t.TempDir(), filepath.Join(t.TempDir(), "glanced.toml")
	text := fmt.Sprintf(`data_dir = %q
[catalog]
url = %q
password_file = "database.password"
lease = "3s"
[[stores]]
id = "shared"
default = true
%s`, dir, db.URL, store)
	for path, text := range map[string]string{config: text, filepath.Join(dir, "database.password"): db.Password + "\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, config
}

// becomes waits until an image has a status, "" = it is gone.
func (p *process) becomes(id, status string) {
	p.t.Helper()
	for end := time.Now().Add(30 * time.Second); p.status(id) != status; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("image %s stays %s, not %q\n%s", id, p.status(id), status, p.log)
		}
	}
}

// put uploads an image's data.
func (p *process) put(id string, data []byte) {
	p.t.Helper()
	if status, v := p.call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", bytes.NewReader(data)); status != http.StatusNoContent {
		p.t.Fatalf("upload: %d %v\n%s", status, v, p.log)
	}
}

// awaitStored waits until the store holds the objects of these images, and no others.
func awaitStored(t *testing.T, list func() []string, ids ...string) {
	t.Helper()
	slices.Sort(ids)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		var have []string
		for _, name := range list() {
			if name = filepath.Base(name); !strings.HasPrefix(name, ".") {
				have = append(have, name)
			}
		}
		slices.Sort(have)
		if slices.Equal(have, ids) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("in the store: %v; want %v", have, ids)
		}
	}
}

func TestTwoDaemonsShareADatabaseAndAStore(t *testing.T) {
	t.Run("file", func(t *testing.T) {
		folder := t.TempDir()
		testTwoDaemons(t, fmt.Sprintf("type = \"file\"\npath = %q\n", folder), func() (names []string) {
			all, err := os.ReadDir(folder)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range all {
				names = append(names, e.Name())
			}
			return names
		})
	})
	t.Run("s3", func(t *testing.T) {
		srv := testbed.S3(t)
		secret := filepath.Join(t.TempDir(), "s3.secret")
		if err := os.WriteFile(secret, []byte(srv.SecretKey), 0o600); err != nil {
			t.Fatal(err)
		}
		testTwoDaemons(t, fmt.Sprintf("type = \"s3\"\nendpoint = %q\nbucket = %q\naccess_key = %q\nsecret_key_file = %q\npart_size = \"5MiB\"\n",
			srv.Endpoint, srv.Bucket, srv.AccessKey, secret), func() []string { return srv.List(t) })
	})
}

func testTwoDaemons(t *testing.T, store string, list func() []string) {
	db := testbed.Postgres(t)
	dirA, configA := nodesConfig(t, db, store)
	dirB, configB := nodesConfig(t, db, store)
	a, b := startDaemon(t, dirA, "--config", configA), startDaemon(t, dirB, "--config", configB)

	// What one takes in, the other one serves.
	first := a.create("first", "public", noise(1, 3<<20))
	b.wantServed(first, noise(1, 3<<20))
	waitForLink(t, filepath.Join(dirB, "mnt", "by-name", "first"))

	// One dies in an upload: the other one takes over what it left.
	cut := a.create("cut", "public", nil)
	a.trickle(cut)
	a.end(syscall.SIGKILL)
	b.becomes(cut, "queued")
	b.put(cut, noise(2, 2<<20))
	b.wantServed(cut, noise(2, 2<<20))
	awaitStored(t, list, first, cut)

	// It comes back, and sees what was done meanwhile; each lets go of what the other deletes.
	a = startDaemon(t, dirA, "--config", configA)
	a.wantServed(cut, noise(2, 2<<20))
	waitForLink(t, filepath.Join(dirA, "mnt", "by-name", "cut"))
	b.delete(cut)
	a.becomes(cut, "")
	awaitStored(t, list, first)

	// One stalls in an upload, and wakes when the other one has taken the image in.
	stalled := a.create("stalled", "public", nil)
	a.trickle(stalled)
	a.cmd.Process.Signal(syscall.SIGSTOP)
	b.becomes(stalled, "queued")
	b.put(stalled, noise(3, 2<<20))
	a.cmd.Process.Signal(syscall.SIGCONT)
	waitForText(t, string(a.log), "another daemon has taken over")
	for _, p := range []*process{a, b} {
		p.wantServed(stalled, noise(3, 2<<20))
	}
	awaitStored(t, list, first, stalled)

	// The database ends their connections: they make new ones.
	db.Disconnect(t)
	last := a.create("last", "public", noise(4, 1<<20))
	waitForLink(t, filepath.Join(dirB, "mnt", "by-name", "last"))
	b.wantServed(last, noise(4, 1<<20))
	for _, p := range []*process{a, b} {
		if strings.Contains(p.log.String(), db.Password) {
			t.Error("the log tells the password")
		}
	}
}

func waitForLink(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatalf("not there after 30 s: %v", err)
		}
	}
}
