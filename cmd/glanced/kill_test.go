package main

import (
	"bytes"
	"context"
	"crypto/sha512"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"glanced/contrib/testbed"
)

// killRounds is how often the daemon is killed: GLANCED_KILL_ROUNDS, else a few.
func killRounds(t *testing.T) int {
	text := os.Getenv("GLANCED_KILL_ROUNDS")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("GLANCED_KILL_ROUNDS=%q: want a number", text)
	}
	return n
}

// killing is a daemon that is killed again and again, and what its clients know.
type killing struct {
	dir    string
	args   []string        // of the daemon
	stored func() []string // the images that the store has something of
	size   int             // of the largest image, bytes
	keep   int             // how many images are left to look at after the next kill

	mu       sync.Mutex
	promised map[string]string // images whose upload was answered with success, and their sha512
	gone     map[string]bool   // images whose deletion was
	finished atomic.Int64      // uploads of this round
	read     atomic.Int64      // images that were read while the daemon was killed
}

// The store is a folder, a bucket or a container; what is in the last two is read through
// a cache, which is written meanwhile.
func TestKilledAtAnyMomentNothingIsLostOrLeftOver(t *testing.T) {
	for name, start := range map[string]func(*testing.T, *killing){"folder": killingFolder, "bucket": killingBucket, "container": killingContainer} {
		t.Run(name, func(t *testing.T) {
			k := &killing{dir: t.TempDir(), promised: map[string]string{}, gone: map[string]bool{}}
			start(t, k)
			k.run(t)
		})
	}
}

func killingFolder(t *testing.T, k *killing) {
	k.size, k.keep = 1<<20, 30
	k.stored = func() (ids []string) {
		for _, path := range storedFiles(t, k.dir) {
			ids = append(ids, filepath.Base(path))
		}
		return ids
	}
}

// killingBucket has images of one part and of several.
func killingBucket(t *testing.T, k *killing) {
	srv := testbed.S3(t)
	k.size, k.keep, k.args = 12<<20, 8, []string{"--config", s3Config(t, k.dir, srv)}
	k.stored = func() (ids []string) {
		for _, name := range srv.List(t) {
			if strings.HasPrefix(name, "upload ") {
				// One that was begun, and killed before its claim was on record, holds no
				// bytes (contrib/decisions/0010).
				if srv.Parts(t) == 0 {
					continue
				}
			}
			ids = append(ids, strings.TrimPrefix(name, "images/"))
		}
		return ids
	}
}

// killingContainer has images of one object and of several segments.
func killingContainer(t *testing.T, k *killing) {
	srv := testbed.Swift(t)
	k.size, k.keep, k.args = 6<<20, 8, []string{"--config", swiftConfig(t, k.dir, srv)}
	k.stored = func() []string { return swiftImages(t, srv) }
}

// run kills the daemon, and looks at what the next one has.
func (k *killing) run(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for round := range killRounds(t) {
		p := startDaemon(t, k.dir, k.args...)
		k.check(p)
		if t.Failed() {
			t.Fatalf("after %d kills", round)
		}
		k.thinOut(p)
		ctx, stop := context.WithCancel(t.Context())
		k.finished.Store(0)
		var clients sync.WaitGroup
		for i := range 4 {
			r := rand.New(rand.NewPCG(seed, uint64(round*10+i+1)))
			clients.Go(func() { k.work(ctx, p, r) })
		}
		clients.Go(func() { k.reads(ctx, p) })
		if round%2 == 0 { // on a slow machine, the first uploads take their time
			for end := time.Now().Add(20 * time.Second); k.finished.Load() == 0 && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
		}
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		p.end(syscall.SIGKILL)
		stop()
		clients.Wait()
	}
	k.check(startDaemon(t, k.dir, k.args...))
	t.Logf("%d images kept, %d deleted, %d read", len(k.promised), len(k.gone), k.read.Load())
	if len(k.promised) == 0 || k.read.Load() == 0 {
		t.Error("no upload was finished in all rounds, or nothing was read: the test looked at nothing")
	}
}

