package cache

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/budget"
	"glanced/backends/stored"
)

// folderBytes is what all files below dir take, allocated.
func folderBytes(t testing.TB, dir string) (n int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := os.Lstat(path)
		if err == nil {
			n += st.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestACachedFarStoreIsAStore(t *testing.T) {
	cached := func(t testing.TB, far *backendtest.Far) backends.Store {
		return wrapped{mustOpen(t, t.TempDir(), 40).Store(far, Limits{}), far}
	}
	backendtest.Suite{
		New: func(t testing.TB) backends.Store { return cached(t, backendtest.NewFar("far")) },
		Again: func(t testing.TB, s backends.Store) backends.Store {
			return cached(t, s.(wrapped).far.Again())
		},
		List: func(t testing.TB, s backends.Store) []string { return s.(wrapped).far.List() },
		Copy: func(t testing.TB, s backends.Store, loc backends.Location) (backends.Store, backends.Location) {
			loc.Size, loc.Version = -1, ""
			return cached(t, s.(wrapped).far.Copy()), loc
		},
		Replace: func(t testing.TB, s backends.Store, loc backends.Location, content []byte) {
			s.(wrapped).far.Replace("k", content)
		},
		Big: 35*chunkSize + 4711, // most of the cache
	}.Run(t)
}

type wrapped struct {
	backends.Store
	far *backendtest.Far
}

func TestManyReadersOfAColdObjectFetchItOnce(t *testing.T) {
	far := backendtest.NewFar("far")
	far.Delay = func(backendtest.Op) time.Duration { return time.Millisecond }
	c := mustOpen(t, t.TempDir(), 200)
	s := c.Store(far, Limits{})
	loc, content := put(t, s, "cold", 12*chunkSize+1234)
	var readers sync.WaitGroup
	for i := range 200 {
		b := open(t, s, loc)
		readers.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 2 {
				off := r.IntN(len(content))
				wantRead(t, b, content, off, r.IntN(min(10*chunkSize, len(content)-off)))
			}
			wantRead(t, b, content, 0, len(content))
		})
	}
	readers.Wait()
	if n := far.Count(backendtest.OpRead); n.Bytes != int64(len(content)) {
		t.Errorf("%d bytes were fetched of an object of %d", n.Bytes, len(content))
	}
	settle(t, c)
	if got := c.Stats(); got.Chunks != 13 || got.FetchedBytes != int64(len(content)) || got.MemoryInUse != 0 || got.Unkept != 0 {
		t.Errorf("%+v", got)
	}
}

func TestNeighboursAreOneRequest(t *testing.T) {
	far := backendtest.NewFar("far")
	c := mustOpen(t, t.TempDir(), 200, func(cfg *Config) { cfg.Memory = budget.New(1 << 30) })
	s := c.Store(far, Limits{})
	loc, content := put(t, s, "cold", 160*chunkSize)
	b := open(t, s, loc)
	wantRead(t, b, content, 10*chunkSize+5, 20*chunkSize)
	if n := far.Count(backendtest.OpRead); n.Requests != 1 || n.Bytes != 21*chunkSize {
		t.Errorf("21 chunks came as %+v", n)
	}
	settle(t, c)
	wantRead(t, b, content, 0, 40*chunkSize) // before and after those
	if n := far.Count(backendtest.OpRead); n.Requests != 3 || n.Bytes != 40*chunkSize {
		t.Errorf("what was missing around them came as %+v", n)
	}
	wantRead(t, b, content, 40*chunkSize, 120*chunkSize)
	if n := far.Count(backendtest.OpRead); n.Requests != 5 { // of 4 MiB each at most
		t.Errorf("7.5 MiB came as %+v", n)
	}
}

