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
)

// killRounds is how often the daemon is killed: GLANCED_KILL_ROUNDS, else a few.
func killRounds(t *testing.T) int {
	text := os.Getenv("GLANCED_KILL_ROUNDS")
	if text == "" {
		return 4
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("GLANCED_KILL_ROUNDS=%q: want a number", text)
	}
	return n
}

func TestKilledAtAnyMomentNothingIsLostOrLeftOver(t *testing.T) {
	dir := t.TempDir()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	promised := map[string]string{} // images whose upload was answered with success, and their sha512
	gone := map[string]bool{}       // images whose deletion was
	for round := range killRounds(t) {
		p := startDaemon(t, dir)
		p.checkAfterKill(promised, gone)
		if t.Failed() {
			t.Fatalf("after %d kills", round)
		}
		p.thinOut(promised, gone)
		ctx, stop := context.WithCancel(t.Context())
		var mu sync.Mutex
		var finished atomic.Int64
		var clients sync.WaitGroup
		for i := range 4 {
			r := rand.New(rand.NewPCG(seed, uint64(round*10+i+1)))
			clients.Go(func() { p.work(ctx, r, &mu, &finished, promised, gone) })
		}
		if round%2 == 0 { // on a slow machine, the first uploads take their time
			for end := time.Now().Add(20 * time.Second); finished.Load() == 0 && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond)
			}
		}
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		p.end(syscall.SIGKILL)
		stop()
		clients.Wait()
	}
	startDaemon(t, dir).checkAfterKill(promised, gone)
	t.Logf("%d images kept, %d deleted", len(promised), len(gone))
	if len(promised) == 0 {
		t.Error("no upload was finished in all rounds: the test looked at nothing")
	}
}

// work uploads, changes and deletes images until the daemon is gone, and notes
// what was answered: only that is promised.
func (p *process) work(ctx context.Context, r *rand.Rand, mu *sync.Mutex, finished *atomic.Int64, promised map[string]string, gone map[string]bool) {
	for ctx.Err() == nil {
		data := bytes.Repeat([]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}, r.IntN(1<<20))
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
		mu.Lock()
		promised[img.ID] = hex.EncodeToString(sum[:])
		mu.Unlock()
		finished.Add(1)
		if r.IntN(2) == 0 {
			continue
		}
		mu.Lock()
		delete(promised, img.ID) // from here on it may be there or not
		mu.Unlock()
		if status, _, err = p.try(ctx, "DELETE", "/v2/images/"+img.ID, "", nil); err != nil || status != http.StatusNoContent {
			return
		}
		mu.Lock()
		gone[img.ID] = true
		mu.Unlock()
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

// checkAfterKill holds a restarted daemon to what was promised before: every
// such image is whole, the deleted ones are gone, nothing is half there.
func (p *process) checkAfterKill(promised map[string]string, gone map[string]bool) {
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
			if want := promised[id]; want != "" && want != img["os_hash_value"] {
				p.t.Errorf("image %s has hash %v, %s was uploaded", id, img["os_hash_value"], want)
			}
		case "queued":
		default:
			p.t.Errorf("image %s is %v", id, img["status"])
		}
	}
	for id := range promised {
		if !active[id] {
			p.t.Errorf("image %s was uploaded, and is not active", id)
		}
	}
	for id := range gone {
		if found[id] {
			p.t.Errorf("image %s was deleted, and is there", id)
		}
	}
	for _, path := range storedFiles(p.t, p.dir) {
		if !active[filepath.Base(path)] {
			p.t.Errorf("%s belongs to no active image", path)
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
func (p *process) thinOut(promised map[string]string, gone map[string]bool) {
	p.t.Helper()
	_, page := p.call("GET", "/v2/images?limit=1000", "", nil)
	for _, img := range page["images"].([]any) {
		id := img.(map[string]any)["id"].(string)
		if _, kept := promised[id]; kept && len(promised) <= 30 {
			continue
		}
		if status, v := p.call("DELETE", "/v2/images/"+id, "", nil); status != http.StatusNoContent {
			p.t.Fatalf("delete: %d %v", status, v)
		}
		delete(promised, id)
		gone[id] = true
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
