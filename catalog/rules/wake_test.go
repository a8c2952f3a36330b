package rules_test

import (
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"glanced/catalog/records"
	"glanced/catalog/records/sqlite"
	"glanced/catalog/rules"
)

// Who follows the log of changes is woken by what it tells, and by nothing else.
func TestChangesWake(t *testing.T) {
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "catalog.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	r := rules.New(db, rules.Options{})
	img := records.Image{ID: uuid.NewString(), Owner: "p", Status: records.Queued, Visibility: "private"}
	set := func(change func(*records.Image)) func() error {
		return func() error {
			_, err := r.Update(t.Context(), img.ID, func(i *records.Image) error { change(i); return nil })
			return err
		}
	}
	name := "name"
	for _, c := range []struct {
		what  string
		do    func() error
		wakes bool
	}{
		{"a new image", func() error { _, err := r.Create(t.Context(), img); return err }, true},
		{"a new name", set(func(i *records.Image) { i.Name = &name }), true},
		{"the same name", set(func(i *records.Image) { i.Name = &name }), false},
		{"what an upload holds", set(func(i *records.Image) { i.Reserved = 5 }), false},
		{"a status", set(func(i *records.Image) { i.Status = records.Saving }), true},
		{"a move that is refused", func() error {
			if err := set(func(i *records.Image) { i.Status = records.Deactivated })(); err == nil {
				t.Error("it was not refused")
			}
			return nil
		}, false},
		{"others' changes", func() error { r.Wake(); return nil }, true},
	} {
		changed := r.Changed()
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		select {
		case <-changed:
			if !c.wakes {
				t.Errorf("%s wakes", c.what)
			}
		default:
			if c.wakes {
				t.Errorf("%s does not wake", c.what)
			}
		}
	}
}
