package file

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"glanced/backends"
	"glanced/backends/backendtest"
)

func beginFile(t testing.TB, s *Store, key string) *writer {
	t.Helper()
	w, err := s.Begin(t.Context(), key, -1)
	if err != nil {
		t.Fatal(err)
	}
	return w.(*writer)
}

// Two files may have the same inode, one after the other, and be born within one
// tick of the kernel's clock: what else the claim says tells them apart.
func TestAnInodeUsedAgainIsAnotherFile(t *testing.T) {
	for name, lack := range lacking {
		s := openStore(t, t.TempDir())
		lack(s)
		claims, alike := map[backends.Claim]bool{}, map[mark]int{}
		for range 200 {
			w := beginFile(t, s, "k")
			if claims[w.Claim()] {
				t.Errorf("%s: claim %s was there before", name, w.Claim())
			}
			claims[w.Claim()] = true
			alike[mark{ino: w.claim.ino, born: w.claim.born}]++
			if err := w.Abort(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: 200 uploads had %d pairs of inode and birth time", name, len(alike))
	}
}

// Where all that is left is the inode and the second, uploads take their time.
func TestUploadsThatCouldBeMistakenAreApart(t *testing.T) {
	s := openStore(t, t.TempDir())
	s.unborn, s.unhandled, s.coarse = true, true, true
	synctest.Test(t, func(t *testing.T) {
		claims := map[backends.Claim]bool{}
		for range 20 {
			w := beginFile(t, s, "k")
			if claims[w.Claim()] {
				t.Errorf("claim %s was there before", w.Claim())
			}
			claims[w.Claim()] = true
			if err := w.Abort(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Millisecond, cancel)
		if _, err := s.Begin(ctx, "k", -1); !errors.Is(err, context.Canceled) {
			t.Errorf("the client hung up, and %v", err)
		}
		if left := list(t, s.members[0].root); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

// Between the look at a file and its removal, another store on the same folder
// removes it, and a successor is published.
func TestNobodyComesBetweenALookAndARemoval(t *testing.T) {
	for name, removes := range map[string]func(s *Store, w *writer, loc backends.Location) error{
		"abandon": func(s *Store, w *writer, _ backends.Location) error { return s.Abandon(t.Context(), w.Claim()) },
		"delete":  func(s *Store, _ *writer, loc backends.Location) error { return s.Delete(t.Context(), loc) },
	} {
		root := t.TempDir()
		s, other := openStore(t, root), openStore(t, root)
		w := beginFile(t, s, "k")
		loc, err := w.Commit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		between := make(chan struct{})
		s.looked = func() {
			go func() {
				defer close(between)
				if err := other.Abandon(t.Context(), w.Claim()); err != nil {
					t.Error(err)
				}
				if _, err := backendtest.Put(t.Context(), other, "k", strings.NewReader("successor"), -1); err != nil {
					t.Error(err)
				}
			}()
			select { // it has to wait until this removal is through
			case <-between:
			case <-time.After(100 * time.Millisecond):
			}
		}
		if err := removes(s, w, loc); err != nil {
			t.Error(err)
		}
		<-between
		if got, err := os.ReadFile(filepath.Join(root, "k")); err != nil || string(got) != "successor" {
			t.Errorf("%s: the successor is %q, %v", name, got, err)
		}
	}
}

func TestAFileWhoseTimeWasChangedIsNobodysToRemove(t *testing.T) {
	for name, lack := range lacking {
		s := openStore(t, t.TempDir())
		lack(s)
		w := beginFile(t, s, "k")
		if _, err := w.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(s.members[0].root, "k")
		if err := os.Chtimes(file, w.began, w.began.Add(1)); err != nil {
			t.Fatal(err)
		}
		if err := s.Abandon(t.Context(), w.Claim()); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestACommitWhoseLinkWasMadeAlreadySucceeds(t *testing.T) {
	for name, lack := range lacking {
		s := openStore(t, t.TempDir())
		lack(s)
		w := beginFile(t, s, "k")
		if _, err := w.Write([]byte("content")); err != nil {
			t.Fatal(err)
		}
		if err := w.persist(); err != nil {
			t.Fatal(err)
		}
		// As if the server of a network file system had done it, and its answer were lost.
		if err := w.link(); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Commit(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := list(t, s.members[0].root); len(got) != 1 {
			t.Errorf("%s: %v", name, got)
		}
		if err := w.Abort(t.Context()); err != nil {
			t.Error(err)
		}
		if left := list(t, s.members[0].root); len(left) > 0 {
			t.Errorf("%s: left: %v", name, left)
		}
	}
}

// Version 2 of the catalog's database recorded where an upload would lie.
func TestALocationIsAClaimOfTheStoreBefore(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, filepath.Join(root, "images"))
	if _, err := backendtest.Put(t.Context(), s, "k with space%41", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	old := backends.Claim("file://" + s.members[0].root + "/k%20with%20space%2541")
	for range 2 {
		if err := s.Abandon(t.Context(), old); err != nil {
			t.Error(err)
		}
		if left := list(t, s.members[0].root); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}

	// Of another folder, it is not known what it left.
	elsewhere := backends.Claim("file://" + root + "/other/k")
	if err := s.Abandon(t.Context(), elsewhere); err != nil {
		t.Errorf("nothing is there, and %v", err)
	}
	if _, err := backendtest.Put(t.Context(), s, "k", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []backends.Claim{elsewhere, "file:///", "file:k", "file://" + backends.Claim(s.members[0].root) + "/../k", "file://" + backends.Claim(root) + "/images/.incoming"} {
		if err := s.Abandon(t.Context(), c); !errors.Is(err, backends.ErrBadLocation) {
			t.Errorf("abandon %s: %v", c, err)
		}
	}
	if got := list(t, s.members[0].root); len(got) != 1 {
		t.Errorf("stored: %v", got)
	}
}

func TestAClaimNamesNothingOutsideTheFolder(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, filepath.Join(root, "images"))
	secret := filepath.Join(root, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := s.markAt(unix.AT_FDCWD, secret)
	if err != nil {
		t.Fatal(err)
	}
	good := claim{mark: m, key: "k"}
	for _, change := range []func(*claim){
		func(c *claim) { c.key = "../secret" },
		func(c *claim) { c.key = "" },
		func(c *claim) { c.temp = "../secret" },
		func(c *claim) { c.temp = incoming + "/../../secret" },
		func(c *claim) { c.temp = incoming + "/" },
		func(c *claim) { c.temp = secret },
		func(c *claim) { c.time = "" },
	} {
		c := good
		change(&c)
		if err := s.Abandon(t.Context(), c.text()); !errors.Is(err, backends.ErrBadLocation) {
			t.Errorf("abandon %s: %v", c.text(), err)
		}
	}
	if _, err := os.Stat(secret); err != nil {
		t.Error(err)
	}
}
