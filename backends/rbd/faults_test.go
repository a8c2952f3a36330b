//go:build ceph

package rbd

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	librbd "github.com/ceph/go-ceph/rbd"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/stored"
	"glanced/contrib/testbed"
)

func wantErr(t testing.TB, doing string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", doing, err, want)
	}
}

// wantContent opens a location, and compares.
func wantContent(t testing.TB, s backends.Store, loc backends.Location, want []byte) {
	t.Helper()
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := make([]byte, b.Size())
	if err := b.ReadAt(t.Context(), got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want))
	}
}

func put(t testing.TB, s backends.Store, key string, content []byte) backends.Location {
	t.Helper()
	loc, err := backendtest.Put(t.Context(), s, key, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func wantNothing(t testing.TB, admin *session) {
	t.Helper()
	if left := list(t, admin); len(left) > 0 {
		t.Errorf("left in the pool: %v", left)
	}
}

// An image has Glance's layout, and Glance's images are read and deleted.
func TestGlancesImages(t *testing.T) {
	srv := testbed.RBD(t)
	s := openStore(t, srv)
	content := backendtest.Noise(1, 9<<20)
	clear(content[100_000 : 8<<20])
	srv.Import(t, "by-glance", content)
	loc := backends.Location{Store: "rbd", URL: "rbd://" + srv.FSID + "/" + srv.Pool + "/by-glance/snap", Size: -1}
	wantContent(t, s, loc, content)
	old := backends.Location{Store: "rbd", URL: "rbd://by-glance", Size: int64(len(content))}
	wantContent(t, s, old, content)
	for _, url := range []string{
		"rbd://" + srv.FSID + "/another/by-glance/snap",
		"rbd://" + strings.Replace(srv.FSID, "-", "0", 1) + "/" + srv.Pool + "/by-glance/snap",
	} {
		_, err := s.Open(t.Context(), backends.Location{Store: "rbd", URL: url, Size: -1})
		wantErr(t, url, err, backends.ErrBadLocation)
	}
	wantErr(t, "delete what has a snapshot that is not named", s.Delete(t.Context(), old), backends.ErrInUse)
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Error(err)
	}
	wantNothing(t, operator(t, srv))

	ours := put(t, s, "ours", content)
	if want := "rbd://" + srv.FSID + "/" + srv.Pool + "/ours/snap"; ours.URL != want {
		t.Errorf("written %s, want %s", ours.URL, want)
	}
	if info := srv.Run(t, "rbd", "info", srv.Pool+"/ours@snap"); !strings.Contains(info, "order 23 (8 MiB objects)") || !strings.Contains(info, "protected: True") {
		t.Errorf("not as Glance has it:\n%s", info)
	}
	srv.Remove(t, "ours")
	wantNothing(t, operator(t, srv))
}

// What is zero in an image takes no room, whatever its size was thought to be.
func TestZerosAreNotStored(t *testing.T) {
	srv := testbed.RBD(t)
	s := openStore(t, srv)
	content := make([]byte, 40<<20)
	copy(content[17<<20:], backendtest.Noise(2, 100_000))
	for _, size := range []int64{int64(len(content)), -1} {
		loc, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(content), size)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, name := range list(t, operator(t, srv)) {
			if strings.HasPrefix(name, "rbd_data.") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d RADOS objects have data, want 1", n)
		}
		b, err := s.Open(t.Context(), loc)
		if err != nil {
			t.Fatal(err)
		}
		type extent struct {
			off, n int64
			hole   bool
		}
		var got []extent
		holes, _ := stored.As[stored.Extenter](b)
		if err := holes.Extents(t.Context(), 1<<20, 38<<20, func(off, n int64, hole bool) bool {
			got = append(got, extent{off, n, hole})
			return true
		}); err != nil {
			t.Error(err)
		}
		if want := [...]extent{{1 << 20, 15 << 20, true}, {16 << 20, 8 << 20, false}, {24 << 20, 15 << 20, true}}; len(got) != 3 || [3]extent(got) != want {
			t.Errorf("extents %v, want %v", got, want)
		}
		b.Close()
		wantContent(t, s, loc, content)
		if err := s.Delete(t.Context(), loc); err != nil {
			t.Error(err)
		}
	}
	wantNothing(t, operator(t, srv))
}

