package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"glanced/catalog"
	"glanced/contrib/testbed"
)

// overlays makes qcow2 images that stand on others, with qemu-img.
type overlays struct {
	t   *testing.T
	dir string
}

func (o overlays) path(name string) string { return filepath.Join(o.dir, name) }

func (o overlays) read(name string) []byte {
	o.t.Helper()
	p, err := os.ReadFile(o.path(name))
	if err != nil {
		o.t.Fatal(err)
	}
	return p
}

// base makes a qcow2 image of content.
func (o overlays) base(name string, content []byte) {
	o.t.Helper()
	if err := os.WriteFile(o.path("base.raw"), content, 0o600); err != nil {
		o.t.Fatal(err)
	}
	testbed.Run(o.t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", o.path("base.raw"), o.path(name))
}

// over makes name, with mark written at off, over the image below, and is what
// qemu-img reads from the two. The name that the image has for its backing file is
// then ref.
func (o overlays) over(name, below, belowFormat, ref string, off int64, mark byte) []byte {
	o.t.Helper()
	testbed.Run(o.t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", o.path(below), "-F", belowFormat, o.path(name))
	testbed.Run(o.t, "qemu-io", "-f", "qcow2", "-c", fmt.Sprintf("write -q -P %d %d 100k", mark, off), o.path(name))
	testbed.Run(o.t, "qemu-img", "convert", "-O", "raw", o.path(name), o.path("flat"))
	content := o.read("flat")
	testbed.Run(o.t, "qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", ref, "-F", belowFormat, o.path(name))
	return content
}

func newOverlays(t *testing.T) overlays {
	testbed.Need(t, "qemu-img", "qemu-utils")
	testbed.Need(t, "qemu-io", "qemu-utils")
	return overlays{t, t.TempDir()}
}

// child uploads content as a qcow2 image with the given properties.
func (w *world) child(t *testing.T, content []byte, change func(*catalog.Image)) (catalog.Image, error) {
	t.Helper()
	format, bare := "qcow2", "bare"
	img := catalog.Image{Owner: "p", DiskFormat: &format, ContainerFormat: &bare}
	if change != nil {
		change(&img)
	}
	img, err := w.Create(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	err = w.Upload(t.Context(), img.ID, bytes.NewReader(content), catalog.UploadOptions{Size: -1})
	return w.get(t, img.ID), err
}

func backedBy(id string) func(*catalog.Image) {
	return func(img *catalog.Image) { img.Properties = map[string]string{catalog.BackingProperty: id} }
}

func TestAParentShowsThroughItsChild(t *testing.T) {
	w, o := newWorld(t, nil), newOverlays(t)
	o.base("base", noise(1, 3<<20+512))
	parent := w.active(t, "qcow2", "bare", o.read("base"))
	raw := w.active(t, "raw", "bare", o.read("base.raw"))

	t.Run("that a property names", func(t *testing.T) {
		want := o.over("by-property", "base", "qcow2", "/etc/passwd", 1<<20, 7)
		img, err := w.child(t, o.read("by-property"), backedBy(parent.ID))
		if err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, img.ID, want)
		if img.Parent == nil || img.Parent.ID != parent.ID || img.DiskError != "" {
			t.Errorf("parent %+v, disk error %q", img.Parent, img.DiskError)
		}
		// The edge was frozen: what the property says later is nothing.
		if _, err := w.Update(t.Context(), img.ID, func(i *catalog.Image) error { i.Properties = nil; return nil }); err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, img.ID, want)
	})
	t.Run("that the image names by its id", func(t *testing.T) {
		want := o.over("by-id", "base", "qcow2", parent.ID, 2<<20, 8)
		img, err := w.child(t, o.read("by-id"), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, img.ID, want)

		// A third one on the two; qemu-img is to find the second where it looks.
		testbed.Run(t, "qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", o.path("base"), "-F", "qcow2", o.path("by-id"))
		want = o.over("third", "by-id", "qcow2", img.ID, 64<<10, 9)
		third, err := w.child(t, o.read("third"), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, third.ID, want)
	})
	t.Run("of a format that qemu has another word for", func(t *testing.T) {
		testbed.Run(t, "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", o.path("base.raw"), o.path("base.vhd"))
		vhd := w.active(t, "vhd", "bare", o.read("base.vhd"))
		want := o.over("over-vhd", "base.vhd", "vpc", vhd.ID, 0, 11)
		img, err := w.child(t, o.read("over-vhd"), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, img.ID, want)
	})
	t.Run("that is raw", func(t *testing.T) {
		want := o.over("over-raw", "base.raw", "raw", raw.ID, 0, 10)
		img, err := w.child(t, o.read("over-raw"), nil)
		if err != nil {
			t.Fatal(err)
		}
		w.wantGuest(t, img.ID, want)
	})
}

func TestAParentThatMayNotBeUsedIsRefused(t *testing.T) {
	w, o := newWorld(t, nil), newOverlays(t)
	o.base("base", noise(1, 1<<20))
	o.over("child", "base", "qcow2", "base", 0, 1)
	content := o.read("child")
	bare, qcow2 := "bare", "qcow2"
	foreign := func(visibility string) string {
		img, err := w.Create(t.Context(), catalog.Image{Owner: "another", Visibility: visibility, DiskFormat: &qcow2, ContainerFormat: &bare})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Upload(t.Context(), img.ID, bytes.NewReader(o.read("base")), catalog.UploadOptions{Size: -1}); err != nil {
			t.Fatal(err)
		}
		return img.ID
	}
	private, missing := foreign("private"), uuid.NewString()
	withdrawn := w.active(t, "qcow2", "bare", o.read("base")).ID
	if err := w.Deactivate(t.Context(), withdrawn); err != nil {
		t.Fatal(err)
	}
	noDisk := w.active(t, "qcow2", "ova", []byte("no disk at all"))
	for _, c := range []struct {
		name, parent, says string
		want               error
	}{
		{"none is named", "", "set the property backing_image", catalog.ErrUnsafe},
		{"of another project", private, "no image", catalog.ErrUnsafe},
		{"there is no such image", missing, "no image", catalog.ErrUnsafe},
		{"a name that is no id", "../../etc/passwd", "no image", catalog.ErrUnsafe},
		{"not active", w.queued(t, "qcow2", "bare").ID, "queued, not active", catalog.ErrUnsafe},
		{"deactivated", withdrawn, "not active", catalog.ErrUnsafe},
		{"without a disk", noDisk.ID, "no readable disk", catalog.ErrUnsafe},
		{"of another format than said", w.active(t, "raw", "bare", o.read("base.raw")).ID, "said to be qcow2", catalog.ErrUnsafe},
		{"public", foreign("public"), "", nil},
		{"community", foreign("community"), "", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var change func(*catalog.Image)
			if c.parent != "" {
				change = backedBy(c.parent)
			}
			img, err := w.child(t, content, change)
			wantErr(t, err, c.want)
			if c.want == nil {
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
			if _, err := os.Stat(filepath.Join(w.dir, "images", img.ID)); err == nil || img.Status != catalog.Queued || img.Parent != nil {
				t.Errorf("it is %s, its parent %v; its bytes in the store: %v", img.Status, img.Parent, err)
			}
		})
	}
	_, hidden := w.child(t, content, backedBy(private))
	_, absent := w.child(t, content, backedBy(missing))
	strip := func(err error, id string) string {
		_, text, _ := strings.Cut(err.Error(), "content is not safe")
		return strings.ReplaceAll(text, id, "")
	}
	if strip(hidden, private) != strip(absent, missing) {
		t.Errorf("what may not be seen (%v) can be told from what is not there (%v)", hidden, absent)
	}
}

// A child is not to blame for what became of the bytes below it.
func TestAParentThatNoLongerOpensMakesNoChildUnsafe(t *testing.T) {
	w, o := newWorld(t, nil), newOverlays(t)
	o.base("base", noise(1, 1<<20))
	parent := w.active(t, "qcow2", "bare", o.read("base"))
	o.over("child", "base", "qcow2", parent.ID, 0, 7)
	err := filepath.WalkDir(w.dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !strings.Contains(path, parent.ID) || e.IsDir() {
			return err
		}
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		return os.WriteFile(path, make([]byte, 1<<20), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	img, err := w.child(t, o.read("child"), nil)
	wantErr(t, err, catalog.ErrStore)
	if errors.Is(err, catalog.ErrUnsafe) || errors.Is(err, catalog.ErrFormat) || img.Status != catalog.Queued {
		t.Errorf("%v; the child is %s", err, img.Status)
	}
}

// An owner may always delete. What stands on the image lives on, and its bytes go with
// the last of those.
func TestADeletedParentIsHeldByItsChildren(t *testing.T) {
	w, o := newWorld(t, nil), newOverlays(t)
	o.base("base", noise(1, 1<<20))
	parent := w.active(t, "qcow2", "bare", o.read("base"))
	w.show(t, parent.ID, "public")
	want := o.over("child", "base", "qcow2", parent.ID, 0, 1)
	foreign := func(img *catalog.Image) { img.Owner, img.Visibility = "other", "private" }
	child, err := w.child(t, o.read("child"), foreign)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.child(t, o.read("child"), nil)
	if err != nil {
		t.Fatal(err)
	}
	h, own := w.openFor(t, other, child.ID, catalog.View{}), w.open(t, parent.ID, catalog.View{})
	_, before, _, err := w.Quota(t.Context(), "p")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), parent.ID); err != nil {
		t.Fatal(err)
	}
	wantErr(t, own.ReadAt(t.Context(), make([]byte, 1), 0), catalog.ErrRevoked)
	if !bytes.Equal(readAll(t, h), want) || !bytes.Equal(readAll(t, w.openFor(t, other, child.ID, catalog.View{})), want) {
		t.Error("a child does not read on when its parent is deleted")
	}
	// It is gone for everybody, administrators too.
	_, err = w.Get(t.Context(), parent.ID)
	wantErr(t, err, catalog.ErrNotFound)
	wantErr(t, w.Delete(t.Context(), parent.ID), catalog.ErrNotFound)
	wantErr(t, w.Reactivate(t.Context(), parent.ID), catalog.ErrNotFound)
	_, err = w.Open(t.Context(), parent.ID, catalog.View{Stored: true, Deactivated: true})
	wantErr(t, err, catalog.ErrNotFound)
	if list, err := w.List(t.Context(), catalog.Query{Scope: catalog.Everything}); err != nil || len(list) != 2 {
		t.Errorf("%d images are listed, %v", len(list), err)
	}
	_, err = w.List(t.Context(), catalog.Query{Scope: catalog.Everything, Marker: parent.ID})
	wantErr(t, err, catalog.ErrMarker)
	if _, err := w.child(t, o.read("child"), nil); !errors.Is(err, catalog.ErrUnsafe) {
		t.Errorf("a new child: %v", err)
	}
	// But its bytes are its owner's, and administrators see why they are there.
	if _, after, _, err := w.Quota(t.Context(), "p"); err != nil || after.ImageBytes != before.ImageBytes {
		t.Errorf("the owner is charged %d bytes, %v; before the deletion %d", after.ImageBytes, err, before.ImageBytes)
	}
	wantHeld(t, w, map[string]int{parent.ID: 2})
	h.Close()
	if err := w.Delete(t.Context(), child.ID); err != nil {
		t.Fatal(err)
	}
	w.wantGuest(t, second.ID, want)
	if err := w.Delete(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	wantHeld(t, w, map[string]int{})
}

// wantHeld checks which images are held, and by how many others.
func wantHeld(t *testing.T, w *world, want map[string]int) {
	t.Helper()
	held := map[string]int{}
	for img, err := range w.HeldImages(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		held[img.ID] = 0
		for _, err := range w.Children(t.Context(), img.ID) {
			if err != nil {
				t.Fatal(err)
			}
			held[img.ID]++
		}
	}
	if !maps.Equal(held, want) {
		t.Fatalf("held are %v, want %v", held, want)
	}
}

// Held images hold those below them; the last child takes all with it, also where the
// daemon died between the two.
func TestAChainOfHeldImagesIsLetGo(t *testing.T) {
	dir := t.TempDir()
	w, o := openWorld(t, dir, nil), newOverlays(t)
	o.base("base", noise(1, 1<<20))
	bottom := w.active(t, "qcow2", "bare", o.read("base"))
	var all []string
	for below, n := bottom.ID, 0; n < 3; n++ {
		testbed.Run(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", o.path("next"), "1M")
		img, err := w.child(t, o.read("next"), nil)
		if err != nil {
			t.Fatal(err)
		}
		all, below = append(all, img.ID), img.ID
	}
	for _, id := range append([]string{bottom.ID}, all[:2]...) {
		if err := w.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	w.wantGuest(t, all[2], noise(1, 1<<20))
	wantHeld(t, w, map[string]int{bottom.ID: 1, all[0]: 1, all[1]: 1})
	// As a daemon leaves it that dies in the deletion of the last one.
	if _, err := w.records.Update(t.Context(), all[2], func(img *catalog.Image) error {
		img.Status, img.Parent = catalog.Deleted, nil
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	again := openWorld(t, dir, nil)
	wantHeld(t, again, map[string]int{})
	again.wantNothingStored(t)
}

// The deletion of a deactivated image makes what other projects have standing on it no
// more readable than it was.
func TestADeactivatedParentStaysSoWhenItIsDeleted(t *testing.T) {
	w, o := newWorld(t, nil), newOverlays(t)
	o.base("base", noise(1, 1<<20))
	parent := w.active(t, "qcow2", "bare", o.read("base"))
	w.show(t, parent.ID, "public")
	want := o.over("child", "base", "qcow2", parent.ID, 0, 1)
	foreign, err := w.child(t, o.read("child"), func(img *catalog.Image) { img.Owner = "other" })
	if err != nil {
		t.Fatal(err)
	}
	own, err := w.child(t, o.read("child"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Deactivate(t.Context(), parent.ID); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(t.Context(), parent.ID); err != nil {
		t.Fatal(err)
	}
	_, err = w.Catalog.Open(t.Context(), other, foreign.ID, catalog.View{})
	wantErr(t, err, catalog.ErrParentDeactivated)
	w.wantGuest(t, own.ID, want)
	for _, id := range []string{foreign.ID, own.ID} {
		if err := w.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	w.wantNothingStored(t)
}

func TestAChainOfImagesIsBounded(t *testing.T) {
	w, o := newWorld(t, nil), newOverlays(t)
	o.base("base", noise(1, 1<<20))
	below := w.active(t, "qcow2", "bare", o.read("base"))
	for n := 2; ; n++ {
		testbed.Run(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", below.ID, "-F", "qcow2", o.path("next"), "1M")
		img, err := w.child(t, o.read("next"), nil)
		if n == 17 {
			wantErr(t, err, catalog.ErrUnsafe)
			if err == nil || !strings.Contains(err.Error(), "more than 16 images") {
				t.Errorf("error %v", err)
			}
			break
		}
		if err != nil {
			t.Fatalf("chain of %d: %v", n, err)
		}
		below = img
	}
	w.wantGuest(t, below.ID, noise(1, 1<<20))
	// What was open of the parents is let go with the child.
	for try := 0; openFiles(t, w.dir+"/images") > 0; try++ {
		if try == 1000 {
			t.Fatal("files of the store stay open")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// openFiles counts the descriptors of this process that lie below dir.
func openFiles(t *testing.T, dir string) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, dir+"/") {
			n++
		}
	}
	return n
}