func TestWhatIsCachedIsReadHere(t *testing.T) {
	far := backendtest.NewFar("far")
	dir := t.TempDir()
	c := mustOpen(t, dir, 40)
	s := c.Store(far, Limits{})
	loc, content := put(t, s, "warm", 20*chunkSize+100)
	b := open(t, s, loc)
	if _, ok := b.FileRange(0, 1); ok {
		t.Error("a range of what is not there")
	}
	wantRead(t, b, content, 0, len(content))
	settle(t, c)
	cost := far.Count(backendtest.OpRead)
	wantRead(t, b, content, 3, len(content)-3)

	r, ok := b.FileRange(5, 15*chunkSize)
	if !ok || r.Len != 15*chunkSize {
		t.Fatalf("a range of what is there: %+v, %v", r, ok)
	}
	p := make([]byte, r.Len)
	if _, err := r.File.ReadAt(p, r.Pos); err != nil || !bytes.Equal(p, content[5:5+15*chunkSize]) {
		t.Errorf("the file's range: %v, or other bytes", err)
	}
	r.Release()
	whole, ok := b.WholeFile()
	if !ok || whole.Len != int64(len(content)) {
		t.Fatalf("the whole file: %+v, %v", whole, ok)
	}
	if p, err := os.ReadFile(whole.File.Name()); err != nil || !bytes.Equal(p, content) {
		t.Errorf("the whole file: %v, or other bytes", err)
	}
	whole.Release()
	if now := far.Count(backendtest.OpRead); now != cost {
		t.Errorf("what is cached cost %+v requests, then %+v", cost, now)
	}

	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = mustOpen(t, dir, 40)
	s = c.Store(far, Limits{})
	b = open(t, s, loc)
	if _, ok := b.FileRange(0, 1); ok {
		t.Error("a range of what nobody has looked at since the start")
	}
	wantRead(t, b, content, 0, len(content))
	if _, ok := b.FileRange(0, 1); !ok {
		t.Error("no range of what was looked at")
	}
	if now := far.Count(backendtest.OpRead); now != cost {
		t.Errorf("after a restart, what is cached cost %+v requests, then %+v", cost, now)
	}
	if used, disk := c.Stats().UsedBytes, onDisk(t, c); used != disk {
		t.Errorf("%d bytes are used on disk, and %d are counted", disk, used)
	}
}

func TestACompleteFileIsWholeAgainAfterARestart(t *testing.T) {
	far := backendtest.NewFar("far")
	dir := t.TempDir()
	c := mustOpen(t, dir, 40)
	loc, content := put(t, far, "warm", 20*chunkSize+100)
	wantRead(t, open(t, c.Store(far, Limits{}), loc), content, 0, len(content))
	c.Close()
	c = mustOpen(t, dir, 40)
	b := open(t, c.Store(far, Limits{}), loc)
	waitFor(t, "the file to be looked at", func() bool {
		whole, ok := b.WholeFile()
		if ok {
			whole.Release()
		}
		return ok
	})
	if n := far.Count(backendtest.OpRead); n.Bytes != int64(len(content)) {
		t.Errorf("it was fetched again: %+v", n)
	}
}

func TestAWarmReadAllocatesNothing(t *testing.T) {
	far := backendtest.NewFar("far")
	c := mustOpen(t, t.TempDir(), 40)
	loc, content := put(t, far, "warm", 20*chunkSize)
	b := open(t, c.Store(far, Limits{}), loc)
	wantRead(t, b, content, 0, len(content))
	settle(t, c)
	p := make([]byte, 3*chunkSize)
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { b.ReadAt(ctx, p, 1000) }); n > 0 {
		t.Errorf("a read allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		r, _ := b.FileRange(1000, 3*chunkSize)
		r.Release()
	}); n >= 1 && !raceEnabled {
		t.Errorf("a range allocates %v times", n)
	}
}

func TestWhatHasNoIdentityOrIsLocalIsNotCached(t *testing.T) {
	c := mustOpen(t, t.TempDir(), 40)
	u := c.Upstream(Limits{})
	for name, b := range map[string]stored.Bytes{"without identity": fake{size: 10}, "empty": fake{id: "x"}, "local": local{fake{id: "x", size: 10}}} {
		if c.Bytes(b, u) != b {
			t.Errorf("%s: it is cached", name)
		}
	}
}

type fake struct {
	stored.Bytes
	id   stored.Identity
	size int64
}

func (f fake) Identity() stored.Identity { return f.id }
func (f fake) Size() int64               { return f.size }