// reads reads one image after the other until the daemon is gone: what comes whole is
// what was uploaded.
func (k *killing) reads(ctx context.Context, p *process) {
	for ctx.Err() == nil {
		k.mu.Lock()
		want := maps.Clone(k.promised)
		k.mu.Unlock()
		for id, sum := range want {
			status, body, err := p.try(ctx, "GET", "/v2/images/"+id+"/file", "", nil)
			if err != nil {
				return
			}
			if got := sha512.Sum512(body); status == http.StatusOK {
				k.read.Add(1)
				if hex.EncodeToString(got[:]) != sum {
					p.t.Errorf("image %s was read as other bytes", id)
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// work uploads, changes and deletes images until the daemon is gone, and notes
// what was answered: only that is promised.
func (k *killing) work(ctx context.Context, p *process, r *rand.Rand) {
	for ctx.Err() == nil {
		data := bytes.Repeat([]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}, r.IntN(k.size/3))
		status, body, err := p.try(ctx, "POST", "/v2/images", "application/json",
			strings.NewReader(`{"name":"k","disk_format":"raw","container_format":"bare"}`))
		if err != nil || status != http.StatusCreated {
			return
		}
		var img struct{ ID string }
		if json.Unmarshal(body, &img) != nil {
			return
		}
		var upload io.Reader = bytes.NewReader(data)
		if r.IntN(4) == 0 { // so that kills fall between its first byte and its last
			upload = &slow{bytes.NewReader(data)}
		}
		if status, _, err = p.try(ctx, "PUT", "/v2/images/"+img.ID+"/file", "application/octet-stream", upload); err != nil || status != http.StatusNoContent {
			return
		}
		sum := sha512.Sum512(data)
		k.mu.Lock()
		k.promised[img.ID] = hex.EncodeToString(sum[:])
		k.mu.Unlock()
		k.finished.Add(1)
		if r.IntN(2) == 0 {
			continue
		}
		k.mu.Lock()
		delete(k.promised, img.ID) // from here on it may be there or not
		k.mu.Unlock()
		if status, _, err = p.try(ctx, "DELETE", "/v2/images/"+img.ID, "", nil); err != nil || status != http.StatusNoContent {
			return
		}
		k.mu.Lock()
		k.gone[img.ID] = true
		k.mu.Unlock()
	}
}

// slow is a body that takes about a tenth of a second.
type slow struct{ body *bytes.Reader }

func (s *slow) Read(p []byte) (int, error) {
	time.Sleep(5 * time.Millisecond)
	return s.body.Read(p[:min(len(p), 1+int(s.body.Size()/20))])
}

// try is call for a daemon that may be killed meanwhile.
func (p *process) try(ctx context.Context, method, path, contentType string, body io.Reader) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path, body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := p.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// check holds a restarted daemon to what was promised before: every such image is whole,
// the deleted ones are gone, nothing is half there.
func (k *killing) check(p *process) {
	p.t.Helper()
	var images []map[string]any
	for next := "/v2/images?limit=1000"; next != ""; {
		_, page := p.call("GET", next, "", nil)
		for _, img := range page["images"].([]any) {
			images = append(images, img.(map[string]any))
		}
		next, _ = page["next"].(string)
	}
	found, active := map[string]bool{}, map[string]bool{}
	for _, img := range images {
		id := img["id"].(string)
		found[id] = true
		switch img["status"] {
		case "active":
			active[id] = true
			if err := p.wholeImage(id, fmt.Sprint(img["os_hash_value"])); err != nil {
				p.t.Error(err)
			}
			if want := k.promised[id]; want != "" && want != img["os_hash_value"] {
				p.t.Errorf("image %s has hash %v, %s was uploaded", id, img["os_hash_value"], want)
			}
		case "queued":
		default:
			p.t.Errorf("image %s is %v", id, img["status"])
		}
	}
	for id := range k.promised {
		if !active[id] {
			p.t.Errorf("image %s was uploaded, and is not active", id)
		}
	}
	for id := range k.gone {
		if found[id] {
			p.t.Errorf("image %s was deleted, and is there", id)
		}
	}
	for _, id := range k.stored() {
		if !active[id] {
			p.t.Errorf("%s is stored, and is of no active image", id)
		}
	}
	for what, query := range map[string]string{
		"claims are on record of uploads that have ended":    `SELECT count(*) FROM claims`,
		"locations are on record without size and version":   `SELECT count(*) FROM locations WHERE size < 0 OR version = ''`,
		"bytes are reserved for uploads that have ended":     `SELECT count(*) FROM images WHERE reserved <> 0`,
		"uploads that have ended are still on some node":     `SELECT count(*) FROM images WHERE node <> ''`,
		"locations are on record of images that are no more": `SELECT count(*) FROM locations JOIN images ON pk = image WHERE status <> 'active'`,
	} {
		if n := p.count(query); n != 0 {
			p.t.Errorf("%d %s", n, what)
		}
	}
}

// count asks the catalog's database, beside the daemon.
func (p *process) count(query string) (n int) {
	p.t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(p.dir, "catalog.db")+"?mode=ro&_busy_timeout=10000")
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(query).Scan(&n); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// thinOut deletes images until few are left to look at after the next kill: first
// those of which nothing is promised.
func (k *killing) thinOut(p *process) {
	p.t.Helper()
	_, page := p.call("GET", "/v2/images?limit=1000", "", nil)
	for _, img := range page["images"].([]any) {
		id := img.(map[string]any)["id"].(string)
		if _, kept := k.promised[id]; kept && len(k.promised) <= k.keep {
			continue
		}
		if status, v := p.call("DELETE", "/v2/images/"+id, "", nil); status != http.StatusNoContent {
			p.t.Fatalf("delete: %d %v", status, v)
		}
		delete(k.promised, id)
		k.gone[id] = true
	}
}

// wholeImage reads an image through the mount and compares its hash.
func (p *process) wholeImage(id, want string) error {
	f, err := os.Open(filepath.Join(p.dir, "mnt/images", id, "file"))
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha512.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return fmt.Errorf("image %s reads with hash %.16s…, its record says %.16s…", id, got, want)
	}
	return nil
}
