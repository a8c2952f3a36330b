package all

import (
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"glanced/backends/file"
	"glanced/backends/rbd"
)

func TestEveryKindCanBeConfigured(t *testing.T) {
	common := keys(reflect.TypeFor[Common]())
	for _, typ := range Types() {
		c, err := New(typ)
		if err != nil {
			t.Fatal(err)
		}
		all := c.Keys()
		if own := all[len(common):]; len(own) == 0 || !slices.Equal(all[:len(common)], common) {
			t.Errorf("%s has the keys %v", typ, all)
		}
		slices.Sort(all)
		if len(slices.Compact(slices.Clone(all))) != len(all) {
			t.Errorf("%s has a key that every store has: %v", typ, all)
		}
		// A field without a tag would be a key that nobody can guess.
		config := reflect.TypeOf(c.Own).Elem()
		for i := range config.NumField() {
			if _, ok := config.Field(i).Tag.Lookup("toml"); !ok {
				t.Errorf("%s.%s has no toml tag", config, config.Field(i).Name)
			}
		}
	}
	if _, err := New("tape"); err == nil || !strings.Contains(err.Error(), strings.Join(Types(), ", ")) {
		t.Errorf("an unknown type: %v", err)
	}
}

func TestAStoreIsOpenedAsConfigured(t *testing.T) {
	dir := t.TempDir()
	c, err := New("file")
	if err != nil {
		t.Fatal(err)
	}
	c.ID, c.Own.(*file.Config).Path = "local", "images"
	if err := c.Below(func(path string) string { return filepath.Join(dir, path) }); err != nil {
		t.Fatal(err)
	}
	s, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := s.Begin(t.Context(), "k", -1)
	if err != nil {
		t.Fatal(err)
	}
	loc, err := w.Commit(t.Context())
	if err != nil || loc.Store != "local" || loc.URL != "file://"+dir+"/images/k" {
		t.Errorf("committed to %+v, %v", loc, err)
	}
	c.ReadOnly = true
	r, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Delete(t.Context(), loc); err == nil {
		t.Error("a read-only store deletes")
	}
	c.Own.(*file.Config).Path = ""
	if _, err := c.Open(); err == nil || !strings.Contains(err.Error(), `store "local"`) {
		t.Errorf("without a path: %v", err)
	}
}

func TestOnlyKnownKindsAreNear(t *testing.T) {
	for typ, far := range map[string]bool{"file": false, "s3": true, "anything": true} {
		if got := (Config{Common: Common{Type: typ}}).Far(); got != far {
			t.Errorf("a store of type %s is far: %v", typ, got)
		}
	}
	for _, cached := range []bool{false, true} {
		c, err := New("rbd")
		if err != nil {
			t.Fatal(err)
		}
		c.Own.(*rbd.Config).Cache = cached
		if c.Far() != cached {
			t.Errorf("an rbd store with cache = %v is far: %v", cached, c.Far())
		}
	}
	for _, typ := range near {
		if !slices.Contains(Types(), typ) {
			t.Errorf("%q is near, and no kind", typ)
		}
	}
}
