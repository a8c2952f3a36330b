package cache

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/contrib/testbed"
)

func TestWhatIsDamagedIsFetchedAnewAndNeverServed(t *testing.T) {
	far := backendtest.NewFar("far")
	dir := t.TempDir()
	c := mustOpen(t, dir, 40)
	loc, content := put(t, far, "k", 7*chunkSize+100)
	b := open(t, c.Store(far, Limits{}), loc)
	wantRead(t, b, content, 0, len(content))
	settle(t, c)
	folder := b.o.dir
	c.Close()
	data, err := os.ReadFile(filepath.Join(folder, dataName))
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(folder, sumsName))
	if err != nil {
		t.Fatal(err)
	}
	again := func(what string, data, sums []byte, fetches int64) {
		t.Helper()
		for name, p := range map[string][]byte{dataName: data, sumsName: sums} {
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, name), p, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := Open(Config{Dir: dir, Size: 40 * chunkSize, ChunkSize: chunkSize, Log: new(logged).logger()})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer c.Close()
		before := far.Count(backendtest.OpRead).Bytes
		b := open(t, c.Store(far, Limits{}), loc)
		for range 2 {
			wantRead(t, b, content, 0, len(content))
			settle(t, c)
		}
		if got := far.Count(backendtest.OpRead).Bytes - before; fetches >= 0 && got != fetches {
			t.Errorf("%s: %d bytes were fetched, not %d", what, got, fetches)
		}
		b.Close()
	}
	again("as it was", data, sums, 0)

	// Every prefix of the sums, as one that was cut off, and as one whose rest is zeros.
	for n := range len(sums) {
		if n < headerSize-8 && n%97 != 0 {
			continue // as the others within the header
		}
		torn := append(bytes.Clone(sums[:n]), make([]byte, len(sums)-n)...)
		want := int64(-1)
		if n <= headerSize {
			want = int64(len(content))
		}
		again("sums cut off", data, sums[:n], want)
		again("sums torn", data, torn, want)
	}
	for i := headerSize; i < len(sums); i++ {
		bent := bytes.Clone(sums)
		bent[i] ^= 0x10
		want := int64(chunkSize)
		if i >= headerSize+7*recordSize {
			want = 100
		}
		again("a record bent", data, bent, want)
	}
	swapped := bytes.Clone(sums)
	copy(swapped[headerSize:], sums[headerSize+recordSize:headerSize+2*recordSize])
	copy(swapped[headerSize+recordSize:], sums[headerSize:headerSize+recordSize])
	again("records swapped", data, swapped, 2*chunkSize)

	bent := bytes.Clone(data)
	bent[3*chunkSize+77] ^= 1
	again("a bit of the data", bent, sums, chunkSize)
	bent[5*chunkSize+77] ^= 1
	again("two bits of the data", bent, sums, 3*chunkSize)
	lost := bytes.Clone(data)
	clear(lost[2*chunkSize-block:])
	again("the rest of the data did not make it", lost, sums, int64(len(data)-chunkSize))
	again("the data was cut off", data[:len(data)-1], sums, int64(len(data)))
	again("the data is longer", append(bytes.Clone(data), 0), sums, int64(len(data)))
}

func FuzzSums(f *testing.F) {
	h := header{chunk: chunkSize, size: 10*chunkSize + 5, id: "some", place: "where"}
	r := record(sumOf([]byte(h.id)), 0, 77)
	f.Add(append(h.encode(), r[:]...))
	f.Add(h.encode()[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		first := b[:min(len(b), headerSize)]
		if len(first) == headerSize { // the fuzzer finds no checksum
			first = bytes.Clone(first)
			copy(first, sumsMagic)
			sum := sumOf(first[:headerSize-4])
			for i := range 4 {
				first[headerSize-4+i] = byte(sum >> (8 * i))
			}
		}
		h, err := parseHeader(first)
		if err != nil {
			return
		}
		if n := h.chunks(); n <= 0 || n > maxChunks || h.chunk*n < h.size || h.chunk*(n-1) >= h.size {
			t.Fatalf("%+v has %d chunks", h, n)
		}
		if again, err := parseHeader(h.encode()); err != nil || again != h {
			t.Fatalf("%+v, then %+v, %v", h, again, err)
		}
		base := sumOf([]byte(h.id))
		parseRecords(base, 3, b[headerSize:], func(i, sum uint32) {
			at := int(i-3)*recordSize + headerSize
			if r := record(base, i, sum); !bytes.Equal(r[:], b[at:at+recordSize]) {
				t.Fatalf("a record of chunk %d that nobody wrote", i)
			}
		})
	})
}