// An upload that was committed has its image open no more: it can be deleted at once.
func TestACommittedImageIsNotInUse(t *testing.T) {
	srv := testbed.RBD(t)
	s := openStore(t, srv)
	for range 20 {
		w, err := s.begin(t.Context(), "k", 1)
		must(t, err)
		_, err = w.Write([]byte("x"))
		must(t, err)
		loc, err := w.Commit(t.Context())
		must(t, err)
		select {
		case <-w.h.done:
		default:
			t.Error("it is still open")
		}
		must(t, s.Delete(t.Context(), loc))
	}
	wantNothing(t, operator(t, srv))
}

func TestAnImageThatIsInUseIsNotDeleted(t *testing.T) {
	srv := testbed.RBD(t)
	s := openStore(t, srv)
	content := backendtest.Noise(3, 100_000)
	loc := put(t, s, "k", content)
	image := srv.Pool + "/k"

	srv.Run(t, "rbd", "clone", image+"@snap", srv.Pool+"/clone")
	wantErr(t, "with a clone", s.Delete(t.Context(), loc), backends.ErrInUse)
	srv.Run(t, "rbd", "rm", srv.Pool+"/clone")
	srv.Run(t, "rbd", "snap", "create", image+"@another")
	wantErr(t, "with another snapshot", s.Delete(t.Context(), loc), backends.ErrInUse)
	srv.Run(t, "rbd", "snap", "rm", image+"@another")

	// Another has it open to write, as a guest would.
	img, _, err := openSource(operator(t, srv), srv.Pool, location{image: "k"})
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "while it is open", s.Delete(t.Context(), loc), backends.ErrInUse)
	if err := img.Close(); err != nil {
		t.Fatal(err)
	}
	wantContent(t, s, loc, content)

	// A deletion that was cut off has removed the snapshot.
	srv.Run(t, "rbd", "snap", "unprotect", image+"@snap")
	srv.Run(t, "rbd", "snap", "rm", image+"@snap")
	_, err = s.Open(t.Context(), loc)
	wantErr(t, "open without a snapshot", err, backends.ErrNotFound)
	other := loc
	other.Version = "0" + loc.Version
	wantErr(t, "delete another image of the name", s.Delete(t.Context(), other), backends.ErrChanged)
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Error(err)
	}
	wantNothing(t, operator(t, srv))
}

