package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/backendtest"
)

// plugged is a disk that can be mounted and unmounted: its content is in a folder of
// its own.
type plugged struct {
	t       *testing.T
	content string
	at      string // where it is mounted
}

func plug(t *testing.T, root, name string) *plugged {
	t.Helper()
	p := &plugged{t, filepath.Join(root, "disk-"+name), filepath.Join(root, name)}
	if err := errors.Join(os.Mkdir(p.content, 0o750), os.Mkdir(p.at, 0o750)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(p.at, unix.MNT_DETACH) })
	p.mount()
	return p
}

func (p *plugged) mount() {
	p.t.Helper()
	if err := unix.Mount(p.content, p.at, "", unix.MS_BIND, ""); err != nil {
		needRoot(p.t, err)
	}
}

func (p *plugged) unmount() {
	p.t.Helper()
	if err := unix.Unmount(p.at, unix.MNT_DETACH); err != nil {
		p.t.Fatal(err)
	}
}

func TestADiskThatIsNotMountedIsMissedAndComesBack(t *testing.T) {
	root := t.TempDir()
	a, b := plug(t, root, "a"), plug(t, root, "b")
	cfg := Config{Memory: filepath.Join(root, "memory"), Paths: []Folder{{a.at, 0}, {b.at, 10}}}
	s := mustOpen(t, cfg)
	if err := s.Degraded(); err != nil {
		t.Fatal(err)
	}
	onB := mustPut(t, s, "on b", 1000)
	claimB := beginFile(t, s, "claimed on b").Claim()
	cfg.Paths[1].Priority = -10
	s.Close()
	s = mustOpen(t, cfg)
	onA := mustPut(t, s, "on a", 1000)
	w := beginFile(t, s, "claimed on a")
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	claimA := w.Claim()
	s.Close()

	b.unmount()
	cfg.Paths[1].Priority = 10 // it would be written first
	s = mustOpen(t, cfg)
	if err := s.Degraded(); err == nil || !strings.Contains(err.Error(), b.at) || !strings.Contains(err.Error(), "mount its disk") {
		t.Errorf("it says %v", err)
	}
	if _, err := s.Stat(t.Context(), onA); err != nil {
		t.Errorf("what lies on a: %v", err)
	}
	_, statB := s.Stat(t.Context(), onB)
	_, statNone := s.Stat(t.Context(), backends.Location{Store: "local", URL: onA.URL + "2", Size: 5})
	for what, err := range map[string]error{
		"stat": statB, "delete": s.Delete(t.Context(), onB), "abandon": s.Abandon(t.Context(), claimB),
		"what is not on a, and may be on b": statNone,
	} {
		if !errors.Is(err, backends.ErrUnavailable) || errors.Is(err, backends.ErrNotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := s.Abandon(t.Context(), claimA); err != nil {
		t.Errorf("a claim of a: %v", err)
	}
	if loc := mustPut(t, s, "meanwhile", 1000); filepath.Dir(path(t, loc)) != a.at {
		t.Errorf("it went to %s", loc.URL)
	}
	if under := list(t, b.at); len(under) > 0 {
		t.Errorf("in the empty mount point is %v", under)
	}

	b.mount()
	if err := s.Degraded(); err != nil {
		t.Errorf("mounted again: %v", err)
	}
	if _, err := s.Stat(t.Context(), onB); err != nil {
		t.Errorf("mounted again: %v", err)
	}
	if err := s.Abandon(t.Context(), claimB); err != nil {
		t.Errorf("mounted again: %v", err)
	}
	if loc := mustPut(t, s, "afterwards", 1000); filepath.Dir(path(t, loc)) != b.at {
		t.Errorf("it went to %s", loc.URL)
	}
}

func TestAStoreWhoseOnlyDiskIsMissingOpens(t *testing.T) {
	root := t.TempDir()
	a := plug(t, root, "a")
	cfg := Config{Memory: filepath.Join(root, "memory"), Path: a.at}
	loc := mustPut(t, mustOpen(t, cfg), "k", 1000)
	a.unmount()
	for _, gone := range []func() error{func() error { return nil }, func() error { return os.Remove(a.at) }} {
		if err := gone(); err != nil {
			t.Fatal(err)
		}
		s := mustOpen(t, cfg)
		_, err := s.Begin(t.Context(), "k2", 1)
		if !errors.Is(err, backends.ErrUnavailable) || !strings.Contains(err.Error(), a.at) {
			t.Errorf("begin: %v", err)
		}
		if _, err := s.Usage(t.Context()); !errors.Is(err, backends.ErrUnavailable) {
			t.Errorf("usage: %v", err)
		}
	}
	if _, err := os.Stat(a.at); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount point: %v", err)
	}
	if err := os.Mkdir(a.at, 0o750); err != nil {
		t.Fatal(err)
	}
	a.mount()
	if _, err := mustOpen(t, cfg).Stat(t.Context(), loc); err != nil {
		t.Error(err)
	}
}

func TestAFolderIsKnownByItsMarker(t *testing.T) {
	root := t.TempDir()
	a, b := filepath.Join(root, "a"), filepath.Join(root, "b")
	cfg := Config{Memory: filepath.Join(root, "memory"), Paths: []Folder{{a, 1}, {b, 0}}}
	s := mustOpen(t, cfg)
	loc := mustPut(t, s, "k", 1000)
	ids := [2]string{s.members[0].up.id, s.members[1].up.id}
	if ids[0] == "" || ids[1] == "" || ids[0] == ids[1] {
		t.Fatalf("ids %v", ids)
	}
	s.Close()
	marker := filepath.Join(a, markerName)
	state := func() error { s.Close(); s = mustOpen(t, cfg); return s.Degraded() }

	// Disks that have changed places are both the store's.
	swap := func() error {
		return errors.Join(os.Rename(a, b+"2"), os.Rename(b, a), os.Rename(b+"2", b))
	}
	if err := errors.Join(swap(), state()); err != nil {
		t.Errorf("changed places: %v", err)
	}
	if _, err := s.Stat(t.Context(), loc); err != nil {
		t.Errorf("changed places: %v", err)
	}
	if err := errors.Join(swap(), state()); err != nil {
		t.Fatal(err)
	}

	// A backup that was restored without hidden files.
	if err := errors.Join(os.Remove(marker), state()); err != nil {
		t.Errorf("restored: %v", err)
	}
	if got, err := os.ReadFile(marker); err != nil || strings.TrimSpace(string(got)) != ids[0] {
		t.Errorf("its marker is %q, %v, before %s", got, err, ids[0])
	}

	// Another store's disk.
	if err := os.WriteFile(marker, []byte("another\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := state(); err == nil || !strings.Contains(err.Error(), "another, not "+ids[0]) {
		t.Errorf("another one's: %v", err)
	}
	if w, err := s.Begin(t.Context(), "k2", 1); err != nil || w.(*writer).in.root != b {
		t.Errorf("begin beside another one's: %v", err)
	}

	// A new disk in the place of a broken one, as the message says.
	if err := errors.Join(os.RemoveAll(a), os.Mkdir(a, 0o750)); err != nil {
		t.Fatal(err)
	}
	err := state()
	if err == nil {
		t.Fatal("an empty folder took a's place")
	}
	_, command, _ := strings.Cut(err.Error(), "echo ")
	id, file, _ := strings.Cut(command, " > ")
	if err := errors.Join(os.WriteFile(strings.TrimSpace(file), []byte(id+"\n"), 0o640), state()); err != nil {
		t.Errorf("after what the message says: %v", err)
	}
	if loc := mustPut(t, s, "k3", 1000); filepath.Dir(path(t, loc)) != a {
		t.Errorf("it went to %s", loc.URL)
	}
}

// A store without a memory, or that is read-only, makes no marker; one whose memory
// cannot be written works, and says so.
func TestMarkersAreMadeWhereTheyAreOfUse(t *testing.T) {
	root := t.TempDir()
	a := filepath.Join(root, "a")
	mustPut(t, mustOpen(t, Config{Path: a}), "k", 10)
	mustOpen(t, Config{Path: a, ReadOnly: true, Memory: filepath.Join(root, "memory")})
	if got := list(t, root); len(got) != 1 {
		t.Errorf("there is %v", got)
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o640); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, Config{Path: a, Memory: filepath.Join(root, "full")})
	s.memory.path, s.memory.ids = filepath.Join(root, "file", "x"), map[string][]string{}
	s.memory.keep(a, "id")
	if err := s.Degraded(); err == nil || !strings.Contains(err.Error(), "cannot remember") {
		t.Errorf("degraded: %v", err)
	}
	mustPut(t, s, "k2", 10)
	if err := os.WriteFile(filepath.Join(root, "full", "local.json"), []byte("{"), 0o640); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(Config{ID: "local", Path: a, Memory: filepath.Join(root, "full")}); err == nil {
		s.Close()
		t.Error("a damaged memory was taken for none")
	}
}

// Claims of the version before name no folder, nor do those of a store that has no
// markers.
func TestAClaimWithoutAFolderIsLookedForInAll(t *testing.T) {
	root := t.TempDir()
	a, b := filepath.Join(root, "a"), filepath.Join(root, "b")
	s := mustOpen(t, Config{Path: b})
	w := beginFile(t, s, "k")
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(w.Claim()), "folder") {
		t.Errorf("claim %s", w.Claim())
	}
	s = mustOpen(t, Config{Memory: filepath.Join(root, "memory"), Paths: []Folder{{Path: a}, {Path: b}}})
	if _, err := backendtest.Put(t.Context(), s, "other", bytes.NewReader(nil), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Abandon(t.Context(), w.Claim()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(b, "k")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
