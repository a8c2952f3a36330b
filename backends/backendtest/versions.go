package backendtest

import (
	"bytes"
	"fmt"
	"testing"

	"glanced/backends"
	"glanced/backends/stored"
)

// bare is a location without what is known of the object.
func bare(loc backends.Location) backends.Location {
	return backends.Location{Store: loc.Store, URL: loc.URL, Size: -1}
}

func testNotFound(t *testing.T, suite Suite, s backends.Store) {
	loc := suite.put(t, s, "k", []byte("x"))
	suite.remove(t, s, loc)
	for _, l := range []backends.Location{loc, bare(loc)} {
		_, err := s.Open(t.Context(), l)
		wantErr(t, err, backends.ErrNotFound)
		_, err = s.Stat(t.Context(), l)
		wantErr(t, err, backends.ErrNotFound)
		wantErr(t, s.Delete(t.Context(), l), suite.deletion(backends.ErrNotFound))
	}
}

func testForeignLocations(t *testing.T, suite Suite, s backends.Store) {
	loc := suite.put(t, s, "k", []byte("x"))
	defer suite.remove(t, s, loc)
	for _, bad := range []backends.Location{
		{},
		{Store: loc.Store + "-other", URL: loc.URL, Size: loc.Size, Version: loc.Version},
		{Store: loc.Store, URL: "k", Size: loc.Size, Version: loc.Version},
		{Store: loc.Store, URL: "unknown://" + "somewhere/k", Size: loc.Size, Version: loc.Version},
		{Store: loc.Store, URL: loc.URL + "/../k", Size: loc.Size, Version: loc.Version},
		{Store: loc.Store, URL: "\x00", Size: -1},
	} {
		_, err := s.Open(t.Context(), bad)
		wantErr(t, err, backends.ErrBadLocation)
		_, err = s.Stat(t.Context(), bad)
		wantErr(t, err, backends.ErrBadLocation)
		wantErr(t, s.Delete(t.Context(), bad), backends.ErrBadLocation)
	}
	// A store whose objects others keep cannot know how they call them.
	below, want := backends.Location{Store: loc.Store, URL: loc.URL + "/k", Size: -1}, backends.ErrBadLocation
	if suite.foreign() {
		want = backends.ErrNotFound
	}
	_, err := s.Open(t.Context(), below)
	wantErr(t, err, want)
	_, err = s.Stat(t.Context(), below)
	wantErr(t, err, want)
	wantErr(t, s.Delete(t.Context(), below), suite.deletion(want))
}

func testStat(t *testing.T, suite Suite, s backends.Store) {
	again := suite.Again(t, s)
	defer again.Close()
	for _, n := range []int{0, 1, 4096, 70_000, suite.Big} {
		loc := suite.put(t, s, "k", Noise(40, n))
		for _, l := range []backends.Location{loc, bare(loc), {Store: loc.Store, URL: loc.URL, Size: loc.Size}, {Store: loc.Store, URL: loc.URL, Size: -1, Version: loc.Version}} {
			for _, s := range []backends.Store{s, again} {
				if got, err := s.Stat(t.Context(), l); err != nil || got != loc {
					t.Errorf("%d bytes: %+v is completed to %+v, %v; want %+v", n, l, got, err, loc)
				}
			}
		}
		wantStored(t, s, bare(loc), Noise(40, n))
		suite.remove(t, s, bare(loc))
	}
}

func testChecked(t *testing.T, suite Suite, s backends.Store) {
	content := Noise(41, 70_000)
	loc := suite.put(t, s, "k", content)
	defer suite.remove(t, s, loc)
	for name, change := range map[string]func(*backends.Location){
		"a byte longer":                   func(l *backends.Location) { l.Size++ },
		"empty":                           func(l *backends.Location) { l.Size = 0 },
		"another size, version not known": func(l *backends.Location) { l.Size--; l.Version = "" },
		"another version":                 func(l *backends.Location) { l.Version += "x" },
		"another version, size not known": func(l *backends.Location) { l.Size = -1; l.Version = "0" },
	} {
		other := loc
		change(&other)
		suite.wantChanged(t, s, name, other)
	}
	wantStored(t, s, loc, content)
}

