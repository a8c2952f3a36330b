package main

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"glanced/contrib/testbed"
)

// farStore is a [[stores]] table of a store behind a proxy.
type farStore struct {
	*testbed.Proxy
	read  string                            // what the proxy calls the requests that read
	table string                            // without default, weight
	files map[string]string                 // of the data folder: secrets
	put   func(name string, content []byte) // an object in the place of another
}

// uploads is what the uploads to one store may hold beside the budget, bytes.
const uploads = 8 << 20

func farS3(t *testing.T) farStore {
	proxy, srv := testbed.S3(t).Behind(t)
	return farStore{Proxy: proxy, read: "GetObject", files: map[string]string{"s3.secret": srv.SecretKey},
		table: fmt.Sprintf("type = \"s3\"\nendpoint = %q\nbucket = %q\naccess_key = %q\nsecret_key_file = \"s3.secret\"\npart_size = \"5MiB\"\nupload_memory = \"%dMiB\"\n", srv.Endpoint, srv.Bucket, srv.AccessKey, uploads>>20),
		put:   func(name string, content []byte) { srv.Put(t, name, content) }}
}

func farSwift(t *testing.T) farStore {
	proxy, srv := testbed.Swift(t).Behind(t)
	return farStore{Proxy: proxy, read: "GET object", files: map[string]string{"swift.key": srv.Key},
		table: fmt.Sprintf("type = \"swift\"\nauth_url = %q\nuser = %q\nkey_file = \"swift.key\"\ncontainer = %q\n", srv.AuthURL, srv.User, srv.Container),
		put:   func(name string, content []byte) { srv.Put(t, "", name, content, nil) }}
}

