package file

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/backendtest"
	"glanced/backends/setting"
)

func mustOpen(t testing.TB, cfg Config) *Store {
	t.Helper()
	cfg.ID = "local"
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustPut(t testing.TB, s *Store, key string, size int) backends.Location {
	t.Helper()
	loc, err := backendtest.Put(t.Context(), s, key, bytes.NewReader(backendtest.Noise(1, size)), int64(size))
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// disks makes folders below root, one for each name, on file systems of their own.
func disks(t *testing.T, root string, options ...string) (folders []Folder) {
	t.Helper()
	for i, o := range options {
		dir := filepath.Join(root, string(rune('a'+i)))
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		mustMount(t, dir, o)
		folders = append(folders, Folder{Path: dir})
	}
	return folders
}

func TestContractOverSeveralFolders(t *testing.T) {
	config := func(root string) Config {
		return Config{ID: "local", Memory: filepath.Join(root, "memory"), Reserve: setting.Part{Bytes: 1 << 20},
			Paths: []Folder{{Path: filepath.Join(root, "a")}, {Path: filepath.Join(root, "b")}, {Path: filepath.Join(root, "c"), Priority: -1}}}
	}
	open := func(t testing.TB, root string) *Store {
		s, err := Open(config(root))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	root := func(s backends.Store) string { return filepath.Dir(s.(*Store).members[0].root) }
	backendtest.Suite{
		New:   func(t testing.TB) backends.Store { return open(t, t.TempDir()) },
		Again: func(t testing.TB, s backends.Store) backends.Store { return open(t, root(s)) },
		List: func(t testing.TB, s backends.Store) []string {
			return slices.DeleteFunc(list(t, root(s)), func(path string) bool {
				return filepath.Base(path) == markerName || filepath.Base(filepath.Dir(path)) == "memory"
			})
		},
		Copy: func(t testing.TB, s backends.Store, loc backends.Location) (backends.Store, backends.Location) {
			other := t.TempDir()
			copyFolder(t, root(s), other)
			c := open(t, other)
			return c, backends.Location{Store: "local", Size: -1, URL: "file://" + other + strings.TrimPrefix(path(t, loc), root(s))}
		},
		Replace: func(t testing.TB, s backends.Store, loc backends.Location, content []byte) {
			if err := os.WriteFile(path(t, loc), content, 0o640); err != nil {
				t.Fatal(err)
			}
		},
	}.Run(t)
}

func TestAnUploadGoesWhereItFits(t *testing.T) {
	root := t.TempDir()
	folders := disks(t, root, "size=4m", "size=16m", "size=32m")
	folders[0].Priority = 10
	s := mustOpen(t, Config{Paths: folders})
	in := func(loc backends.Location) string { return filepath.Base(filepath.Dir(path(t, loc))) }

	for _, c := range []struct {
		key, want string
		size      int
	}{
		{"small", "a", 1 << 20},           // the greatest priority
		{"too large for a", "c", 8 << 20}, // of equals the one with more free space
		{"larger than all but c", "c", 20 << 20},
		{"now b has more", "b", 5 << 20},
	} {
		if loc := mustPut(t, s, c.key, c.size); in(loc) != c.want {
			t.Errorf("%s: it went to %s, not %s", c.key, in(loc), c.want)
		}
	}

	_, err := s.Begin(t.Context(), "k", 64<<20)
	if !errors.Is(err, backends.ErrFull) {
		t.Fatalf("larger than every disk: %v", err)
	}
	for _, want := range []string{folders[0].Path + " has ", folders[1].Path + " has ", folders[2].Path + " has ", remedy} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %q: %v", want, err)
		}
	}

	// What is of unknown size goes to the best, and is not moved on when that is full.
	before := list(t, root)
	_, err = backendtest.Put(t.Context(), s, "k", bytes.NewReader(backendtest.Noise(1, 8<<20)), -1)
	if !errors.Is(err, backends.ErrFull) || !strings.Contains(err.Error(), folders[0].Path+" has ") || !strings.Contains(err.Error(), remedy) {
		t.Errorf("of unknown size: %v", err)
	}
	if after := list(t, root); !slices.Equal(before, after) {
		t.Errorf("left: %v, before %v", after, before)
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Total != 52<<20 || u.Free > 18<<20 || u.Free < 17<<20 {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func TestWhatOthersHaveAnnouncedIsLeftToThem(t *testing.T) {
	folders := disks(t, t.TempDir(), "size=4m", "size=4m")
	folders[0].Priority = 10
	s := mustOpen(t, Config{Paths: folders})
	begin := func(key string, size int64) *writer {
		t.Helper()
		w, err := s.Begin(t.Context(), key, size)
		if err != nil {
			t.Fatal(err)
		}
		return w.(*writer)
	}
	first := begin("first", 3<<20)
	second := begin("second", 3<<20)
	third := begin("third", 2<<20) // fits nowhere if they keep their word; they may not
	if first.in.root != folders[0].Path || second.in.root != folders[1].Path {
		t.Errorf("they went to %s and %s", first.in.root, second.in.root)
	}
	for _, w := range []*writer{first, third} {
		if err := w.Abort(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := second.Write(backendtest.Noise(1, 3<<20)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, m := range s.members {
		if n := m.up.promised.Load(); n != 0 {
			t.Errorf("%s: %d bytes are still promised", m.root, n)
		}
	}
}

func TestTheReserveIsLeftFree(t *testing.T) {
	for name, reserve := range map[string]setting.Part{"bytes": {Bytes: 4 << 20}, "percent": {Percent: 50}} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			mustMount(t, root, "size=8m")
			s := mustOpen(t, Config{Path: root, Reserve: reserve})
			if u, err := s.Usage(t.Context()); err != nil || u.Total != 8<<20 || u.Free > 4<<20 || u.Free < 4<<20-64<<10 {
				t.Errorf("usage %+v, %v", u, err)
			}
			for _, size := range []int64{5 << 20, -1} {
				_, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(backendtest.Noise(1, 5<<20)), size)
				if !errors.Is(err, backends.ErrFull) || !strings.Contains(err.Error(), "4194304 are reserved") || !strings.Contains(err.Error(), remedy) {
					t.Errorf("size %d: %v", size, err)
				}
				if left := list(t, root); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			}
			// Zeros take no space, and what is smaller fits.
			if _, err := backendtest.Put(t.Context(), s, "zeros", bytes.NewReader(make([]byte, 5<<20)), -1); err != nil {
				t.Error(err)
			}
			mustPut(t, s, "k", 3<<20)
			var st unix.Statfs_t
			if err := unix.Statfs(root, &st); err != nil || int64(st.Bavail)*st.Bsize < 4<<20 {
				t.Errorf("%d bytes are free, %v", int64(st.Bavail)*st.Bsize, err)
			}
		})
	}
}

// The next folder's turn: a file system that had an error is read-only from then on.
func TestAFolderThatCannotBeWrittenIsPassedOver(t *testing.T) {
	root := t.TempDir()
	folders := []Folder{{filepath.Join(root, "a"), 10}, {filepath.Join(root, "b"), 0}}
	s := mustOpen(t, Config{Paths: folders})
	kept := mustPut(t, s, "kept", 1000)
	s.Close()
	mustRemountReadOnly(t, folders[0].Path)
	s = mustOpen(t, Config{Paths: folders})
	if loc := mustPut(t, s, "k", 1000); filepath.Dir(path(t, loc)) != folders[1].Path {
		t.Errorf("it went to %s", loc.URL)
	}
	if _, err := s.Stat(t.Context(), kept); err != nil {
		t.Errorf("what lies there: %v", err)
	}
	mustRemountReadOnly(t, folders[1].Path)
	s = mustOpen(t, Config{Paths: folders})
	_, err := s.Begin(t.Context(), "k3", 1000)
	if !errors.Is(err, backends.ErrReadOnly) || !strings.Contains(err.Error(), folders[0].Path) || !strings.Contains(err.Error(), folders[1].Path) {
		t.Errorf("neither can be written: %v", err)
	}
}

// Uploads of one key that are in two folders: one of them is published.
func TestAKeyIsInOneFolder(t *testing.T) {
	root := t.TempDir()
	cfg := Config{Paths: []Folder{{Path: filepath.Join(root, "a")}, {Path: filepath.Join(root, "b")}}}
	for range 50 {
		var ws []*writer
		for _, s := range []*Store{mustOpen(t, cfg), mustOpen(t, cfg)} {
			for _, m := range s.members {
				w, err := m.up.begin(t.Context(), "k", -1)
				if err != nil {
					t.Fatal(err)
				}
				ws = append(ws, w)
			}
		}
		errs := make(chan error)
		for _, w := range ws {
			go func() {
				_, err := w.Commit(t.Context())
				errs <- err
			}()
		}
		published := 0
		for range ws {
			if err := <-errs; err == nil {
				published++
			} else if !errors.Is(err, backends.ErrExists) {
				t.Error(err)
			}
		}
		if got := list(t, root); published != 1 || len(got) != 1 {
			t.Fatalf("%d were published: %v", published, got)
		}
		for _, w := range ws {
			if err := w.Abort(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if left := list(t, root); len(left) > 0 {
			t.Fatalf("left: %v", left)
		}
	}
}

func TestAnObjectMayBeMovedToAnotherFolder(t *testing.T) {
	root := t.TempDir()
	a, b := filepath.Join(root, "a"), filepath.Join(root, "b")
	s := mustOpen(t, Config{Paths: []Folder{{a, 1}, {b, 0}}})
	loc := mustPut(t, s, "k", 100_000)
	if err := os.Rename(filepath.Join(a, "k"), filepath.Join(b, "k")); err != nil {
		t.Fatal(err)
	}
	if full, err := s.Stat(t.Context(), loc); err != nil || full.Version != loc.Version {
		t.Errorf("%+v, %v", full, err)
	}
	if _, err := s.Begin(t.Context(), "k", -1); !errors.Is(err, backends.ErrExists) {
		t.Errorf("another of its key: %v", err)
	}
	other := backends.Location{Store: "local", URL: loc.URL, Size: loc.Size + 1}
	if err := s.Delete(t.Context(), other); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("delete of another size: %v", err)
	}
	bare := backends.Location{Store: "local", URL: loc.URL, Size: -1}
	if _, err := s.Stat(t.Context(), bare); !errors.Is(err, backends.ErrNotFound) {
		t.Errorf("with nothing to know it by: %v", err)
	}
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Error(err)
	}
	if left := list(t, root); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestOneFolderIsNamedOnce(t *testing.T) {
	root := t.TempDir()
	a, link := filepath.Join(root, "a"), filepath.Join(root, "link")
	if err := errors.Join(os.Mkdir(a, 0o750), os.Symlink(a, link)); err != nil {
		t.Fatal(err)
	}
	for _, cfg := range []Config{
		{Paths: []Folder{{Path: a}, {Path: link}}},
		{Path: a, Paths: []Folder{{Path: a}}},
		{Paths: []Folder{{Path: a}, {}}},
		{},
	} {
		if s, err := Open(cfg); err == nil {
			s.Close()
			t.Errorf("%+v was opened", cfg)
		}
	}
}
