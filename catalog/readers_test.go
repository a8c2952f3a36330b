package catalog_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"glanced/catalog"
	"glanced/catalog/access"
	"glanced/contrib/testbed"
)

// The readers of the tests, beside the daemon itself.
var (
	owner     = access.Identity{Project: "p", Roles: []string{"reader"}}
	other     = access.Identity{Project: "other", Roles: []string{"member"}}
	admin     = access.Identity{Project: "admin", Roles: []string{"admin"}}
	anonymous = access.Anyone(catalog.Scope{Visibility: []string{"public"}})
)

// openFor opens an image for somebody; the handle is closed with the test.
func (w *world) openFor(t *testing.T, who access.Identity, id string, v catalog.View) *catalog.Handle {
	t.Helper()
	h, err := w.Catalog.Open(t.Context(), who, id, v)
	if err != nil {
		t.Fatalf("%s of %s: %v", who.User, who.Project, err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// set changes who sees an image.
func (w *world) set(t *testing.T, id string, change func(*catalog.Image)) {
	t.Helper()
	if _, err := w.Update(t.Context(), id, func(img *catalog.Image) error { change(img); return nil }); err != nil {
		t.Fatal(err)
	}
}

func (w *world) show(t *testing.T, id, visibility string) {
	t.Helper()
	w.set(t, id, func(img *catalog.Image) { img.Visibility = visibility })
}

// Whoever loses the right to see an image loses the bytes at once, and nobody else does.
func TestReadersLoseWhatTheyMayNoLongerSee(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*catalog.Image)
		lose   []access.Identity
		keep   []access.Identity
	}{
		"made private":    {func(img *catalog.Image) { img.Visibility = "private" }, []access.Identity{other, anonymous}, []access.Identity{owner, admin}},
		"made shared":     {func(img *catalog.Image) { img.Visibility = "shared" }, []access.Identity{other, anonymous}, []access.Identity{owner, admin}},
		"made community":  {func(img *catalog.Image) { img.Visibility = "community" }, []access.Identity{anonymous}, []access.Identity{other, owner, admin}},
		"given away":      {func(img *catalog.Image) { img.Visibility, img.Owner = "private", "other" }, []access.Identity{owner, anonymous}, []access.Identity{other, admin}},
		"only renamed":    {func(img *catalog.Image) { img.Hidden = true }, nil, []access.Identity{owner, other, anonymous, admin}},
		"public as it is": {func(img *catalog.Image) {}, nil, []access.Identity{owner, other, anonymous, admin}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			content := noise(1, 100_000)
			img := w.active(t, "raw", "bare", content)
			w.show(t, img.ID, "public")
			handles := func(all []access.Identity) (open []*catalog.Handle) {
				for _, who := range all {
					open = append(open, w.openFor(t, who, img.ID, catalog.View{}), w.openFor(t, who, img.ID, catalog.View{Stored: true}))
				}
				return open
			}
			lost, kept := handles(c.lose), handles(c.keep)
			w.set(t, img.ID, c.change)
			for _, h := range lost {
				select {
				case <-h.Revoked():
				default:
					t.Error("who may not see the image any more still has it open")
				}
				wantErr(t, h.ReadAt(t.Context(), make([]byte, 1), 0), catalog.ErrRevoked)
			}
			for _, h := range kept {
				if !bytes.Equal(readAll(t, h), content) {
					t.Error("who may see the image reads other bytes")
				}
			}
			for _, who := range c.lose {
				_, err := w.Catalog.Open(t.Context(), who, img.ID, catalog.View{})
				wantErr(t, err, catalog.ErrNotFound)
			}
		})
	}
}

// Opens and changes of visibility at once: whoever holds a handle after the change
// that is not revoked would read for ever what they may not see.
func TestNoOpenSlipsPastAChangeOfVisibility(t *testing.T) {
	w := newWorld(t, nil)
	img := w.active(t, "raw", "bare", noise(1, 4096))
	for range 40 {
		w.show(t, img.ID, "public")
		var opens sync.WaitGroup
		handles := make(chan *catalog.Handle, 8)
		for range cap(handles) {
			opens.Go(func() {
				h, err := w.Catalog.Open(t.Context(), anonymous, img.ID, catalog.View{})
				if err == nil {
					handles <- h
				} else if !errors.Is(err, catalog.ErrNotFound) {
					wantErr(t, err, catalog.ErrRevoked)
				}
			})
		}
		w.show(t, img.ID, "private")
		opens.Wait()
		close(handles)
		for h := range handles {
			wantErr(t, h.ReadAt(t.Context(), make([]byte, 1), 0), catalog.ErrRevoked)
			h.Close()
		}
	}
}