// tmpfs mounts one of so many bytes.
func tmpfs(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, options); err != nil {
		testbed.Unable(t, "cannot mount: "+err.Error()+"; run this test as root")
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

func TestAFullDiskTurnsTheCacheOffAndNotTheService(t *testing.T) {
	dir := tmpfs(t, "size=2m")
	far := backendtest.NewFar("far")
	var log logged
	c := mustOpen(t, dir, 200, func(cfg *Config) { cfg.Log = log.logger() }) // more than there is
	loc, content := put(t, far, "k", 60*chunkSize)
	b := open(t, c.Store(far, Limits{}), loc)
	for range 2 {
		wantRead(t, b, content, 0, len(content))
		settle(t, c)
	}
	if s := c.Stats(); s.Off == "" || log.count("cannot be written to") != 1 || s.Unkept == 0 || s.MemoryInUse != 0 {
		t.Errorf("%+v, and it warned %d times", s, log.count("cannot be written to"))
	}
	tryAgain := func() {
		c.files.Lock()
		c.writes.retry = time.Now()
		c.files.Unlock()
		wantRead(t, b, content, 0, len(content))
		settle(t, c)
	}
	tryAgain()
	if n := log.count("cannot be written to"); n != 1 {
		t.Errorf("as it stays full, it warned %d times", n)
	}
	// Room is made by others, and the disk is tried again.
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}
	tryAgain()
	if s := c.Stats(); s.Off != "" || s.Chunks != 60 || log.count("is written to again") != 1 {
		t.Errorf("with room: %+v", s)
	}
	if used, disk := c.Stats().UsedBytes, onDisk(t, c); used != disk {
		t.Errorf("%d bytes are used on disk, and %d are counted", disk, used)
	}
	// Read-only, what is there is still served.
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil && !errors.Is(err, unix.EBUSY) {
		t.Fatal(err)
	}
	wantRead(t, b, content, 0, len(content))
	wantRead(t, b, content, 0, len(content))
}

func TestTheFloorOfFreeSpaceIsKept(t *testing.T) {
	far := backendtest.NewFar("far")
	var log logged
	var others atomic.Int64 // what others leave free
	others.Store(1 << 40)
	dir := t.TempDir()
	c := mustOpen(t, dir, 200, func(cfg *Config) {
		cfg.Log = log.logger()
		cfg.MinFree = 1 << 20
		cfg.free = func(dir string) (int64, error) { return others.Load() - folderBytes(t, dir), nil }
	})
	loc, content := put(t, far, "k", 60*chunkSize)
	b := open(t, c.Store(far, Limits{}), loc)
	wantRead(t, b, content, 0, 40*chunkSize)
	settle(t, c)
	others.Store(1<<20 + 20*chunkSize)
	c.tidy() // as it does from time to time
	if s := c.Stats(); s.UsedBytes > 20*chunkSize || s.Chunks < 16 {
		t.Errorf("after others took space: %+v", s)
	}
	wantRead(t, b, content, 0, len(content))
	settle(t, c)
	if used := onDisk(t, c); used > 20*chunkSize || used < 15*chunkSize {
		t.Errorf("%d bytes are used", used)
	}
	others.Store(1 << 19)
	wantRead(t, b, content, 0, len(content))
	wantRead(t, b, content, 0, len(content))
	settle(t, c)
	if s := c.Stats(); s.Chunks != 0 || s.Off == "" || log.count("nearly full") != 1 {
		t.Errorf("below the floor: %+v, and it warned %d times\n%s", s, log.count("nearly full"), log.text.String())
	}
	others.Store(1 << 40)
	wantRead(t, b, content, 0, len(content))
	settle(t, c)
	if s := c.Stats(); s.Chunks != 60 || s.Off != "" {
		t.Errorf("with room again: %+v", s)
	}
}

// A disk that fails is left alone for half a minute, though it would work again at once.
func TestADiskThatFailedIsTriedAgainLater(t *testing.T) {
	dir := tmpfs(t, "size=2m")
	var log logged
	inBubble(t, Limits{}, 64<<20, nil, func(t *testing.T, _ *Cache, far *backendtest.Far, _ backends.Store) {
		c := mustOpen(t, dir, 200, func(cfg *Config) { cfg.Log = log.logger() })
		loc, content := put(t, far, "k", 60*chunkSize)
		b := open(t, c.Store(far, Limits{}), loc)
		read := func() (kept int64) {
			before := c.Stats().Chunks
			wantRead(t, b, content, 0, len(content))
			synctest.Wait()
			return c.Stats().Chunks - before
		}
		read()
		failed := time.Now()
		if c.Stats().Off == "" {
			t.Fatal("a full disk is no fault")
		}
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
			t.Fatal(err)
		}
		for time.Since(failed) < retryAfter {
			if n := read(); n != 0 || c.Stats().Off == "" {
				t.Errorf("%v after it failed, %d chunks are written to it", time.Since(failed), n)
			}
			time.Sleep(retryAfter / 3)
		}
		if n := read(); n == 0 || c.Stats().Off != "" || c.Stats().Chunks != 60 {
			t.Errorf("%v after it failed: %+v", time.Since(failed), c.Stats())
		}
		if n := log.count("cannot be written to"); n != 1 {
			t.Errorf("it warned %d times", n)
		}
	})
}