// A rename writes the new name, then the directory, then removes the old name: it may be
// cut off in between, by a crash, or by a lost answer after which it is asked for again.
func TestARenameThatWasCutOffIsFinishedOrUndone(t *testing.T) {
	srv := testbed.RBD(t)
	s := openStore(t, srv)
	content := backendtest.Noise(4, 100_000)
	for name, cut := range map[string]func(from, to, id string){
		"the new name is written": func(from, to, id string) {
			putID(t, operator(t, srv), to, id)
		},
		"the directory has it": func(from, to, id string) {
			admin := operator(t, srv)
			must(t, librbd.GetImage(admin.ioctx, from).Rename(to))
			putID(t, admin, from, id)
		},
	} {
		for _, abandoned := range []bool{false, true} {
			w, err := s.begin(t.Context(), "k", int64(len(content)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
			if err := w.written(t.Context()); err != nil {
				t.Fatal(err)
			}
			id, err := w.h.img.GetId()
			if err != nil {
				t.Fatal(err)
			}
			cut(w.claim.temporary(), "k", id)
			if abandoned {
				if err := w.Abort(t.Context()); err != nil {
					t.Errorf("%s: abort: %v", name, err)
				}
			} else {
				loc, err := w.Commit(t.Context())
				if err != nil {
					t.Fatalf("%s: commit: %v", name, err)
				}
				if got := images(t, operator(t, srv)); len(got) != 1 || got[0] != "k" {
					t.Errorf("%s: images %v", name, got)
				}
				wantContent(t, s, loc, content)
				if err := s.Delete(t.Context(), loc); err != nil {
					t.Errorf("%s: delete: %v", name, err)
				}
			}
			t.Logf("%s, abandoned %v", name, abandoned)
			wantNothing(t, operator(t, srv))
		}
	}
}

// putID writes the object by which a name is an image's.
func putID(t testing.TB, admin *session, name, id string) {
	t.Helper()
	must(t, admin.ioctx.WriteFull(idPrefix+name, encoded(id)))
}

// images are the names of the pool's images.
func images(t testing.TB, admin *session) []string {
	t.Helper()
	names, err := librbd.GetImageNames(admin.ioctx)
	must(t, err)
	return names
}

func TestAFullPoolSaysSo(t *testing.T) {
	srv := testbed.RBD(t)
	s := openStore(t, srv)
	ratios := func(nearfull, backfillfull, full string) {
		srv.Run(t, "ceph", "osd", "set-nearfull-ratio", nearfull)
		srv.Run(t, "ceph", "osd", "set-backfillfull-ratio", backfillfull)
		srv.Run(t, "ceph", "osd", "set-full-ratio", full)
	}
	w, err := s.Begin(t.Context(), "k", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(backendtest.Noise(5, 1<<20)); err != nil {
		t.Fatal(err)
	}
	ratios("0.0000001", "0.0000002", "0.0000003")
	defer ratios("0.85", "0.9", "0.95")
	await(t, func() bool { return strings.Contains(srv.Run(t, "ceph", "health", "detail"), "POOL_FULL") })
	for err == nil && t.Context().Err() == nil {
		_, err = w.Write(backendtest.Noise(6, 1<<20))
	}
	wantErr(t, "write", err, backends.ErrFull)
	// Whether a full pool lets an image be removed is the cluster's to say: what Abort
	// says of it is true, and it may be repeated.
	if err := w.Abort(t.Context()); err == nil {
		wantNothing(t, operator(t, srv))
	} else {
		t.Logf("while the pool is full: %v", err)
		ratios("0.85", "0.9", "0.95")
		await(t, func() bool { return w.Abort(t.Context()) == nil })
		wantNothing(t, operator(t, srv))
	}
}

// await waits until something is so.
func await(t testing.TB, so func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !so(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it has not come to be within 2 minutes")
		}
	}
}

// pause has the cluster answer no operation of s until resume, which may be repeated.
func pause(t testing.TB, srv testbed.RBDServer, s *Store) (resume func()) {
	t.Helper()
	srv.Run(t, "ceph", "osd", "set", "pause")
	must(t, s.current.conn.WaitForLatestOSDMap()) // it is the client that heeds it
	return sync.OnceFunc(func() { srv.Run(t, "ceph", "osd", "unset", "pause") })
}

// A cluster that does not answer holds so many calls, and nobody beyond their own context.
func TestAClusterThatHangsHoldsNobodyLonger(t *testing.T) {
	srv := testbed.RBD(t)
	cfg := config(srv)
	cfg.Connections = 2
	s := mustOpen(t, cfg)
	defer s.Close()
	content := backendtest.Noise(7, 3<<20)
	loc := put(t, s, "k", content)
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	resume := pause(t, srv, s)
	defer resume()
	why := errors.New("the client does not wait longer")
	p := make([]byte, len(content))
	for _, call := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"read", func(ctx context.Context) error { return b.ReadAt(ctx, p, 0) }},
		{"read again", func(ctx context.Context) error { return b.ReadAt(ctx, p[:10], 0) }},
		{"verify", func(ctx context.Context) error { return b.(*object).Verify(ctx) }},
		{"open", func(ctx context.Context) error { _, err := s.Open(ctx, loc); return err }},
		{"begin", func(ctx context.Context) error { _, err := s.Begin(ctx, "another", 5); return err }},
		{"delete", func(ctx context.Context) error { return s.Delete(ctx, loc) }},
	} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, why)
		wantErr(t, call.name, call.run(ctx), why)
		cancel()
	}
	if n := len(s.reads); n > 2 {
		t.Errorf("%d calls are under way, want 2 at most", n)
	}
	resume()
	// The deletion that nobody waited for may have been made; what is read is right, or an error.
	await(t, func() bool { return len(s.reads) == 0 && len(s.writes) == 0 })
	clear(p)
	if err := b.ReadAt(t.Context(), p, 0); err == nil && !bytes.Equal(p, content) || err != nil && !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("after the cluster came back: %v, or other bytes", err)
	}
	if err := s.Delete(t.Context(), loc); err != nil && !errors.Is(err, backends.ErrNotFound) {
		t.Error(err)
	}
	wantNothing(t, operator(t, srv))
}

// An operation that the cluster does not do in time is ErrUnavailable, and its place is
// free again.
func TestAnOperationHasATimeout(t *testing.T) {
	srv := testbed.RBD(t)
	cfg := config(srv)
	cfg.Timeout = 10e9
	s := mustOpen(t, cfg)
	defer s.Close()
	loc := put(t, s, "k", backendtest.Noise(8, 100_000))
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	resume := pause(t, srv, s)
	err = b.ReadAt(t.Context(), make([]byte, 10), 0)
	resume()
	wantErr(t, "read", err, backends.ErrUnavailable)
	await(t, func() bool { return b.ReadAt(t.Context(), make([]byte, 10), 0) == nil })
	await(t, func() bool { return s.Delete(t.Context(), loc) == nil })
	wantNothing(t, operator(t, srv))
}

