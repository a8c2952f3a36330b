package all

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/budget"
	"glanced/backends/cache"
	httpstore "glanced/backends/http"
	"glanced/backends/retry"
	"glanced/backends/s3"
	"glanced/backends/setting"
	"glanced/backends/stored"
	"glanced/backends/swift"
	"glanced/contrib/testbed"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

const (
	chunk   = 64 << 10
	segment = 1 << 20 // of Swift's large object: a read may be two requests
	span    = 150_000 // of one read: bytes that lie in several chunks
	step    = 200_000
)

// place is a store behind a proxy, and an object in it.
type place struct {
	*testbed.Proxy
	store   backends.Store // the driver alone: each call is one attempt
	read    string         // what the proxy calls the requests that read
	loc     backends.Location
	content []byte
	put     func(content []byte) // in the object's place, behind our back; as long
}

// places are one of each kind. They end with the test.
var places = map[string]func(*testing.T) *place{"s3": placeS3, "swift": placeSwift, "http": placeHTTP}

func placeS3(t *testing.T) *place {
	proxy, srv := testbed.S3(t).Behind(t)
	s, err := s3.Open(s3Config(srv))
	p := newPlace(t, proxy, s, err)
	p.read = "GetObject"
	p.upload(t)
	p.put = func(content []byte) { srv.Put(t, "k", content) }
	return p
}

func s3Config(srv testbed.S3Server) s3.Config {
	return s3.Config{ID: "s3", Endpoint: srv.Endpoint, Bucket: srv.Bucket, Region: srv.Region, AccessKey: srv.AccessKey,
		SecretKey: setting.Secret(srv.SecretKey), CAFile: srv.CAFile, PartSize: 5 << 20}
}

// placeSwift has its object in segments, the second of which is what put changes.
func placeSwift(t *testing.T) *place {
	proxy, srv := testbed.Swift(t).Behind(t)
	s, err := swift.Open(swift.Config{ID: "swift", AuthURL: srv.AuthURL, User: srv.User, Key: setting.Secret(srv.Key), Container: srv.Container,
		LargeObjectSize: segment, ChunkSize: segment})
	p := newPlace(t, proxy, s, err)
	p.read = "GET segment"
	p.upload(t)
	p.put = func(content []byte) {
		_, prefix, _ := strings.Cut(srv.Manifest(t, "k"), "/")
		srv.Put(t, "", prefix+"00002", content[segment:2*segment], nil)
	}
	return p
}

func placeHTTP(t *testing.T) *place {
	root := t.TempDir()
	proxy := testbed.NewProxy(t, testbed.Passing(t, testbed.NewNginx(t, root, "").URL), nil)
	cfg := httpstore.Defaults
	cfg.ID, cfg.Spool = "http", t.TempDir()
	s, err := httpstore.Open(cfg)
	p := newPlace(t, proxy, s, err)
	p.read = "GET"
	p.put = func(content []byte) { // nginx's versions are of size and time
		path, at := filepath.Join(root, "k"), time.Unix(1e9+int64(crc32.ChecksumIEEE(content)%5e8), 0)
		if err := errors.Join(os.WriteFile(path+".new", content, 0o644), os.Chtimes(path+".new", at, at), os.Rename(path+".new", path)); err != nil {
			t.Error(err)
		}
	}
	p.put(p.content)
	if p.loc, err = s.Stat(t.Context(), backends.Location{Store: "http", URL: proxy.URL + "/k", Size: -1}); err != nil {
		t.Fatal(err)
	}
	return p
}

func newPlace(t *testing.T, proxy *testbed.Proxy, s backends.Store, err error) *place {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &place{Proxy: proxy, store: s, content: backendtest.Noise(1, 4<<20)}
}

func (p *place) upload(t *testing.T) {
	t.Helper()
	var err error
	if p.loc, err = backendtest.Put(t.Context(), p.store, "k", bytes.NewReader(p.content), int64(len(p.content))); err != nil {
		t.Fatal(err)
	}
}

// How often a read is tried, and how long. No test waits for more than a hanging server
// costs.
var (
	once    = retry.Policy{Total: 1}
	short   = retry.Policy{Attempt: 300 * time.Millisecond, Total: 300 * time.Millisecond}
	patient = retry.Policy{Total: 10 * time.Minute, Pause: time.Millisecond, LongPause: 10 * time.Millisecond}
)

