package catalog_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/file"
	"glanced/backends/s3"
	"glanced/catalog"
	"glanced/catalog/records"
	"glanced/contrib/testbed"
)

const (
	shortLease = 300 * time.Millisecond // of a daemon whose lease is to lapse while a test waits
	testLease  = 3 * time.Second        // of the others: a busy machine does not make them lose theirs
)

// stall stops a daemon: at a call of its store, and all that it asks of the database.
type stall struct {
	records.DB
	mu      sync.Mutex
	at      backendtest.Op // the call at which it stops, once; "" = none
	stopped chan struct{}  // closed when it has
	wake    chan struct{}  // closed when it goes on
}

func newStall(at backendtest.Op) *stall {
	return &stall{at: at, stopped: make(chan struct{}), wake: make(chan struct{})}
}

// hook is for Faulty: it stops at its operation.
func (s *stall) hook(op backendtest.Op) error {
	s.mu.Lock()
	here := op == s.at
	if here {
		s.at = ""
		close(s.stopped)
	}
	s.mu.Unlock()
	if here {
		<-s.wake
	}
	return nil
}

// upload has a, which is to stall, take in an image that b sees too, and returns when it
// has stalled; its end will be told on failed. Where the machine is so busy that a lost its
// lease before it came so far, another image is tried.
func (s *stall) upload(t *testing.T, a, b *world, content []byte) (img catalog.Image, failed chan error) {
	t.Helper()
	for limit := time.After(patience); ; {
		img, failed = b.queued(t, "raw", "bare"), make(chan error, 1)
		go func() {
			failed <- a.Upload(context.Background(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1})
		}()
		select {
		case <-s.stopped:
			return img, failed
		case err := <-failed:
			if !errors.Is(err, catalog.ErrLeaseLost) {
				t.Fatalf("the upload that was to stall: %v", err)
			}
		case <-limit:
			t.Fatalf("waited %v for the first daemon to stall", patience)
		}
	}
}

func (s *stall) pass() {
	select {
	case <-s.stopped:
		<-s.wake
	default:
	}
}

func (s *stall) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	s.pass()
	return s.DB.Change(ctx, what, do)
}

func (s *stall) View(ctx context.Context, what string, do func(records.Tx) error) error {
	s.pass()
	return s.DB.View(ctx, what, do)
}

// kinds of stores that two daemons share, each opened anew at every call.
func sharedStores(t *testing.T, dir string) map[string]func() backends.Store {
	srv := testbed.S3(t)
	opened := func(s backends.Store, err error) backends.Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	return map[string]func() backends.Store{
		"file": func() backends.Store {
			return opened(file.Open(file.Config{ID: "local", Path: filepath.Join(dir, "shared")}))
		},
		"s3": func() backends.Store {
			return opened(s3.Open(s3.Config{ID: "local", Endpoint: srv.Endpoint, Bucket: srv.Bucket, AccessKey: srv.AccessKey, SecretKeyFile: secretFile(t, srv.SecretKey)}))
		},
	}
}

// node is a daemon over the database in dir and a store that others share.
func node(t *testing.T, dir, name string, store backends.Store, change func(*catalog.Config)) *world {
	t.Helper()
	return openWorld(t, dir, func(cfg *catalog.Config) {
		cfg.Node, cfg.Shared, cfg.Lease = name, true, testLease
		cfg.Stores[0].Store = store
		if change != nil {
			change(cfg)
		}
	})
}

// await waits until the image is what ok wants.
func (w *world) await(t *testing.T, id string, ok func(catalog.Image) bool) catalog.Image {
	t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		img, err := w.records.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if ok(img) {
			return img
		}
		if time.Now().After(limit) {
			t.Fatalf("waited %v; it stays %+v", patience, img)
		}
	}
}

func queuedAgain(img catalog.Image) bool {
	return img.Status == catalog.Queued && img.Reserved == 0
}