type local struct{ fake }

func (local) FileRange(off, n int64) (stored.FileRange, bool) { return stored.FileRange{}, false }

func TestAChangedObjectIsDroppedAndSaysSo(t *testing.T) {
	for name, change := range map[string]func(*backendtest.Far, backends.Store, backends.Location, *reader) error{
		"at a fetch": func(far *backendtest.Far, _ backends.Store, _ backends.Location, b *reader) error {
			far.Replace("k", backendtest.Noise(9, 30*chunkSize))
			return b.ReadAt(t.Context(), make([]byte, 1), 29*chunkSize)
		},
		"at a fetch of a second opening": func(far *backendtest.Far, s backends.Store, loc backends.Location, _ *reader) error {
			far.Replace("k", backendtest.Noise(9, 30*chunkSize))
			again := open(t, s, loc)
			defer again.Close()
			return again.ReadAt(t.Context(), make([]byte, 1), 29*chunkSize)
		},
		"at a look": func(far *backendtest.Far, s backends.Store, loc backends.Location, _ *reader) error {
			far.Replace("k", backendtest.Noise(9, 30*chunkSize))
			_, err := s.Stat(t.Context(), loc)
			return err
		},
		"at a deletion": func(far *backendtest.Far, s backends.Store, loc backends.Location, _ *reader) error {
			err := s.Delete(t.Context(), loc)
			if err == nil {
				err = stored.ErrChanged
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			far := backendtest.NewFar("far")
			c := mustOpen(t, t.TempDir(), 40)
			s := c.Store(far, Limits{})
			loc, content := put(t, s, "k", 30*chunkSize)
			b := open(t, s, loc)
			wantRead(t, b, content, 0, 10*chunkSize)
			settle(t, c)
			held, ok := b.FileRange(chunkSize, chunkSize)
			if !ok {
				t.Fatal("no range")
			}
			if err := change(far, s, loc, b); !errors.Is(err, stored.ErrChanged) {
				t.Fatalf("%v", err)
			}
			if err := b.ReadAt(t.Context(), make([]byte, 1), chunkSize); !errors.Is(err, stored.ErrChanged) && !errors.Is(err, stored.ErrNotFound) {
				t.Errorf("what was cached still reads: %v", err)
			}
			p := make([]byte, chunkSize)
			if _, err := held.File.ReadAt(p, held.Pos); err != nil || !bytes.Equal(p, content[chunkSize:2*chunkSize]) {
				t.Errorf("what is held: %v, or other bytes", err)
			}
			held.Release()
			b.Close()
			waitFor(t, "the files to go", func() bool {
				c.tidy()
				return onDisk(t, c) == 0 && c.Stats().UsedBytes == 0
			})
			if n := len(c.List()); n != 0 {
				t.Errorf("%d objects are known still", n)
			}
		})
	}
}

func TestAFolderIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	c := mustOpen(t, dir, 40)
	if _, err := Open(Config{Dir: dir, Size: 1 << 30}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("a second cache in one folder: %v", err)
	}
	c.Close()
	mustOpen(t, dir, 40)
}

func TestWhatMakesNoSenseIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"chunks of no power of two": func(c *Config) { c.ChunkSize = 100 << 10 },
		"chunks too large":          func(c *Config) { c.ChunkSize = 2 << 20 },
		"too small a cache":         func(c *Config) { c.Size = chunkSize },
		"too little memory":         func(c *Config) { c.Memory = budget.New(chunkSize) },
		"negative free space":       func(c *Config) { c.MinFree = -1 },
	} {
		cfg := Config{Dir: t.TempDir(), Size: 1 << 30, ChunkSize: chunkSize}
		change(&cfg)
		if c, err := Open(cfg); err == nil {
			c.Close()
			t.Errorf("%s: it opens", name)
		}
	}
}