// reader is the object as p has it, each read tried as policy says, through c if there
// is one.
func (p *place) reader(t *testing.T, c *cache.Cache, policy retry.Policy) stored.Bytes {
	t.Helper()
	s := retry.Store(p.store, policy, patient)
	if c != nil {
		s = c.Store(s, cache.Limits{})
	}
	b, err := s.Open(t.Context(), p.loc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func openCache(t *testing.T, memory int64) *cache.Cache {
	t.Helper()
	c, err := cache.Open(cache.Config{Dir: t.TempDir(), Size: 64 << 20, ChunkSize: chunk, Memory: budget.NewOf(memory, cache.MemoryPart), Deadline: 10 * time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func waitFor(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

// wantRead reads what should be there.
func (p *place) wantRead(t *testing.T, when string, b stored.Bytes, off int) {
	t.Helper()
	got := make([]byte, span)
	if err := b.ReadAt(t.Context(), got, int64(off)); err != nil || !bytes.Equal(got, p.content[off:off+span]) {
		t.Errorf("%s: %v, or other bytes", when, err)
	}
}

// header changes one header of an answer.
func header(name string, change func(string) string) testbed.Fault {
	return testbed.Change(func(h http.Header, body []byte) []byte {
		h.Set(name, change(h.Get(name)))
		return body
	})
}

// Whatever befalls a read, it fails in time or has the right bytes, and when that is
// over the same read succeeds. What is cached is served meanwhile.
func TestFaultsOfAServerFailReadsAndNothingElse(t *testing.T) {
	faults := []struct {
		name   string
		fault  testbed.Fault
		policy retry.Policy
		want   error // nil: it succeeds all the same
	}{
		{"the connection is cut", testbed.Cut, once, backends.ErrUnavailable},
		{"the answer is lost", testbed.Lose, once, backends.ErrUnavailable},
		{"the answer is cut off", testbed.Truncate, once, backends.ErrUnavailable},
		{"it falls silent in its answer", testbed.Stall, short, backends.ErrUnavailable},
		{"it never answers", testbed.Hold, short, backends.ErrUnavailable},
		{"it is late", testbed.Delay(20 * time.Millisecond), patient, nil},
		{"it is busy", testbed.Answer(503, ""), once, backends.ErrUnavailable},
		{"it is gone", testbed.Answer(404, ""), once, backends.ErrNotFound},
		{"it is forbidden", testbed.Answer(403, ""), once, backends.ErrDenied},
		{"another range is answered", header("Content-Range", func(v string) string {
			_, size, _ := strings.Cut(v, "/")
			return "bytes 0-99/" + size
		}), once, backends.ErrUnavailable},
		{"no range is answered", header("Content-Range", func(string) string { return "" }), once, backends.ErrUnavailable},
		{"another version is answered", header("Etag", func(string) string { return `"0"` }), once, backends.ErrChanged},
	}
	for kind, make1 := range places {
		t.Run(kind, func(t *testing.T) {
			p := make1(t)
			for _, through := range []string{"the driver", "the cache"} {
				var c *cache.Cache
				if through == "the cache" {
					c = openCache(t, 16<<20)
				}
				calm := p.reader(t, c, patient)
				for i, f := range faults {
					when := fmt.Sprintf("%s, through %s", f.name, through)
					troubled, at := p.reader(t, c, f.policy), i*step+13
					p.wantRead(t, "before", calm, len(p.content)-span)
					p.Set(testbed.Always(p.read, f.fault))
					got := make([]byte, span)
					ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("it hung"))
					err := troubled.ReadAt(ctx, got, int64(at))
					cancel()
					switch {
					case !errors.Is(err, f.want) || err != nil && f.want == nil:
						t.Errorf("%s: %v, want %v", when, err, f.want)
					case err == nil && !bytes.Equal(got, p.content[at:at+span]):
						t.Errorf("%s: other bytes", when)
					case p.Count(p.read) == 0:
						t.Errorf("%s: the server was not asked", when)
					}
					if c != nil && f.want != backends.ErrChanged { // which drops what is cached
						p.wantRead(t, "what is cached, "+when, troubled, len(p.content)-span)
					}
					p.Set(testbed.On(p.read, 1, f.fault))
					if f.policy == once && f.want == backends.ErrUnavailable {
						p.wantRead(t, "once, "+when, calm, at) // which tries again
					}
					p.Set(nil)
					p.wantRead(t, "after "+when, calm, at)
				}
				if c != nil { // a flight lands after those who wanted it have it
					waitFor(t, "the fetches to give their memory back", func() bool { return c.Stats().MemoryInUse == 0 })
				}
			}
		})
	}
}

// An object that is swapped in the middle of a read, or between two, is an error, also
// where a proxy takes the condition from the requests; nothing of the other one is
// served, now or later.
func TestAnObjectThatIsSwappedIsNeverServed(t *testing.T) {
	for kind, make1 := range places {
		t.Run(kind, func(t *testing.T) {
			p := make1(t)
			other := backendtest.Noise(2, len(p.content))
			for _, cached := range []bool{false, true} {
				for name, on := range map[string]testbed.Fault{"with conditions": nil, "without": testbed.Unconditional} {
					if on != nil && kind == "s3" {
						continue // the condition is signed: nobody can take it away
					}
					when := fmt.Sprintf("%s, cached %v", name, cached)
					var c *cache.Cache
					if cached {
						c = openCache(t, 16<<20)
					}
					calm, b := p.reader(t, c, patient), p.reader(t, c, once)
					const at = segment + 2*step + 13 // in what put changes
					p.wantRead(t, "before, "+when, calm, at)
					var swap sync.Once
					p.Set(testbed.Always(p.read, func(proxy *testbed.Proxy, w http.ResponseWriter, r *http.Request) bool {
						swap.Do(func() { p.put(other) })
						return on != nil && on(proxy, w, r)
					}))
					for off := at + span; off+span < 2*segment; off += span {
						got := make([]byte, span)
						err := b.ReadAt(t.Context(), got, int64(off))
						if !errors.Is(err, backends.ErrChanged) {
							t.Errorf("%s: %v at %d, want %v; right bytes: %v", when, err, off, backends.ErrChanged, bytes.Equal(got, p.content[off:off+span]))
						}
					}
					if p.Count(p.read) == 0 {
						t.Errorf("%s: the server was not asked", when)
					}
					p.Set(nil)
					_, err := retry.Store(p.store, once, once).Open(t.Context(), p.loc)
					if !errors.Is(err, backends.ErrChanged) {
						t.Errorf("%s: open: %v", when, err)
					}
					p.put(p.content)
					for off := 0; off+span < len(p.content); off += step {
						p.wantRead(t, "put back, "+when, calm, off)
					}
				}
			}
		})
	}
}

// A store that never answers holds its share of what fetches may hold; others go on,
// and it answers what was asked meanwhile when it can again.
func TestAHungServerLeavesTheOtherStoresAlone(t *testing.T) {
	const memory = 4 << 20
	fine := placeS3(t)
	for kind, make1 := range places {
		t.Run(kind, func(t *testing.T) {
			p, c := make1(t), openCache(t, memory)
			b, beside := p.reader(t, c, patient), fine.reader(t, c, patient)
			p.Set(testbed.Always(p.read, testbed.Hold))
			var readers sync.WaitGroup
			const each = 60_000 // bytes from one to the next: no two in one chunk but a few
			for i := range len(p.content) / each {
				readers.Go(func() {
					got := make([]byte, 100)
					if err := b.ReadAt(t.Context(), got, int64(i*each)); err != nil || !bytes.Equal(got, p.content[i*each:][:100]) {
						t.Errorf("when it answers again: %v, or other bytes", err)
					}
				})
			}
			// Its share is half, and what a request asks for an eighth at most.
			waitFor(t, "its share to be taken", func() bool { return c.Stats().MemoryInUse > memory/2-memory/8 })
			if held := c.Stats().MemoryInUse; held == 0 || held > memory/2 {
				t.Errorf("it holds %d of %d bytes", held, memory)
			}
			for off := 0; off+span < len(fine.content); off += span {
				fine.wantRead(t, "beside it", beside, off)
			}
			p.Release()
			readers.Wait()
		})
	}
}

// Over TLS a bit that flips on the way is an error. Over plain HTTP it is not seen: no
// protocol of these has a checksum of a range. The documentation says so
// (contrib/docs/stores.md), and this test that it is still true.
func TestABitThatFlipsOnTheWayIsSeenOverTLS(t *testing.T) {
	srv := testbed.S3TLS(t)
	wire := testbed.NewWire(t, "tcp", strings.TrimPrefix(srv.Endpoint, "https://"))
	srv.Endpoint = "https://" + wire.Addr
	s, err := s3.Open(s3Config(srv))
	p := newPlace(t, nil, s, err)
	p.upload(t)
	c := openCache(t, 16<<20)
	for i, through := range []*cache.Cache{nil, c} {
		calm, b := p.reader(t, through, patient), p.reader(t, through, once)
		passed := 0
		wire.Spoil(func(piece []byte) { // one bit, in the middle of the body
			if passed < span/2 && passed+len(piece) >= span/2 {
				piece[span/2-passed-1] ^= 0x20
			}
			passed += len(piece)
		})
		if err := b.ReadAt(t.Context(), make([]byte, span), int64(i*2*step)); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("a bit flipped: %v", err)
		}
		wire.Spoil(nil)
		p.wantRead(t, "the same read again", calm, i*2*step)
	}

	plain := placeS3(t)
	plain.Set(testbed.Always(plain.read, testbed.Corrupt))
	got := make([]byte, span)
	if err := plain.reader(t, nil, once).ReadAt(t.Context(), got, 0); err != nil || bytes.Equal(got, plain.content[:span]) {
		t.Errorf("without TLS a bit that flips is seen, or none did (%v): say so in contrib/docs/stores.md", err)
	}
}

// What is written is checked by the server, or against what the server says of it: over
// plain HTTP, too, a bit that flips in an upload is found, and nothing is left.
func TestABitThatFlipsInAnUploadIsSeen(t *testing.T) {
	flip := func(n int) testbed.Fault {
		return testbed.Before(func(r *http.Request) { r.Body = &flipped{r.Body, n} })
	}
	for _, c := range []struct {
		kind, call string
		size       int
	}{
		{"s3", "PutObject", 1 << 20}, {"s3", "UploadPart", 12 << 20},
		{"swift", "PUT object", 100_000}, {"swift", "PUT segment", 3 << 20},
	} {
		t.Run(c.kind+", "+c.call, func(t *testing.T) {
			p := places[c.kind](t)
			p.Set(testbed.Always(c.call, flip(c.size/20)))
			content := backendtest.Noise(3, c.size)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w, err := p.store.Begin(ctx, "another", int64(c.size))
			if err != nil {
				t.Fatal(err)
			}
			failed := make(chan error, 1)
			go func() {
				_, err := w.Write(content)
				if err == nil {
					_, err = w.Commit(ctx)
				}
				failed <- err
			}()
			// S3's parts are sent again for minutes: as many as show that it goes on failing.
			for tried := false; ; {
				select {
				case err := <-failed:
					if err == nil {
						t.Error("it was taken for right")
					}
				case <-time.After(time.Millisecond):
					if !tried && p.Count(c.call) > 3 {
						tried = true
						cancel()
					}
					continue
				}
				break
			}
			p.Set(nil)
			if err := w.Abort(context.WithoutCancel(ctx)); err != nil {
				t.Error(err)
			}
			missing := p.loc
			missing.URL, missing.Size, missing.Version = strings.TrimSuffix(p.loc.URL, "k")+"another", -1, ""
			if _, err := p.store.Stat(t.Context(), missing); !errors.Is(err, backends.ErrNotFound) {
				t.Errorf("after an upload that failed: %v", err)
			}
			if _, err := backendtest.Put(t.Context(), p.store, "another", bytes.NewReader(content), int64(c.size)); err != nil {
				t.Errorf("the next upload: %v", err)
			}
		})
	}
}

// flipped is a body of which the n-th byte is another one.
type flipped struct {
	body interface {
		Read([]byte) (int, error)
		Close() error
	}
	n int
}

func (f *flipped) Read(p []byte) (int, error) {
	n, err := f.body.Read(p)
	if f.n >= 0 && f.n < n {
		p[f.n] ^= 0x20
	}
	f.n -= n
	return n, err
}

func (f *flipped) Close() error { return f.body.Close() }
