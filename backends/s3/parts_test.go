package s3

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"testing"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/contrib/testbed"
)

const maxPart = 5 << 30 // S3's own limit

func TestTenThousandPartsHoldTheLargestObject(t *testing.T) {
	for _, least := range []int64{minPart, defaultPart, maxMemory} {
		for _, size := range []int64{-1, 1, least, least + 1, 100 << 30, 1<<40 + 1, maxObject - 1, maxObject} {
			end := size
			if size < 0 {
				end = maxObject
			}
			n, parts := int64(0), 0
			for ; n < end; parts++ {
				p := partLen(least, size, n)
				if p < least || p > maxPart {
					t.Fatalf("parts from %d, size %d: a part of %d bytes at %d", least, size, p, n)
				}
				n += p
			}
			if parts > maxParts {
				t.Errorf("parts from %d, size %d: %d parts", least, size, parts)
			}
		}
	}
}

// hashed is noise that is hashed while it is read.
func hashed(n int64) (r io.Reader, sum func() []byte) {
	h := sha256.New()
	return io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), n), h), func() []byte { return h.Sum(nil) }
}

func wantHash(t *testing.T, s backends.Store, loc backends.Location, want []byte) {
	t.Helper()
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	h := sha256.New()
	for off, buf := int64(0), make([]byte, 8<<20); off < b.Size(); off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), b.Size()-off)]
		if err := b.ReadAt(t.Context(), buf, off); err != nil {
			t.Fatal(err)
		}
		h.Write(buf)
	}
	if !bytes.Equal(h.Sum(nil), want) {
		t.Error("other bytes than were put")
	}
}

// A server that takes parts slower than they come must not have them pile up.
func TestAnUploadOfUnknownSizeHoldsSixtyFourMiB(t *testing.T) {
	p, srv := testbed.S3(t).Behind(t)
	cfg := on(srv)
	cfg.PartSize = defaultPart
	s := openStore(t, cfg)
	const size = 100 << 20
	body, sum := hashed(size)
	arrived := make(chan struct{}, 100)
	p.Set(testbed.Always("UploadPart", func(p *testbed.Proxy, w http.ResponseWriter, r *http.Request) bool {
		arrived <- struct{}{}
		return testbed.Hold(p, w, r)
	}))
	var was, is runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&was)
	type outcome struct {
		loc backends.Location
		err error
	}
	over := make(chan outcome, 1)
	go func() {
		loc, err := backendtest.Put(t.Context(), s, "k", body, -1)
		over <- outcome{loc, err}
	}()
	for range maxMemory / defaultPart { // as many are on their way, and no more fit
		<-arrived
	}
	runtime.GC()
	runtime.ReadMemStats(&is)
	if held := int64(is.HeapAlloc) - int64(was.HeapAlloc); held > maxMemory+8<<20 { // with Copy's buffer, and the proxy
		t.Errorf("%d MiB are held", held>>20)
	}
	s.memory.mu.Lock()
	if taken := cfg.Memory() - s.memory.free; taken != maxMemory {
		t.Errorf("%d MiB are accounted for", taken>>20)
	}
	s.memory.mu.Unlock()
	p.Release()
	o := <-over
	if o.err != nil {
		t.Fatal(o.err)
	}
	wantHash(t, s, o.loc, sum())
	if s.memory.free != cfg.Memory() {
		t.Errorf("%d bytes are still accounted for", cfg.Memory()-s.memory.free)
	}
}

// What memory has no room for is in a file until it is sent.
func TestPartsThatMemoryHasNoRoomForAreInFiles(t *testing.T) {
	srv := testbed.S3(t)
	for name, change := range map[string]func(*Config){
		"none":          func(c *Config) { c.UploadMemory = 1 },
		"for one":       func(c *Config) { c.UploadMemory = minPart },
		"they grow":     func(c *Config) { c.parts = func(number int, _ int64) int64 { return int64(number) * 6 << 20 } },
		"beyond memory": func(c *Config) { c.parts = func(int, int64) int64 { return maxMemory + 1 } },
	} {
		cfg := on(srv)
		cfg.UploadSpool = t.TempDir()
		change(&cfg)
		s := openStore(t, cfg)
		size := int64(30<<20 + 17)
		if name == "beyond memory" {
			size += maxMemory
		}
		body, sum := hashed(size)
		loc, err := backendtest.Put(t.Context(), s, "k", body, -1)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		wantHash(t, s, loc, sum())
		if err := s.Delete(t.Context(), loc); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(cfg.UploadSpool); err != nil || len(left) > 0 {
			t.Errorf("%s: left in the folder: %v, %v", name, left, err)
		}
		if s.memory.free != cfg.Memory() {
			t.Errorf("%s: %d bytes are still accounted for", name, cfg.Memory()-s.memory.free)
		}

		failed := errors.New("the client is gone")
		body, _ = hashed(size)
		_, err = backendtest.Put(t.Context(), s, "k", io.MultiReader(body, failing{failed}), -1)
		wantErr(t, name, err, failed)
		if s.memory.free != cfg.Memory() {
			t.Errorf("%s, aborted: %d bytes are still accounted for", name, cfg.Memory()-s.memory.free)
		}
		if left := srv.List(t); len(left) > 0 {
			t.Errorf("%s: left: %v", name, left)
		}
	}
	cfg := on(srv)
	cfg.UploadMemory, cfg.UploadSpool = 1, t.TempDir()+"/missing"
	_, err := backendtest.Put(t.Context(), openStore(t, cfg), "k", bytes.NewReader(make([]byte, 10)), -1)
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("upload_spool")) {
		t.Errorf("without a folder: %v", err)
	}
	if left := srv.List(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAnObjectThatIsTooLargeIsRefusedAtOnce(t *testing.T) {
	s := openStore(t, Config{Endpoint: "http://127.0.0.1:1", Bucket: "b"})
	_, err := s.Begin(t.Context(), "k", maxObject+1)
	wantErr(t, "6 TiB", err, backends.ErrFull)
}