func TestFilesThatSomebodyRemovedAreFetchedAgain(t *testing.T) {
	far := backendtest.NewFar("far")
	var log logged
	c := mustOpen(t, t.TempDir(), 40, func(cfg *Config) { cfg.Log = log.logger() })
	s := c.Store(far, Limits{})
	loc, content := put(t, s, "a", 30*chunkSize)
	b := open(t, s, loc)
	wantRead(t, b, content, 0, len(content))
	settle(t, c)
	b.Close()
	if err := os.RemoveAll(b.o.dir); err != nil {
		t.Fatal(err)
	}
	b = open(t, s, loc)
	wantRead(t, b, content, 0, len(content))
	settle(t, c)
	loc, content = put(t, s, "b", 30*chunkSize) // evicts what is not there
	b = open(t, s, loc)
	for range 2 {
		wantRead(t, b, content, 0, len(content))
		settle(t, c)
	}
	if log.count("cannot be written to") != 0 {
		t.Error(log.text.String())
	}
}

func TestOnlyWhatIsOursIsRemovedAtTheStart(t *testing.T) {
	far := backendtest.NewFar("far")
	dir := t.TempDir()
	c := mustOpen(t, dir, 40)
	loc, content := put(t, far, "k", 30*chunkSize)
	wantRead(t, open(t, c.Store(far, Limits{}), loc), content, 0, len(content))
	c.Close()
	stale := filepath.Join(dir, "v1", strings.Repeat("ab", 32))
	foreign := []string{filepath.Join(dir, "notes"), filepath.Join(dir, "v1", "notes"), filepath.Join(stale, "notes")}
	if err := os.Mkdir(stale, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(foreign, filepath.Join(stale, dataName)) {
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c = mustOpen(t, dir, 20) // a smaller one
	for _, path := range foreign {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(stale, dataName)); err == nil {
		t.Error("a stale file of ours stays")
	}
	s := c.Stats()
	if s.UsedBytes > s.SizeBytes || s.Chunks == 0 {
		t.Errorf("%+v", s)
	}
	c.Close()
	if c = mustOpen(t, dir, 40, func(cfg *Config) { cfg.ChunkSize *= 2 }); c.Stats().UsedBytes != 0 {
		t.Errorf("chunks of another size are kept: %+v", c.Stats())
	}
}

// A store that is away takes nothing with it that is cached, not even over a restart.
func TestASecondOpeningAsksForNothingThatIsCached(t *testing.T) {
	dir := t.TempDir()
	far := backendtest.NewFar("far")
	c := mustOpen(t, dir, 32)
	s := c.Store(far, Limits{})
	loc, content := put(t, s, "key", 8*chunkSize)
	b := open(t, s, loc)
	wantRead(t, b, content, 0, 4*chunkSize)
	settle(t, c)
	b.Close()
	c.Close()

	away := false
	far.Fail = func(backendtest.Op) error {
		if away {
			return backends.ErrUnavailable
		}
		return nil
	}
	c = mustOpen(t, dir, 32)
	s = c.Store(far, Limits{})
	asked := far.Count(backendtest.OpOpen).Requests
	away = true
	b = open(t, s, loc)
	wantRead(t, b, content, 100, 3*chunkSize)
	if n := far.Count(backendtest.OpOpen).Requests; n != asked {
		t.Errorf("the store was asked %d times", n-asked)
	}
	p := make([]byte, 10)
	if err := b.ReadAt(t.Context(), p, 6*chunkSize); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("what is not cached: %v", err)
	}
	if _, err := s.Open(t.Context(), backends.Location{Store: loc.Store, URL: loc.URL, Size: loc.Size, Version: "another"}); !errors.Is(err, backends.ErrUnavailable) {
		t.Errorf("another version of it: %v", err)
	}
	away = false
	wantRead(t, b, content, 5*chunkSize, 2*chunkSize)

	// What the store has there is not what is cached, and no longer to be had.
	far.Replace("key", bytes.Repeat([]byte("x"), len(content)))
	again := open(t, s, loc)
	wantRead(t, again, content, 0, chunkSize)
	if err := again.ReadAt(t.Context(), p, 7*chunkSize+100); err == nil {
		if !bytes.Equal(p, content[7*chunkSize+100:][:10]) {
			t.Error("other bytes")
		}
	} else if !errors.Is(err, backends.ErrChanged) {
		t.Errorf("after the swap: %v", err)
	}
}
