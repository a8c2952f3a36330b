package ctl_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/google/uuid"

	"glanced/backends/budget"
	"glanced/catalog"
)

// hold makes held images, and as many others that stand on each, in the records alone.
// They have the longest names. It returns the ids of the held ones.
func (w *world) hold(parents, children int) (ids []string) {
	w.t.Helper()
	long := make([]rune, 255)
	for i := range long {
		long[i] = '𝄞' // 4 bytes
	}
	name := string(long)
	create := func(img catalog.Image) string {
		img.ID, img.Name, img.Visibility, img.Owner = uuid.NewString(), &name, "private", demoProject
		if _, err := w.records.Create(w.t.Context(), img); err != nil {
			w.t.Fatal(err)
		}
		return img.ID
	}
	for range parents {
		id := create(catalog.Image{Status: catalog.PendingDelete})
		ids = append(ids, id)
		for range children {
			create(catalog.Image{Status: catalog.Active, Parent: &catalog.Parent{ID: id, HashValue: "h"}})
		}
	}
	return ids
}

// However many images are held, and by however many, the answer takes a bounded part of
// the memory for records, for as long as it is sent.
func TestHeldImagesAreShownInBoundedMemory(t *testing.T) {
	const size, parents, children = 1 << 20, 30, 60
	memory := budget.New(size)
	w := newWorld(t, options{memory: memory}).control()
	ids := w.hold(parents, children)

	res, err := w.client.Get("http://control/admin/held")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	// Nothing of it was taken yet, and it does not fit into the socket.
	if free := memory.Free(); free == size {
		t.Error("an answer that is being sent holds no memory")
	}
	var held struct {
		Images []struct {
			ID       string
			Name     string
			Children []struct{ Name, Owner, Status string }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&held); err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, img := range held.Images {
		if found[img.ID] = true; len(img.Children) != children || img.Name == "" {
			t.Errorf("image %s has %d children, want %d", img.ID, len(img.Children), children)
		}
		for _, c := range img.Children {
			if c.Owner != demoProject || c.Status != "active" || len([]rune(c.Name)) != 255 {
				t.Fatalf("a child is %v", c)
			}
		}
	}
	for _, id := range ids {
		if !found[id] {
			t.Errorf("image %s is not shown", id)
		}
	}
	if len(held.Images) != parents {
		t.Errorf("%d images are shown, want %d", len(held.Images), parents)
	}
	if n, err := res.Body.Read(make([]byte, 1)); n != 0 || fmt.Sprint(err) != "EOF" {
		t.Errorf("after the answer: %d bytes, %v", n, err)
	}
	if free := memory.Free(); free != size {
		t.Errorf("%d bytes of %d are still held", size-free, size)
	}
}

// An answer that fails in its middle does not look like a short one.
func TestHeldImagesThatCannotBeReadBreakTheAnswerOff(t *testing.T) {
	w := newWorld(t, options{}).control()
	w.hold(30, 60)
	res, err := w.client.Get("http://control/admin/held")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := w.database.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("the answer ends after %d bytes as if it were whole", len(text))
	}
	if a := w.do("GET", "/admin/held", nil); a.StatusCode != http.StatusInternalServerError && a.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without a database: %d %s", a.StatusCode, a.body)
	}
}