// A client that the cluster refuses connects anew, and reads on where it was; its uploads
// are over. So it is for a daemon whose upload another one has abandoned.
func TestAClientOnTheBlocklistConnectsAnew(t *testing.T) {
	srv := testbed.RBD(t)
	s, other := openStore(t, srv), openStore(t, srv)
	content := backendtest.Noise(9, 100_000)
	loc := put(t, s, "k", content)
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	w, err := s.begin(t.Context(), "cut", -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.written(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.forget() // as if it were another process's
	if err := other.Abandon(t.Context(), w.Claim()); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	await(t, func() bool { return b.ReadAt(t.Context(), got, 0) == nil })
	if !bytes.Equal(got, content) {
		t.Error("other bytes are read by the new connection")
	}
	if loc, err := w.Commit(t.Context()); err == nil {
		t.Errorf("committed to %+v after it was abandoned", loc)
	}
	if got := images(t, operator(t, srv)); len(got) != 1 || got[0] != "k" {
		t.Errorf("images %v", got)
	}
	if err := w.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Error(err)
	}
	wantNothing(t, operator(t, srv))
}

func TestWhatIsWrongIsSaidWithoutKeys(t *testing.T) {
	srv := testbed.RBD(t)
	other := srv.NewPool(t)
	for name, c := range map[string]struct {
		change func(*Config)
		kind   error
		text   string
	}{
		"no such pool":            {func(c *Config) { c.Pool = "nowhere" }, backends.ErrUnavailable, "there is no pool"},
		"another user's pool":     {func(c *Config) { c.Pool = other.Pool }, backends.ErrDenied, "capabilities"},
		"another user's key":      {func(c *Config) { c.Keyring = other.Keyring }, backends.ErrDenied, "keyring"},
		"a user who is not there": {func(c *Config) { c.User = "nobody" }, backends.ErrDenied, "keyring"},
		"nobody is there":         {func(c *Config) { c.MonHost, c.Timeout = "127.0.0.1:1", 2e9 }, backends.ErrUnavailable, "timed out"},
	} {
		cfg := config(srv)
		c.change(&cfg)
		s := mustOpen(t, cfg)
		_, err := s.Begin(t.Context(), "k", 1)
		wantErr(t, name, err, c.kind)
		if err != nil && (!strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), srv.Key) || strings.Contains(err.Error(), other.Key)) {
			t.Errorf("%s: %v, want %s", name, err, c.text)
		}
		s.Close()
	}
}

func TestAPoolThatIsGoneIsNoMissingImage(t *testing.T) {
	srv := testbed.RBD(t)
	s := openStore(t, srv)
	loc := put(t, s, "k", backendtest.Noise(10, 1000))
	srv.Run(t, "ceph", "osd", "pool", "rm", srv.Pool, srv.Pool, "--yes-i-really-really-mean-it")
	_, err := s.Open(t.Context(), loc)
	wantErr(t, "open", err, backends.ErrUnavailable)
	wantErr(t, "delete", s.Delete(t.Context(), loc), backends.ErrUnavailable)
	srv.Run(t, "ceph", "osd", "pool", "create", srv.Pool, "8")
	srv.Run(t, "rbd", "pool", "init", srv.Pool)
	_, err = s.Open(t.Context(), loc)
	wantErr(t, "open in a new pool", err, backends.ErrNotFound)
	wantContent(t, s, put(t, s, "k", []byte("x")), []byte("x"))
	srv.Remove(t, "k")
}

func TestUsageIsThePools(t *testing.T) {
	// As a cluster of Ceph 16.2 with a manager answers; cut down to what is read.
	const df = `{"stats":{"total_bytes":1000},"pools":[{"name":"other","id":1,"stats":{"stored":7,"max_avail":8}},
		{"name":"images","id":2,"stats":{"stored":100,"objects":3,"bytes_used":300,"max_avail":900}}]}`
	u, err := poolUsage([]byte(df), "images")
	if err != nil || u != (backends.Usage{Total: 1000, Free: 900}) {
		t.Errorf("%+v, %v", u, err)
	}
	if u, err := poolUsage([]byte(`{"pools":[]}`), "images"); err != nil || u != (backends.Usage{Total: -1, Free: -1}) {
		t.Errorf("without a manager: %+v, %v", u, err)
	}
	if _, err := poolUsage([]byte("x"), "images"); !errors.Is(err, backends.ErrUnavailable) {
		t.Error(err)
	}
}
