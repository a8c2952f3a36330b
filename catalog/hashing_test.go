package catalog_test

import (
	"bytes"
	"context"
	"fmt"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"glanced/catalog"
	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// watchedDatabase tells of each change that was made, or tried.
type watchedDatabase struct {
	records.DB
	changed func(what string)
}

func (d watchedDatabase) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	err := d.DB.Change(ctx, what, do)
	d.changed(what)
	return err
}

// webNode is one of several daemons over a database, with a store of what others keep.
func webNode(t *testing.T, dir, name string, change func(*catalog.Config)) *world {
	t.Helper()
	own := t.TempDir()
	return openWorld(t, dir, func(cfg *catalog.Config) {
		cfg.Node, cfg.Shared, cfg.Lease = name, true, 3*time.Second
		withWeb(t, own)(cfg)
		if change != nil {
			change(cfg)
		}
	})
}

// slowSite serves one object; the first large read of it, as hashing makes them, waits
// until it may go on.
type slowSite struct {
	*httptest.Server
	first  chan struct{} // closed when it waits
	second chan struct{} // closed at the second one
	goOn   chan struct{} // to be closed
	large  atomic.Int64  // how many there were
}

func newSlowSite(t *testing.T, content []byte) *slowSite {
	s := &slowSite{first: make(chan struct{}), second: make(chan struct{}), goOn: make(chan struct{})}
	s.Server = httptest.NewServer(nethttp.HandlerFunc(func(rw nethttp.ResponseWriter, r *nethttp.Request) {
		var from, to int64
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		if to-from > 128<<10 {
			switch s.large.Add(1) {
			case 1:
				close(s.first)
				select {
				case <-s.goOn:
				case <-r.Context().Done():
					return
				}
			case 2:
				close(s.second)
			}
		}
		rw.Header().Set("Etag", `"x"`)
		nethttp.ServeContent(rw, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(s.Close)
	return s
}

// Of two daemons on one database, one hashes a far object; the other one leaves it to it.
func TestAFarObjectIsHashedByOneDaemon(t *testing.T) {
	dir, content := t.TempDir(), noise(1, 3<<20)
	site := newSlowSite(t, content)
	a := webNode(t, dir, "a", nil)
	img := a.registered(t, "raw", "bare", site.URL+"/disk")
	wantClosed(t, site.first, "the first daemon to hash")
	tried := make(chan struct{})
	var once sync.Once
	b := webNode(t, dir, "b", func(cfg *catalog.Config) {
		cfg.Records = watchedDatabase{cfg.Records, func(what string) {
			if strings.Contains(what, "lease of "+records.HashLease+" "+img.ID) {
				once.Do(func() { close(tried) })
			}
		}}
	})
	select {
	case <-tried:
	case <-site.second:
		t.Error("a second daemon hashes what the first one is hashing")
	case <-time.After(patience):
		t.Fatal("the second daemon does not look at it")
	}
	close(site.goOn)
	a.awaitHash(t, img.ID, content)
	b.awaitHash(t, img.ID, content)
	if n := site.large.Load(); n != 3 {
		t.Errorf("it was read by %d requests of 1 MiB, of 3 MiB", n)
	}
}

// A daemon that ends, or dies, in the middle leaves the work to another one.
func TestAnotherDaemonHashesWhatOneLeft(t *testing.T) {
	dir, content := t.TempDir(), noise(1, 3<<20)
	site := newSlowSite(t, content)
	a := webNode(t, dir, "a", nil)
	img := a.registered(t, "raw", "bare", site.URL+"/disk")
	wantClosed(t, site.first, "the first daemon to hash")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	dead := rules.NewLease(records.HashLease, img.ID, "dead")
	if err := a.records.TakeLease(t.Context(), dead, 300*time.Millisecond); err != nil {
		t.Fatalf("the lease of a daemon that has ended: %v", err)
	}
	b := webNode(t, dir, "b", func(cfg *catalog.Config) { cfg.Lease = 300 * time.Millisecond })
	b.awaitHash(t, img.ID, content)
}
