package main

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"glanced/contrib/distance"
	"glanced/contrib/testbed"
)

// mirror is a web server, some way off, with images that others keep.
type mirror struct {
	t     *testing.T
	root  string
	nginx *testbed.Nginx
}

// put publishes content: at once, and with a time of its own, for that is what nginx
// makes its ETags of.
func (m mirror) put(name string, content []byte, second int64) {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	err := os.WriteFile(path+".new", content, 0o644)
	if err == nil {
		at := time.Unix(1e9+second, 0)
		err = os.Chtimes(path+".new", at, at)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// noise is n bytes, the same for the same seed.
func noise(seed byte, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

// startWithMirror starts a daemon in dir that has a store of type http, and no cache.
func startWithMirror(t *testing.T, dir string) *process {
	t.Helper()
	config := filepath.Join(dir, "glanced.toml")
	if err := os.WriteFile(config, []byte(`
data_dir = "`+dir+`"
[[stores]]
id = "local"
type = "file"
path = "images"
default = true
[[stores]]
id = "mirror"
type = "http"
timeout = "5s"
[cache]
size = "0" # what is cached would be served while the server is away
`), 0o600); err != nil {
		t.Fatal(err)
	}
	return startDaemon(t, dir, "--config", config)
}

// glancectl runs the command-line client, and is its output.
func (p *process) glancectl(args ...string) string {
	p.t.Helper()
	path := filepath.Join(p.t.TempDir(), "glancectl")
	testbed.Run(p.t, "go", "build", "-o", path, "../glancectl")
	return strings.TrimSpace(testbed.Run(p.t, path, append([]string{"--socket", filepath.Join(p.dir, "control.sock")}, args...)...))
}

// register makes a raw image whose data stays at url.
func (p *process) register(name, url string) string {
	p.t.Helper()
	id := p.create(name, "public", nil)
	if status, v := p.call("PUT", "/admin/images/"+id+"/location", "application/json", strings.NewReader(fmt.Sprintf(`{"url":%q}`, url))); status != http.StatusNoContent {
		p.t.Fatalf("register: %d %v", status, v)
	}
	return id
}

func (p *process) awaitHash(id string, content []byte) {
	p.t.Helper()
	sum := sha512.Sum512(content)
	for {
		_, img := p.call("GET", "/v2/images/"+id, "", nil)
		if v, ok := img["os_hash_value"].(string); ok {
			if v != hex.EncodeToString(sum[:]) {
				p.t.Errorf("image %s is hashed as %s", id, v)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// wantGuest fails unless NBD and the mount serve this guest disk.
func (p *process) wantGuest(id string, want []byte) {
	p.t.Helper()
	out := filepath.Join(p.t.TempDir(), "copy")
	testbed.Run(p.t, "nbdcopy", p.export(id), out)
	for door, path := range map[string]string{"NBD": out, "the mount": filepath.Join(p.dir, "mnt/images", id, "disk")} {
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			p.t.Errorf("%s: %d bytes, %v", door, len(got), err)
		}
	}
}

// wantNoData fails unless every door refuses an image's data: HTTP with 503, the mount
// with EIO, NBD in its handshake. f is a file of the mount that was open before.
func (p *process) wantNoData(id string, f *os.File, off int64) {
	p.t.Helper()
	var doors sync.WaitGroup
	doors.Go(func() {
		if status, body := p.download(id); status != http.StatusServiceUnavailable {
			p.t.Errorf("HTTP: %d, %d bytes", status, len(body))
		}
	})
	doors.Go(func() {
		if n, err := f.ReadAt(make([]byte, 4096), off); !errors.Is(err, syscall.EIO) {
			p.t.Errorf("the mount: %d bytes, %v", n, err)
		}
	})
	doors.Go(func() {
		if out, err := exec.Command("nbdcopy", p.export(id), filepath.Join(p.t.TempDir(), "copy")).CombinedOutput(); err == nil {
			p.t.Errorf("NBD: copied %s", out)
		}
	})
	doors.Wait()
}

// openMounted opens an image's disk in the mount, past the page cache: the kernel makes
// a read that fails twice there, once as its read-ahead.
func (p *process) openMounted(id string) *os.File {
	p.t.Helper()
	f, err := os.OpenFile(filepath.Join(p.dir, "mnt/images", id, "disk"), os.O_RDONLY|syscall.O_DIRECT, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { f.Close() })
	return f
}

func TestImagesOfOthersAreServedFromWhereTheyLie(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	testbed.Need(t, "nbdcopy", "libnbd-bin")
	root, work, dir := t.TempDir(), t.TempDir(), t.TempDir()
	m := mirror{t, root, testbed.NewNginx(t, root, "")}
	away, err := distance.Listen(strings.TrimPrefix(m.nginx.URL, "http://"), 20*time.Millisecond, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer away.Close()
	url := "http://" + away.Addr()
	disk, plain, cold := noise(1, 8<<20), noise(2, 4<<20+512), noise(3, 32<<20)
	clear(disk[3<<20 : 5<<20])
	if err := os.WriteFile(filepath.Join(work, "disk.raw"), disk, 0o600); err != nil {
		t.Fatal(err)
	}
	testbed.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", filepath.Join(work, "disk.raw"), filepath.Join(work, "disk.qcow2"))
	packed, err := os.ReadFile(filepath.Join(work, "disk.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	m.put("disk.qcow2", packed, 1)
	m.put("plain.raw", plain, 2)
	m.put("cold.raw", cold, 3)

	p := startWithMirror(t, dir)
	qcow2 := p.glancectl("image", "create", "--name", "mirrored", "--disk-format", "qcow2", "--location", url+"/disk.qcow2", "--store", "mirror", "-f", "value", "-c", "id")
	raw := p.register("plain", url+"/plain.raw")
	far := p.register("cold", url+"/cold.raw?signature=s3cret")
	p.wantGuest(qcow2, disk)
	if status, got := p.download(qcow2); status != http.StatusOK || !bytes.Equal(got, packed) {
		t.Errorf("HTTP: %d, %d bytes of %d, or others", status, len(got), len(packed))
	}
	p.wantServed(raw, plain)
	p.awaitHash(qcow2, packed)
	p.awaitHash(raw, plain)
	p.awaitHash(far, cold)
	if left := storedFiles(t, dir); len(left) > 0 {
		t.Errorf("stored here: %v", left)
	}

	// Another object takes the place of one that is being read.
	f := p.openMounted(far)
	piece := make([]byte, 4096)
	if _, err := f.ReadAt(piece, 0); err != nil || !bytes.Equal(piece, cold[:4096]) {
		t.Fatalf("the mount: %v, or other bytes", err)
	}
	m.put("cold.raw", noise(4, len(cold)), 4)
	p.wantNoData(far, f, 30<<20)
	if log := p.log.String(); !strings.Contains(log, "not what the image's record says") || !strings.Contains(log, far) || strings.Contains(log, "s3cret") {
		t.Errorf("the log does not say so, or says too much:\n%s", log)
	}
	m.put("cold.raw", cold, 3)
	p.wantServed(far, cold)

	// The server goes, and comes back.
	m.put("late.raw", plain, 5)
	late := p.register("late", url+"/late.raw")
	g := p.openMounted(late)
	p.awaitHash(late, plain)
	m.nginx.Stop()
	p.wantNoData(late, g, 4<<20)
	m.nginx.Start()
	p.wantServed(late, plain)
	m.nginx.Stop()
	g.Close()
	f.Close()
	if err := p.end(syscall.SIGTERM); err != nil {
		t.Errorf("exit: %v\n%s", err, p.log)
	}
	p = startWithMirror(t, dir)
	for _, id := range []string{qcow2, raw, far, late} {
		if s := p.status(id); s != "active" {
			t.Errorf("with the server down, image %s is %q", id, s)
		}
	}
	m.nginx.Start()
	p.wantGuest(qcow2, disk)
	p.delete(qcow2)
	if _, err := os.Stat(filepath.Join(root, "disk.qcow2")); err != nil {
		t.Errorf("after the deletion: %v", err)
	}
}