// A daemon stalls in an upload, another one takes over, and takes the same image in under
// the same key: what the first one does when it wakes touches nothing of that.
func TestWhoLostItsLeaseTouchesNothingOfItsSuccessor(t *testing.T) {
	for kind := range sharedStores(t, t.TempDir()) {
		for point, after := range map[backendtest.Op]bool{backendtest.OpWrite: false, backendtest.OpCommit: false, backendtest.OpCommit + "ted": true} {
			for _, same := range []bool{true, false} {
				t.Run(kind+" "+string(point)+map[bool]string{true: " same content", false: ""}[same], func(t *testing.T) {
					first := noise(1, 3<<20)
					second := first
					if !same {
						second = noise(2, 2<<20)
					}
					wakesAfterSuccessor(t, kind, point, after, first, second)
				})
			}
		}
	}
}

func wakesAfterSuccessor(t *testing.T, kind string, point backendtest.Op, after bool, first, second []byte) {
	dir := t.TempDir()
	open := sharedStores(t, dir)[kind]
	if after {
		point = backendtest.OpCommit
	}
	stop := newStall(point)
	a := node(t, dir, "a", nil, func(cfg *catalog.Config) {
		cfg.Lease = shortLease
		faulty := backendtest.Faulty{Store: open(), Fail: stop.hook}
		if after {
			faulty.Fail, faulty.Lose = nil, stop.hook
		}
		cfg.Stores[0].Store = faulty
		stop.DB = cfg.Records
		cfg.Records = stop
	})
	b := node(t, dir, "b", open(), nil)
	img, failed := stop.upload(t, a, b, first)
	b.await(t, img.ID, queuedAgain)
	if err := b.Upload(t.Context(), img.ID, bytes.NewReader(second), catalog.UploadOptions{Size: -1}); err != nil {
		t.Errorf("the successor: %v", err)
	}
	close(stop.wake)
	if err := <-failed; !errors.Is(err, catalog.ErrLeaseLost) {
		t.Errorf("who lost the lease was told %v", err)
	}
	got := b.get(t, img.ID)
	if got.Status != catalog.Active || got.Node != "" || got.Claims != nil || *got.Size != int64(len(second)) {
		t.Errorf("on record: %+v", got)
	}
	b.wantStored(t, img.ID, second)
}

// A daemon stalls in an upload, and wakes when another one has taken over, and nobody has
// uploaded since: nothing is left of it, and nothing in the way of who comes next.
func TestWhoLostItsLeaseLeavesNothing(t *testing.T) {
	for kind := range sharedStores(t, t.TempDir()) {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			open := sharedStores(t, dir)[kind]
			stop := newStall(backendtest.OpCommit)
			a := node(t, dir, "a", nil, func(cfg *catalog.Config) {
				cfg.Lease = shortLease
				cfg.Stores[0].Store = backendtest.Faulty{Store: open(), Fail: stop.hook}
				stop.DB = cfg.Records
				cfg.Records = stop
			})
			b := node(t, dir, "b", open(), nil)
			img, failed := stop.upload(t, a, b, noise(1, 3<<20))
			b.await(t, img.ID, queuedAgain)
			close(stop.wake)
			if err := <-failed; !errors.Is(err, catalog.ErrLeaseLost) {
				t.Errorf("who lost the lease was told %v", err)
			}
			b.await(t, img.ID, func(img catalog.Image) bool { return img.Claims == nil && img.Node == "" })
			content := noise(2, 1<<20)
			if err := b.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1}); err != nil {
				t.Fatal(err)
			}
			b.wantStored(t, img.ID, content)
		})
	}
}

// An upload that takes long keeps its lease, and nobody takes it over.
func TestAnUploadThatTakesLongKeepsItsLease(t *testing.T) {
	dir := t.TempDir()
	open := sharedStores(t, dir)["file"]
	a, b := node(t, dir, "a", open(), nil), node(t, dir, "b", open(), nil)
	img := b.queued(t, "raw", "bare")
	content := noise(1, 1<<20)
	body := &slowly{bytes.NewReader(content), 2 * testLease}
	if err := a.Upload(t.Context(), img.ID, body, catalog.UploadOptions{Size: -1}); err != nil {
		t.Fatal(err)
	}
	b.wantStored(t, img.ID, content)
}