// configure writes a configuration of stores called a, b and so on, a the default and
// the first to be read, and with a section about the cache. It is the file's path.
func configure(t *testing.T, dir, cache string, stores ...farStore) string {
	t.Helper()
	text := fmt.Sprintf("data_dir = %q\n", dir)
	for i, s := range stores {
		text += fmt.Sprintf("[[stores]]\nid = %q\ndefault = %t\nweight = %d\n%s", string(rune('a'+i)), i == 0, 100-i, s.table)
		for name, secret := range s.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(secret), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	path := filepath.Join(t.TempDir(), "glanced.toml")
	if err := os.WriteFile(path, []byte(text+"[cache]\n"+cache), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const noCache = "size = \"0\"\n"

// stored makes a raw image in a store.
func (p *process) stored(store string, content []byte) string {
	p.t.Helper()
	id, status := p.uploadTo(store, content)
	if status != http.StatusNoContent {
		p.t.Fatalf("upload to %s: %d\n%s", store, status, p.log)
	}
	return id
}

// alsoAt has the data of another image of the same content be one more location of an
// image, and the other one be gone. The daemon does not run.
func (p *process) alsoAt(id, other string) {
	p.t.Helper()
	db, err := sql.Open("sqlite3", filepath.Join(p.dir, "catalog.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = db.Exec(`UPDATE locations SET image = (SELECT pk FROM images WHERE id = ?), position = 1 WHERE image = (SELECT pk FROM images WHERE id = ?)`, id, other)
	if err == nil {
		_, err = db.Exec(`DELETE FROM images WHERE id = ?`, other)
	}
	if err = errors.Join(err, db.Close()); err != nil {
		p.t.Fatal(err)
	}
}

// copyOut copies an image over NBD by many requests at once.
func (p *process) copyOut(id string) ([]byte, error) {
	out := filepath.Join(p.t.TempDir(), "copy")
	if text, err := exec.Command("nbdcopy", "--requests=32", p.export(id), out).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("nbdcopy: %w\n%s", err, text)
	}
	return os.ReadFile(out)
}

// An image lies in two stores, and the first one is cut off in the middle of a copy: it
// goes on from the other, with the same bytes or with none.
func TestACopyGoesOnFromTheOtherStore(t *testing.T) {
	testbed.Need(t, "nbdcopy", "libnbd-bin")
	folder := func(*testing.T) farStore { return farStore{table: "type = \"file\"\npath = \"images\"\n"} }
	for name, second := range map[string]func(*testing.T) farStore{"s3 and file": folder, "s3 and swift": farSwift} {
		t.Run(name, func(t *testing.T) {
			a, b, dir := farS3(t), second(t), t.TempDir()
			config := configure(t, dir, noCache, a, b)
			p := startDaemon(t, dir, "--config", config)
			content := noise(1, 24<<20)
			id := p.stored("a", content)
			other := p.stored("b", content)
			p.end(syscall.SIGTERM)
			p.alsoAt(id, other)
			p = startDaemon(t, dir, "--config", config)

			var read atomic.Int64
			a.Set(testbed.Always(a.read, func(proxy *testbed.Proxy, w http.ResponseWriter, r *http.Request) bool {
				return read.Add(1) > 4 && testbed.Truncate(proxy, w, r)
			}))
			if got, err := p.copyOut(id); err != nil || !bytes.Equal(got, content) {
				t.Errorf("cut off in the middle: %d bytes, or others: %v\n%s", len(got), err, p.log)
			}
			if read.Load() < 5 || !strings.Contains(p.log.String(), "trying its others") {
				t.Errorf("the first store was asked %d times, and the log does not say that another one is read:\n%s", read.Load(), p.log)
			}
			// The other one is not what was recorded: it is not read, and the first one is.
			overwrite := noise(2, len(content))
			if b.put != nil {
				b.put(other, overwrite)
			} else if err := os.WriteFile(filepath.Join(dir, "images", other), overwrite, 0o600); err != nil {
				t.Fatal(err)
			}
			a.Set(nil)
			if got, err := p.copyOut(id); err != nil || !bytes.Equal(got, content) {
				t.Errorf("when the other one has changed: %d bytes, or others: %v\n%s", len(got), err, p.log)
			}
			a.Set(testbed.Always(a.read, testbed.Answer(403, "")))
			if got, err := p.copyOut(id); err == nil {
				t.Errorf("with one store away, and the other changed, %d bytes were served; the image's: %v", len(got), bytes.Equal(got, content))
			}
		})
	}
}

// A store that never answers holds no more than its share: whoever reads from another
// one is served at every door, with little memory too.
func TestAHungStoreLeavesTheOtherStoresAlone(t *testing.T) {
	testbed.Need(t, "nbdcopy", "libnbd-bin")
	for name, cache := range map[string]string{"cached": "chunk_size = \"64KiB\"\n", "not cached": noCache} {
		t.Run(name, func(t *testing.T) {
			a, b, dir := farS3(t), farS3(t), t.TempDir()
			b.table = strings.Replace(b.table, "s3.secret", "b.secret", 1)
			b.files = map[string]string{"b.secret": b.files["s3.secret"]}
			p := startDaemon(t, dir, "--config", configure(t, dir, cache+fmt.Sprintf("[memory]\nbudget = \"%dMiB\"\n", scarce>>20), a, b))
			content := noise(1, 16<<20)
			hung, fine := p.stored("a", content), p.stored("b", content)
			if cache != noCache { // taking it in has read its head and tail
				p.call("DELETE", "/admin/cache/"+hung, "", nil)
				p.call("DELETE", "/admin/cache/"+fine, "", nil)
			}
			a.Set(testbed.Always(a.read, testbed.Hold))
			var readers sync.WaitGroup
			for range 6 {
				readers.Go(func() {
					// Those whose deadline has come have an error.
					if got, err := p.copyOut(hung); err == nil && !bytes.Equal(got, content) {
						t.Errorf("%d bytes, or others", len(got))
					}
				})
			}
			for end := time.Now().Add(time.Minute); a.Count(a.read) < 4; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("the hung store was asked %d times", a.Count(a.read))
				}
			}
			p.wantServed(fine, content)
			if got, err := p.copyOut(fine); err != nil || !bytes.Equal(got, content) {
				t.Errorf("NBD, beside it: %d bytes, or others: %v", len(got), err)
			}
			a.Release()
			readers.Wait()
			p.wantServed(hung, content)
			p.wantWithin(scarce + slack + 2*uploads)
		})
	}
}

// A cache disk that is full, or becomes so, costs the cache and not the service.
func TestAFullCacheDiskIsNoFault(t *testing.T) {
	testbed.Need(t, "nbdcopy", "libnbd-bin")
	disk := t.TempDir()
	if err := unix.Mount("none", disk, "tmpfs", 0, "size=6m"); err != nil {
		testbed.Unable(t, "cannot mount: "+err.Error()+"; run this test as root")
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	a, dir := farS3(t), t.TempDir()
	config := configure(t, dir, fmt.Sprintf("dir = %q\nsize = \"64MiB\"\nchunk_size = \"64KiB\"\nmin_free = \"0\"\n", filepath.Join(disk, "cache")), a)
	p := startDaemon(t, dir, "--config", config)
	content := noise(1, 16<<20)
	id := p.stored("a", content)
	for range 2 {
		p.wantServed(id, content)
		if got, err := p.copyOut(id); err != nil || !bytes.Equal(got, content) {
			t.Errorf("NBD: %d bytes, or others: %v\n%s", len(got), err, p.log)
		}
	}
	if n := strings.Count(p.log.String(), "the cache cannot be written to"); n != 1 {
		t.Errorf("the log says %d times that the cache is full:\n%s", n, p.log)
	}
	// Nothing can be made on it at all.
	p.end(syscall.SIGTERM)
	if err := errors.Join(os.RemoveAll(filepath.Join(disk, "cache")), unix.Mount("", disk, "", unix.MS_REMOUNT, "size=6m,nr_inodes=1")); err != nil {
		t.Fatal(err)
	}
	p = startDaemon(t, dir, "--config", config)
	p.wantServed(id, content)
	if !strings.Contains(p.log.String(), "cache.dir") {
		t.Errorf("the log does not say that there is no cache:\n%s", p.log)
	}
	p.end(syscall.SIGTERM)
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	p = startDaemon(t, dir, "--config", config)
	p.wantServed(id, content)
}
