package cache

import (
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
)

// killRounds is how often the process is killed: GLANCED_KILL_ROUNDS, else a few.
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

// killDir is where a process that is to be killed has its cache.
const killDir = "GLANCED_TEST_CACHE_DIR"

func TestKilledAtAnyMomentNothingWrongIsServed(t *testing.T) {
	if dir := os.Getenv(killDir); dir != "" {
		readUntilKilled(t, dir)
	}
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kept := int64(0)
	for range killRounds(t) {
		child := exec.Command(self, "-test.run=^"+t.Name()+"$")
		child.Env = append(os.Environ(), killDir+"="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadFull(out, make([]byte, 1)) // it has begun
		time.Sleep(time.Duration(random.IntN(30_000)) * time.Microsecond)
		child.Process.Kill()
		said, _ := io.ReadAll(out)
		child.Wait()
		if end, ok := child.ProcessState.Sys().(syscall.WaitStatus); err != nil || !ok || !end.Signaled() {
			t.Fatalf("the process that reads ended before it was killed: %v\n%s", err, said)
		}

		c := mustOpen(t, dir, 20)
		// ext4 may have a block for the extents of each file that is in more than four
		// pieces, once it has written it out.
		if s, disk := c.Stats(), onDisk(t, c); disk < s.UsedBytes || disk > s.UsedBytes+2*block || s.UsedBytes > s.SizeBytes {
			t.Fatalf("%d bytes are used on disk: %+v", disk, s)
		}
		far := backendtest.NewFar("far")
		s := c.Store(far, Limits{})
		for _, key := range []string{"a", "b"} {
			loc, content := put(t, s, key, 15*chunkSize+999)
			b := open(t, s, loc)
			wantRead(t, b, content, 0, len(content))
			b.Close()
		}
		if n := c.Stats().Damaged; n > 0 {
			t.Errorf("%d chunks were damaged, with a disk that lost nothing", n)
		}
		kept += 2*(15*chunkSize+999) - far.Count(backendtest.OpRead).Bytes
		c.Close()
		if t.Failed() {
			t.FailNow()
		}
	}
	if kept == 0 {
		t.Error("nothing was ever found after a kill: the test looked at nothing")
	}
}

// readUntilKilled reads two objects that do not fit the cache together.
func readUntilKilled(t *testing.T, dir string) {
	c := mustOpen(t, dir, 20)
	s := c.Store(backendtest.NewFar("far"), Limits{})
	var readers sync.WaitGroup
	var begun sync.Once
	var locs [2]backends.Location
	var contents [2][]byte
	for i, key := range []string{"a", "b"} {
		locs[i], contents[i] = put(t, s, key, 15*chunkSize+999)
	}
	for i := range 4 {
		readers.Go(func() {
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
			b := open(t, s, locs[i%2])
			content := contents[i%2]
			for n := 0; !t.Failed(); n++ {
				off := r.IntN(len(content))
				wantRead(t, b, content, off, r.IntN(min(5*chunkSize, len(content)-off)))
				if n == 3 {
					begun.Do(func() { os.Stdout.Write([]byte{1}) })
				}
				if r.IntN(50) == 0 {
					c.Evict(b.Identity())
				}
			}
		})
	}
	readers.Wait()
	t.FailNow()
}
