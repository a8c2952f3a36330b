package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"glanced/contrib/testbed"
)

// Fifty compressed images are read at once through a budget of 64 MiB: the whole
// process, its program's pages counted, stays within that. Read once more, they are kept
// decoded as far as the budget goes.
func TestFiftyImagesAtOnceStayWithinTheBudget(t *testing.T) {
	testbed.Need(t, "nbdcopy", "libnbd-bin")
	testbed.Need(t, "qemu-img", "qemu-utils")
	const images, budget = 50, 64 << 20
	dir := t.TempDir()
	config := filepath.Join(dir, "glanced.toml")
	text := fmt.Sprintf("data_dir = %q\n[memory]\nbudget = \"%dMiB\"\n[fuse]\nmountpoint = \"\"\n", dir, budget>>20)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startDaemon(t, dir, "--config", config)

	// Together they decode to 200 MiB.
	plain := make([]byte, 4<<20)
	rand.New(rand.NewSource(1)).Read(plain)
	for i := range plain {
		plain[i] &= 15
	}
	raw, qcow2 := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.qcow2")
	if err := os.WriteFile(raw, plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, qcow2).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v\n%s", err, out)
	}
	data, err := os.ReadFile(qcow2)
	if err != nil {
		t.Fatal(err)
	}
	var uris []string
	for i := range images {
		status, img := p.call("POST", "/v2/images", "application/json", strings.NewReader(
			fmt.Sprintf(`{"name":"image %d","disk_format":"qcow2","container_format":"bare"}`, i)))
		if status != http.StatusCreated {
			t.Fatalf("create: %d %v", status, img)
		}
		id := img["id"].(string)
		if status, v := p.call("PUT", "/v2/images/"+id+"/file", "application/octet-stream", bytes.NewReader(data)); status != http.StatusNoContent {
			t.Fatalf("upload: %d %v", status, v)
		}
		uris = append(uris, "nbd+unix:///"+id+"?socket="+filepath.Join(dir, "nbd.sock"))
	}
	read := func(sizes ...int) (done chan struct{}) {
		var wg sync.WaitGroup
		for i, uri := range uris {
			wg.Go(func() {
				args := []string{"--connections=1", "--requests=16", "--request-size=" + strconv.Itoa(sizes[i%len(sizes)]), uri, "null:"}
				if out, err := exec.Command("nbdcopy", args...).CombinedOutput(); err != nil {
					t.Errorf("nbdcopy %v: %v\n%s", args, err, out)
				}
			})
		}
		done = make(chan struct{})
		go func() { wg.Wait(); close(done) }()
		return done
	}
	// In large pieces and in small ones, in order, many at once.
	done := read(4<<10, 64<<10, 256<<10)
	own, most := int64(0), int64(0)
	for reading := true; reading; {
		select {
		case <-done:
			reading = false
		default:
		}
		own = max(own, p.memory("RssAnon"))
		most = p.memory("VmHWM")
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("at most %d KiB, of which %d KiB are its own and the rest mapped files", most>>10, own>>10)
	if most > budget {
		t.Errorf("the daemon held %d KiB, of a budget of %d", most>>10, budget>>10)
	}
	<-read(64 << 10)
	p.wantWithin(budget + slack)
}

// memory is a line of the daemon's /proc/PID/status, in bytes; see proc(5).
func (p *process) memory(line string) int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for l := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				p.t.Fatal(err)
			}
			return n << 10
		}
	}
	p.t.Fatalf("no line %s in the status of the daemon", line)
	return 0
}
