package cache

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/stored"
)

const chunkSize = 64 << 10

// logged is what a cache says.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Count(l.text.Bytes(), []byte(words))
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// mustOpen opens a cache of chunks of 64 KiB. The test closes it, or its end does.
func mustOpen(t testing.TB, dir string, chunks int64, more ...func(*Config)) *Cache {
	t.Helper()
	cfg := Config{Dir: dir, Size: chunks*chunkSize + 64<<10, ChunkSize: chunkSize, Log: slog.New(slog.DiscardHandler)}
	for _, m := range more {
		m(&cfg)
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// object puts noise of n bytes into a store, and opens it.
func put(t testing.TB, s backends.Store, key string, n int) (backends.Location, []byte) {
	t.Helper()
	content := backendtest.Noise(key[0], n)
	loc, err := backendtest.Put(t.Context(), s, key, bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	return loc, content
}

func open(t testing.TB, s backends.Store, loc backends.Location) *reader {
	t.Helper()
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b.(*reader)
}

// wantRead reads a part of b and compares it.
func wantRead(t testing.TB, b stored.Bytes, content []byte, off, n int) {
	t.Helper()
	p := make([]byte, n)
	if err := b.ReadAt(t.Context(), p, int64(off)); err != nil || !bytes.Equal(p, content[off:off+n]) {
		t.Errorf("%d bytes at %d: %v, or other bytes", n, off, err)
	}
}

// settle waits until no flight is under way.
func settle(t testing.TB, c *Cache) {
	t.Helper()
	waitFor(t, "the flights to land", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, o := range c.objects {
			if len(o.flights) > 0 {
				return false
			}
		}
		return true
	})
}

func waitFor(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waiting for %s", what)
		}
	}
}

// mostConnections is how many of a store were busy at once.
func mostConnections(s backends.Store) int {
	l := &s.(*store).up.line
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mostSeen
}

// onDisk is what the files of the cache take, allocated.
func onDisk(t testing.TB, c *Cache) (bytes int64) {
	t.Helper()
	c.files.Lock()
	defer c.files.Unlock()
	return folderBytes(t, c.dir)
}