// slowly is a body that pauses in its middle.
type slowly struct {
	body  *bytes.Reader
	pause time.Duration
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.body.Len() < int(s.body.Size()/2) {
		time.Sleep(s.pause)
		s.pause = 0
	}
	return s.body.Read(p[:min(len(p), 100_000)])
}

// The bytes of a deleted image stay until other daemons have let go of it.
func TestADeletedImagesBytesGoWhenOthersHaveLetGo(t *testing.T) {
	dir := t.TempDir()
	open := sharedStores(t, dir)["file"]
	a, b := node(t, dir, "a", open(), nil), node(t, dir, "b", open(), func(cfg *catalog.Config) { cfg.Lease = patience / 4 })
	img := a.active(t, "raw", "bare", noise(1, 1<<20))
	h := a.open(t, img.ID, catalog.View{})
	if err := b.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	wantClosed(t, h.Revoked(), "the other daemon to let go")
	if got, err := b.records.Get(t.Context(), img.ID); err != nil || len(got.Locations) != 1 {
		t.Fatalf("on record: %+v, %v", got, err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	// Also when the daemon that deleted it is gone.
	b.Close()
	a.await(t, img.ID, func(img catalog.Image) bool { return img.Locations == nil })
	if all, err := filepath.Glob(filepath.Join(dir, "shared", "*")); err != nil || len(all) != 0 {
		t.Errorf("in the store: %v, %v", all, err)
	}
	// Alone again, it waits for nobody.
	img = a.active(t, "raw", "bare", noise(1, 1<<20))
	if err := a.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if got, err := a.records.Get(t.Context(), img.ID); err != nil || got.Locations != nil {
		t.Errorf("on record: %+v, %v", got, err)
	}
}

// A daemon that was forgotten, as it was away for long, is one of several again.
func TestADaemonThatWasForgottenComesBack(t *testing.T) {
	dir := t.TempDir()
	a := node(t, dir, "a", sharedStores(t, dir)["file"](), nil)
	if err := a.records.Forget(t.Context(), records.NodeLease, "a"); err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		all, err := a.records.Leases(t.Context(), records.NodeLease)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) == 1 && all[0].Node == "a" {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the daemons are %v", all)
		}
	}
}

// lostAnswer is a database that loses the answers to some commits: they were made, or not.
type lostAnswer struct {
	records.DB
	lose func(what string) (made, lost bool)
}

func (d *lostAnswer) Change(ctx context.Context, what string, do func(records.Tx) error) error {
	made, lost := d.lose(what)
	if !lost {
		return d.DB.Change(ctx, what, do)
	}
	if made {
		if err := d.DB.Change(ctx, what, do); err != nil {
			return err
		}
	}
	return records.ErrUnknown
}

// The answer to an upload's last transaction is lost. Its bytes may be an image's.
func TestAnUploadWhoseLastAnswerIsLostIsWhatTheRecordSays(t *testing.T) {
	for _, made := range []bool{true, false} {
		var db *lostAnswer
		var mu sync.Mutex
		committed := false
		w := newWorld(t, func(cfg *catalog.Config) {
			cfg.Stores[0].Store = backendtest.Faulty{Store: cfg.Stores[0].Store, Lose: func(op backendtest.Op) error {
				mu.Lock()
				defer mu.Unlock()
				committed = committed || op == backendtest.OpCommit
				return nil
			}}
			db = &lostAnswer{cfg.Records, func(what string) (bool, bool) {
				mu.Lock()
				defer mu.Unlock()
				lost := committed
				committed = false
				return made, lost
			}}
			cfg.Records = db
		})
		img := w.queued(t, "raw", "bare")
		content := noise(1, 1<<20)
		err := w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1})
		if made {
			if err != nil {
				t.Errorf("the image is active, and the client was told %v", err)
			}
			w.wantStored(t, img.ID, content)
			continue
		}
		wantErr(t, err, catalog.ErrUnknown)
		w.wantNothingStored(t)
		w.await(t, img.ID, queuedAgain)
	}
}

// secretFile is a file that holds a store's key.
func secretFile(t *testing.T, secret string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