// wantChanged fails unless every call with loc is ErrChanged.
func (suite Suite) wantChanged(t testing.TB, s backends.Store, when string, loc backends.Location) {
	t.Helper()
	t.Log(when)
	b, err := s.Open(t.Context(), loc)
	wantErr(t, err, backends.ErrChanged)
	if b != nil {
		b.Close()
	}
	_, err = s.Stat(t.Context(), loc)
	wantErr(t, err, backends.ErrChanged)
	wantErr(t, s.Delete(t.Context(), loc), suite.deletion(backends.ErrChanged))
}

func testSuccessorsLocation(t *testing.T, suite Suite, s backends.Store) {
	first := suite.put(t, s, "k", Noise(42, 70_000))
	suite.remove(t, s, first)
	second := suite.put(t, s, "k", Noise(43, 70_000))
	defer suite.remove(t, s, second)
	suite.wantChanged(t, s, "the predecessor's location", first)
	wantStored(t, s, second, Noise(43, 70_000))
}

func testReplaced(t *testing.T, suite Suite, s backends.Store) {
	if suite.Replace == nil {
		t.Skip("nobody can replace an object")
	}
	content := Noise(44, 3<<20)
	head := bytes.Clone(content)
	head[10]++
	end := bytes.Clone(content)
	end[len(end)-1]++
	loc := suite.put(t, s, "k", content)
	for name, other := range map[string][]byte{
		"cut off":                content[:len(content)-1],
		"emptied":                nil,
		"longer":                 append(bytes.Clone(content), 0),
		"of another head":        head,
		"of another end":         end,
		"all zeros":              make([]byte, len(content)),
		"another of the length":  Noise(45, len(content)),
		"half of it overwritten": append(bytes.Clone(content[:len(content)/2]), make([]byte, len(content)-len(content)/2)...),
	} {
		suite.Replace(t, s, loc, other)
		suite.wantChanged(t, s, name, loc)
	}
	suite.Replace(t, s, loc, content)
	wantStored(t, s, loc, content)
	suite.remove(t, s, loc)
}

func testCopy(t *testing.T, suite Suite, s backends.Store) {
	if suite.Copy == nil {
		t.Skip("such a store cannot be copied")
	}
	for _, n := range []int{0, 5000, suite.Big} {
		content := Noise(46, n)
		loc := suite.put(t, s, "k", content)
		other, there := suite.Copy(t, s, loc)
		got, err := other.Stat(t.Context(), there)
		if err != nil || got.Size != loc.Size || got.Version != loc.Version {
			t.Errorf("the copy is %+v, %v; the original %+v", got, err, loc)
		}
		there.Size, there.Version = loc.Size, loc.Version
		wantStored(t, other, there, content)
		suite.remove(t, other, there)
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		suite.remove(t, s, loc)
	}
}

func testIdentity(t *testing.T, suite Suite, s backends.Store) {
	again := suite.Again(t, s)
	defer again.Close()
	seen := map[stored.Identity]bool{}
	note := func(key string, content []byte) backends.Location {
		loc := suite.put(t, s, key, content)
		b := open(t, s, loc)
		defer b.Close()
		if b.Identity() == "" || seen[b.Identity()] {
			t.Errorf("identity %q is empty or not new", b.Identity())
		}
		seen[b.Identity()] = true
		same := open(t, again, bare(loc))
		defer same.Close()
		if same.Identity() != b.Identity() {
			t.Errorf("identity %q, then %q of the same bytes", b.Identity(), same.Identity())
		}
		return loc
	}
	for i := range 3 {
		defer suite.remove(t, s, note(fmt.Sprintf("k%d", i), Noise(byte(16+i), 5000)))
	}
	suite.remove(t, s, note("k", Noise(19, 5000)))
	suite.remove(t, s, note("k", Noise(20, 5000))) // a successor
}