func TestAnotherDaemonsChangeOfVisibilityRevokes(t *testing.T) {
	dir := t.TempDir()
	a := openWorld(t, dir, nil)
	b := openWorld(t, dir, func(cfg *catalog.Config) { cfg.Node = "another" })
	img := a.active(t, "raw", "bare", noise(1, 4096))
	a.show(t, img.ID, "public")
	lost, kept := b.openFor(t, anonymous, img.ID, catalog.View{}), b.openFor(t, owner, img.ID, catalog.View{})
	a.show(t, img.ID, "private")
	wantClosed(t, lost.Revoked(), "the revocation")
	if !bytes.Equal(readAll(t, kept), noise(1, 4096)) {
		t.Error("the owner reads other bytes")
	}
}

// A deactivated image is read by administrators who ask for it, whatever others open.
func TestDeactivatedImagesAreForAdministrators(t *testing.T) {
	w := newWorld(t, nil)
	img := w.active(t, "raw", "bare", noise(1, 4096))
	if err := w.Deactivate(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	blocked := catalog.View{Stored: true, Deactivated: true}
	w.openFor(t, admin, img.ID, blocked)
	for who, v := range map[*access.Identity]catalog.View{&owner: blocked, &admin: {Stored: true}} {
		_, err := w.Catalog.Open(t.Context(), *who, img.ID, v)
		wantErr(t, err, catalog.ErrDeactivated)
	}
}

// What stands on a deactivated image of another project is not read on, and says why.
func TestADeactivatedParentFailsTheChildrenOfOthers(t *testing.T) {
	w, o := newWorld(t, nil), newOverlays(t)
	o.base("base", noise(1, 1<<20))
	parent := w.active(t, "qcow2", "bare", o.read("base"))
	w.show(t, parent.ID, "public")
	of := func(owner string) func(*catalog.Image) {
		return func(img *catalog.Image) { img.Owner, img.Visibility = owner, "private" }
	}
	content := o.over("child", "base", "qcow2", parent.ID, 0, 1)
	foreign, err := w.child(t, o.read("child"), of("other"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := w.child(t, o.read("child"), of("p"))
	if err != nil {
		t.Fatal(err)
	}
	// qemu-img is to find the parent where it looks.
	testbed.Run(t, "qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-b", o.path("base"), "-F", "qcow2", o.path("child"))
	o.over("grandchild", "child", "qcow2", foreign.ID, 2<<16, 2)
	grandchild, err := w.child(t, o.read("grandchild"), of("other"))
	if err != nil {
		t.Fatal(err)
	}
	lost := []*catalog.Handle{w.openFor(t, other, foreign.ID, catalog.View{}), w.openFor(t, other, grandchild.ID, catalog.View{})}
	kept, stored := w.openFor(t, owner, own.ID, catalog.View{}), w.openFor(t, other, foreign.ID, catalog.View{Stored: true})
	if err := w.Deactivate(t.Context(), parent.ID); err != nil {
		t.Fatal(err)
	}
	for _, h := range lost {
		wantErr(t, h.ReadAt(t.Context(), make([]byte, 1), 0), catalog.ErrRevoked)
	}
	for _, id := range []string{foreign.ID, grandchild.ID} {
		_, err := w.Catalog.Open(t.Context(), other, id, catalog.View{})
		wantErr(t, err, catalog.ErrParentDeactivated)
		if err == nil || !strings.Contains(err.Error(), parent.ID) {
			t.Errorf("%v does not say which image is deactivated", err)
		}
	}
	if !bytes.Equal(readAll(t, kept), content) {
		t.Error("a child of the same owner does not read on")
	}
	if err := stored.ReadAt(t.Context(), make([]byte, 1), 0); err != nil {
		t.Errorf("the child's own bytes: %v", err)
	}
	if err := w.Reactivate(t.Context(), parent.ID); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readAll(t, w.openFor(t, other, foreign.ID, catalog.View{})), content) {
		t.Error("the child of another project reads other bytes after the reactivation")
	}
}

// A parent that was made private takes no new children of others; those that are there live on.
func TestAPrivateParentKeepsItsChildren(t *testing.T) {
	w, o := newWorld(t, nil), newOverlays(t)
	o.base("base", noise(1, 1<<20))
	parent := w.active(t, "qcow2", "bare", o.read("base"))
	w.show(t, parent.ID, "public")
	content := o.over("child", "base", "qcow2", parent.ID, 0, 1)
	foreign := func(img *catalog.Image) { img.Owner = "other" }
	child, err := w.child(t, o.read("child"), foreign)
	if err != nil {
		t.Fatal(err)
	}
	h := w.openFor(t, other, child.ID, catalog.View{})
	w.show(t, parent.ID, "private")
	if !bytes.Equal(readAll(t, h), content) || !bytes.Equal(readAll(t, w.openFor(t, other, child.ID, catalog.View{})), content) {
		t.Error("a child that is there reads other bytes")
	}
	_, err = w.child(t, o.read("child"), foreign)
	wantErr(t, err, catalog.ErrUnsafe)
}
