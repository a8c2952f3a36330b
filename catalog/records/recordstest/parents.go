package recordstest

import (
	"errors"
	"sync"
	"testing"

	"glanced/catalog/records"
	"glanced/catalog/rules"
)

// parentOf is an active image and the edge to it.
func parentOf(t *testing.T, s *rules.Records) (records.Image, *records.Parent) {
	t.Helper()
	img := create(t, s, records.Image{Status: records.Active, HashValue: ptr("h1"), Owner: "parents", Visibility: "public"})
	return img, &records.Parent{ID: img.ID, HashValue: "h1"}
}

// adopt makes child a child of parent, as an upload does.
func adopt(t *testing.T, s *rules.Records, child string, parent *records.Parent) error {
	_, err := s.Update(t.Context(), child, func(i *records.Image) error {
		i.Status, i.Parent = records.Active, parent
		return nil
	})
	return err
}

func remove(t *testing.T, s *rules.Records, id string) error {
	_, err := s.Update(t.Context(), id, func(i *records.Image) error {
		i.Status, i.Parent = records.Deleted, nil
		return nil
	})
	return err
}

func testParentMustBeSound(t *testing.T, s *rules.Records) {
	parent, edge := parentOf(t, s)
	child := create(t, s, records.Image{Status: records.Saving})
	wantErr(t, adopt(t, s, child.ID, &records.Parent{ID: child.ID + "x", HashValue: "h1"}), records.ErrParent)
	wantErr(t, adopt(t, s, child.ID, &records.Parent{ID: parent.ID, HashValue: "another"}), records.ErrParent)
	queued := create(t, s, records.Image{HashValue: ptr("h1")})
	wantErr(t, adopt(t, s, child.ID, &records.Parent{ID: queued.ID, HashValue: "h1"}), records.ErrParent)
	update(t, s, parent.ID, func(i *records.Image) { i.Status = records.Deactivated })
	wantErr(t, adopt(t, s, child.ID, edge), records.ErrParent)
	if got := get(t, s, child.ID); got.Status != records.Saving || got.Parent != nil {
		t.Errorf("a refused edge left %+v", got)
	}
	update(t, s, parent.ID, func(i *records.Image) { i.Status, i.Visibility = records.Active, "private" })
	wantErr(t, adopt(t, s, child.ID, edge), records.ErrParent) // its owner can no longer read it
	update(t, s, parent.ID, func(i *records.Image) { i.Visibility = "public" })
	if err := adopt(t, s, child.ID, edge); err != nil {
		t.Fatal(err)
	}
	if got := get(t, s, child.ID); got.Parent == nil || *got.Parent != *edge {
		t.Errorf("the edge reads back as %+v", got.Parent)
	}
	// What happens to the parent later does not break the child.
	update(t, s, parent.ID, func(i *records.Image) { i.Status, i.Visibility = records.Deactivated, "private" })
	update(t, s, child.ID, func(i *records.Image) { i.Name = ptr("still mine") })
}

func testParentInUse(t *testing.T, s *rules.Records) {
	parent, edge := parentOf(t, s)
	var children []string
	for range 2 {
		child := create(t, s, records.Image{Status: records.Saving})
		children = append(children, child.ID)
		if err := adopt(t, s, child.ID, edge); err != nil {
			t.Fatal(err)
		}
	}
	for _, child := range children {
		wantErr(t, remove(t, s, parent.ID), records.ErrInUse)
		if err := remove(t, s, child); err != nil {
			t.Fatal(err)
		}
	}
	if err := remove(t, s, parent.ID); err != nil {
		t.Errorf("all children are gone: %v", err)
	}
}

func testParentRace(t *testing.T, s *rules.Records) {
	for range 20 {
		parent, edge := parentOf(t, s)
		child := create(t, s, records.Image{Status: records.Saving})
		var adopted, removed error
		var wg sync.WaitGroup
		wg.Go(func() { adopted = adopt(t, s, child.ID, edge) })
		wg.Go(func() { removed = remove(t, s, parent.ID) })
		wg.Wait()
		if (adopted == nil) == (removed == nil) {
			t.Fatalf("the child says %v, the parent's deletion %v: one must win, one lose", adopted, removed)
		}
		if adopted != nil && !errors.Is(adopted, records.ErrParent) || removed != nil && !errors.Is(removed, records.ErrInUse) {
			t.Errorf("the child says %v, the parent's deletion %v", adopted, removed)
		}
	}
}
