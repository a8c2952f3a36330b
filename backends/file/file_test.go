package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/backendtest"
)

func openStore(t testing.TB, root string) *Store {
	t.Helper()
	s, err := Open(Config{ID: "local", Path: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// list names every file below a store's folder.
func list(t testing.TB, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// lacking are stores on file systems that lack something.
var lacking = map[string]func(*Store){
	"without a name until whole":                     func(*Store) {},
	"in .incoming until whole":                       func(s *Store) { s.named = true },
	"without birth times and file handles":           func(s *Store) { s.unborn, s.unhandled = true, true },
	"without birth times, and with times in seconds": func(s *Store) { s.unborn, s.coarse = true, true },
	"without file handles":                           func(s *Store) { s.unhandled = true },
}

func TestContract(t *testing.T) {
	for name, lack := range lacking {
		t.Run(name, func(t *testing.T) {
			store := func(t testing.TB, root string) *Store {
				s, err := Open(Config{ID: "local", Path: root})
				if err != nil {
					t.Fatal(err)
				}
				lack(s)
				return s
			}
			backendtest.Suite{
				New: func(t testing.TB) backends.Store {
					return store(t, filepath.Join(t.TempDir(), "odd name %41 ảnh"))
				},
				Again: func(t testing.TB, s backends.Store) backends.Store { return store(t, s.(*Store).members[0].root) },
				List:  func(t testing.TB, s backends.Store) []string { return list(t, s.(*Store).members[0].root) },
				Copy: func(t testing.TB, s backends.Store, loc backends.Location) (backends.Store, backends.Location) {
					root := t.TempDir()
					copyFolder(t, s.(*Store).members[0].root, root)
					c := store(t, root)
					return c, c.members[0].up.locate(filepath.Base(path(t, loc)), -1, "")
				},
				Replace: func(t testing.TB, s backends.Store, loc backends.Location, content []byte) {
					if err := os.WriteFile(path(t, loc), content, 0o640); err != nil {
						t.Fatal(err)
					}
				},
			}.Run(t)
		})
	}
}

// path is the file of a location.
func path(t testing.TB, loc backends.Location) string {
	t.Helper()
	u, err := url.Parse(loc.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Path
}

func TestTheLayoutIsGlances(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	content := backendtest.Noise(1, 1000)
	loc, err := backendtest.Put(t.Context(), s, "6f3a", bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	if want := "file://" + root + "/6f3a"; loc.URL != want {
		t.Errorf("location %s, want %s", loc.URL, want)
	}
	got, err := os.ReadFile(filepath.Join(root, "6f3a"))
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file: %v, or other bytes", err)
	}
}

func TestZeroBlocksBecomeHoles(t *testing.T) {
	s := openStore(t, t.TempDir())
	content := make([]byte, 64<<20)
	copy(content[20<<20:], backendtest.Noise(1, 1<<20))
	content[40<<20+5] = 1
	if _, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(s.members[0].root, "k"), &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; used > 2<<20 || st.Size != int64(len(content)) {
		t.Errorf("%d bytes long, %d bytes on disk", st.Size, used)
	}
}

func TestLocationsOutsideTheFolderAreRefused(t *testing.T) {
	root := t.TempDir()
	inner := filepath.Join(root, "images")
	s := openStore(t, inner)
	secret := filepath.Join(root, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(inner, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(inner, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(inner, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{
		"file://" + secret,
		"file://" + inner + "/../secret",
		"file://" + inner + "/%2e%2e/secret",
		"file://" + inner + "/..%2fsecret",
		"file://" + inner + "//link",
		"file://" + inner + "/link",
		"file://" + inner + "/fifo",
		"file://" + inner + "/folder",
		"file://" + inner + "/.incoming",
		"file://" + inner + "/",
		"file://" + inner,
		"file://host" + inner + "/k",
		"file://" + inner + "/k?x",
		"file://" + inner + "/k#x",
		"http://" + inner + "/k",
		inner + "/k",
	} {
		for _, size := range []int64{-1, 1} {
			b, err := s.Open(t.Context(), backends.Location{Store: "local", URL: url, Size: size})
			if !errors.Is(err, backends.ErrBadLocation) {
				t.Errorf("open %s: %v", url, err)
			}
			if b != nil {
				b.Close()
			}
		}
	}
}

// The folder that a location names is the one that the store had then.
func TestAMovedFolderIsUnderstood(t *testing.T) {
	old, root := t.TempDir(), t.TempDir()
	before := openStore(t, old)
	content := backendtest.Noise(1, 100_000)
	loc, err := backendtest.Put(t.Context(), before, "k", bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	copyFolder(t, old, root)
	s := openStore(t, root)
	sized := backends.Location{Store: "local", URL: loc.URL, Size: loc.Size}
	versioned := backends.Location{Store: "local", URL: loc.URL, Size: -1, Version: loc.Version}
	for _, l := range []backends.Location{loc, sized, versioned} {
		full, err := s.Stat(t.Context(), l)
		if err != nil || full != loc {
			t.Errorf("%+v is completed to %+v, %v", l, full, err)
		}
		b, err := s.Open(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		if b.Size() != loc.Size {
			t.Errorf("%d bytes", b.Size())
		}
		b.Close()
	}
	if err := os.WriteFile(filepath.Join(root, "another"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, l := range map[string]backends.Location{
		"without size and version": {Store: "local", URL: loc.URL, Size: -1},
		"of another size":          {Store: "local", URL: loc.URL, Size: loc.Size + 1},
		"of another version":       {Store: "local", URL: loc.URL, Size: -1, Version: "1:00"},
		"not here":                 {Store: "local", URL: loc.URL + "2", Size: loc.Size},
		"not clean":                {Store: "local", URL: "file://" + old + "/../k", Size: loc.Size},
		"hidden":                   {Store: "local", URL: "file://" + old + "/.k", Size: loc.Size},
		"on another host":          {Store: "local", URL: "file://host" + old + "/k", Size: loc.Size},
	} {
		_, err := s.Open(t.Context(), l)
		deleted := s.Delete(t.Context(), l)
		for _, err := range []error{err, deleted} {
			// ErrNotFound would say that the bytes are gone; they may be where the URL says.
			if !errors.Is(err, backends.ErrBadLocation) || errors.Is(err, backends.ErrNotFound) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if err := s.Delete(t.Context(), loc); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(root, "k")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was deleted, and %v", err)
	}
	if _, err := os.Stat(filepath.Join(old, "k")); err != nil {
		t.Errorf("the old folder: %v", err)
	}
}

func TestAStoreConfiguredReadOnlyChangesNothing(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	loc, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader([]byte("content")), 7)
	if err != nil {
		t.Fatal(err)
	}
	w := beginFile(t, s, "k2")
	if _, err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What a crash left is for a store that may write.
	if err := errors.Join(os.Mkdir(filepath.Join(root, incoming), 0o700), os.WriteFile(filepath.Join(root, incoming, "k.x"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	before := list(t, root)
	r, err := Open(Config{ID: "local", Path: root, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = r.Begin(t.Context(), "k3", 1)
	for what, err := range map[string]error{
		"begin": err, "delete": r.Delete(t.Context(), loc), "abandon": r.Abandon(t.Context(), w.Claim()),
	} {
		if !errors.Is(err, backends.ErrReadOnly) || !strings.Contains(err.Error(), "configured") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if full, err := r.Stat(t.Context(), loc); err != nil || full != loc {
		t.Errorf("stat: %+v, %v", full, err)
	}
	if after := list(t, root); !slices.Equal(after, before) {
		t.Errorf("%v became %v", before, after)
	}
	missing := filepath.Join(root, "missing")
	if s, err := Open(Config{ID: "local", Path: missing, ReadOnly: true}); err == nil {
		s.Close()
		t.Error("a folder that is not there was opened read-only")
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder was made: %v", err)
	}
}

func TestAFullDiskIsToldAndLeavesNothing(t *testing.T) {
	root := t.TempDir()
	mustMount(t, root, "size=4m")
	s := openStore(t, root)
	for _, c := range []struct {
		name string
		size int64
	}{{"found out while writing", -1}, {"known before the first byte", 8 << 20}} {
		body := bytes.NewReader(backendtest.Noise(1, 8<<20))
		_, err := backendtest.Put(t.Context(), s, "k", body, c.size)
		if !errors.Is(err, backends.ErrFull) {
			t.Errorf("%s: error %v, want ErrFull", c.name, err)
		}
		if c.size > 0 && body.Len() != 8<<20 {
			t.Errorf("%s: %d bytes were read all the same", c.name, 8<<20-body.Len())
		}
		if left := list(t, root); len(left) > 0 {
			t.Errorf("%s: left: %v", c.name, left)
		}
	}
	if u, err := s.Usage(t.Context()); err != nil || u.Free < 3<<20 || u.Total != 4<<20 {
		t.Errorf("usage afterwards %+v, %v", u, err)
	}
}

func TestAReadOnlyFolderCanBeReadOnly(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	loc, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader([]byte("content")), 7)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	mustRemountReadOnly(t, root)
	s = openStore(t, root)
	for _, named := range []bool{false, true} {
		s.named = named
		if _, err := backendtest.Put(t.Context(), s, "k2", bytes.NewReader([]byte("x")), 1); !errors.Is(err, backends.ErrReadOnly) {
			t.Errorf("put: %v", err)
		}
	}
	if err := s.Delete(t.Context(), loc); !errors.Is(err, backends.ErrReadOnly) {
		t.Errorf("delete: %v", err)
	}
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p := make([]byte, 7)
	if err := b.ReadAt(t.Context(), p, 0); err != nil || string(p) != "content" {
		t.Errorf("read %q, %v", p, err)
	}
}

func TestAFileCutOffUnderneathIsNoticed(t *testing.T) {
	s := openStore(t, t.TempDir())
	loc, err := backendtest.Put(t.Context(), s, "k", bytes.NewReader(make([]byte, 5000)), 5000)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Open(t.Context(), loc)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := os.Truncate(filepath.Join(s.members[0].root, "k"), 100); err != nil {
		t.Fatal(err)
	}
	if err := b.ReadAt(t.Context(), make([]byte, 200), 0); !errors.Is(err, backends.ErrChanged) {
		t.Errorf("read: %v", err)
	}
}

// The variables that make this test program a child that puts an endless body.
const (
	childRoot  = "FILE_STORE_TEST_PUT_INTO"
	childNamed = "FILE_STORE_TEST_NAMED"
)

func TestMain(m *testing.M) {
	if root := os.Getenv(childRoot); root != "" {
		s, err := Open(Config{ID: "local", Path: root})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		s.named = os.Getenv(childNamed) != ""
		_, err = backendtest.Put(context.Background(), s, "k", &endless{block: backendtest.Noise(1, 1<<20)}, -1)
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestAKilledPutLeavesNothing(t *testing.T) {
	for _, named := range []string{"", "1"} {
		root := t.TempDir()
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childRoot+"="+root, childNamed+"="+named)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		// The child says when it is in the middle.
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			t.Error(err)
		}
		before := list(t, root)
		if named != "" {
			// A store opened meanwhile leaves a living upload alone.
			openStore(t, root)
			if len(before) != 1 || len(list(t, root)) != 1 {
				t.Errorf("while the child writes: %v, then %v", before, list(t, root))
			}
		} else if len(before) != 0 {
			t.Errorf("visible while the child writes: %v", before)
		}
		child.Process.Kill()
		child.Wait()
		openStore(t, root)
		if left := list(t, root); len(left) > 0 {
			t.Errorf("left after the kill: %v", left)
		}
	}
}

func TestAFolderThatCannotBeMadeIsNoMissingObject(t *testing.T) {
	_, err := Open(Config{ID: "x", Path: "/proc/glanced"})
	if err == nil || errors.Is(err, backends.ErrNotFound) || !strings.Contains(err.Error(), "/proc/glanced") {
		t.Errorf("error %v, want one that names the folder, and is not about an object", err)
	}
}
