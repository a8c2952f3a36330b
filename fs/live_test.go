package fs

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"glanced/catalog"
	"glanced/contrib/testbed"

	"golang.org/x/sys/unix"
)

func TestImagesAppearAndVanishAtOnce(t *testing.T) {
	w := newWorld(t)
	mnt := w.mount()
	images, byName := filepath.Join(mnt, "images"), filepath.Join(mnt, "by-name")
	if got := names(t, images); len(got) != 0 {
		t.Errorf("an empty catalog shows %q", got)
	}
	// Nothing here waits: what the catalog has said is true is true in the tree.
	for i := range 5 {
		id := fmt.Sprintf("00000000-0000-4000-8000-0000000000%02d", i)
		name := fmt.Sprintf("image %d", i)
		for _, path := range []string{filepath.Join(images, id), filepath.Join(byName, name)} {
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("%s before it was made: %v", path, err)
			}
		}
		img := w.queued(name, func(i *catalog.Image) { i.ID = id })
		if _, err := os.Lstat(filepath.Join(images, id, "metadata.json")); err != nil {
			t.Fatalf("just made: %v", err)
		}
		if got := names(t, byName); !slices.Contains(got, name) {
			t.Fatalf("by-name lacks %q", name)
		}
		if _, err := os.Lstat(filepath.Join(images, id, "disk")); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("a queued image's disk: %v", err)
		}
		if err := w.Upload(t.Context(), img.ID, strings.NewReader("data"), catalog.UploadOptions{Size: 4}); err != nil {
			t.Fatal(err)
		}
		disk := filepath.Join(byName, name, "disk")
		eventually(t, "an uploaded image has a disk", func() bool {
			got, err := os.ReadFile(disk)
			return err == nil && string(got) == "data"
		})
		if err := w.Delete(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
		if got := names(t, images); len(got) != 0 {
			t.Fatalf("after the deletion images holds %q", got)
		}
		for _, path := range []string{disk, filepath.Join(images, id), filepath.Join(byName, name)} {
			eventually(t, path+" is gone", func() bool {
				_, err := os.Lstat(path)
				return errors.Is(err, os.ErrNotExist)
			})
		}
	}
}

func TestAFolderThatWasOnlySeenFromOutsideVanishesToo(t *testing.T) {
	w := newWorld(t)
	img := w.queued("x")
	mnt := w.mount()
	folder := filepath.Join(mnt, "images", img.ID)
	stat(t, folder)
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the folder is gone", func() bool {
		_, err := os.Lstat(folder)
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestChangedFieldsAreSeen(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("before", []byte("data"))
	mnt := w.mount()
	folder := filepath.Join(mnt, "images", img.ID)
	if fields, _ := metadata(t, folder); fields["name"] != "before" {
		t.Fatal(fields["name"])
	}
	opened, err := os.Open(filepath.Join(folder, "metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	stat(t, filepath.Join(mnt, "by-name", "before"))
	if _, err := w.Update(t.Context(), img.ID, func(i *catalog.Image) error {
		i.Name = ptr("after, and longer than before")
		i.Properties = map[string]string{"new": "property"}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the attributes changed", func() bool {
		buf := make([]byte, 100)
		n, err := unix.Getxattr(folder, "user.glance.new", buf)
		return err == nil && string(buf[:n]) == "property"
	})
	eventually(t, "metadata.json changed, and its size with it", func() bool {
		fields, _ := metadata(t, folder)
		raw, err := os.ReadFile(filepath.Join(folder, "metadata.json"))
		return err == nil && fields["new"] == "property" && int64(len(raw)) == stat(t, filepath.Join(folder, "metadata.json")).Size
	})
	eventually(t, "the old name is gone", func() bool {
		_, err := os.Lstat(filepath.Join(mnt, "by-name", "before"))
		return errors.Is(err, os.ErrNotExist)
	})
	if got := names(t, filepath.Join(mnt, "by-name")); !slices.Equal(got, []string{"after, and longer than before"}) {
		t.Errorf("by-name holds %q", got)
	}
	if target, err := os.Readlink(filepath.Join(mnt, "by-name", "after, and longer than before")); err != nil || target != "../images/"+img.ID {
		t.Errorf("the new name leads to %q, %v", target, err)
	}
	old := make([]byte, 1<<16)
	n, _ := opened.ReadAt(old, 0)
	if !strings.Contains(string(old[:n]), `"before"`) {
		t.Errorf("metadata.json opened before the change now reads %q", old[:n])
	}
}

// What a name leads to is decided by who made images public, which is for
// administrators; an image of another project takes no name over.
func TestANameIsTakenOverByNoOtherProject(t *testing.T) {
	w := newWorld(t)
	mnt := w.mount()
	private := func(img *catalog.Image) { img.Visibility = "private" }
	links := func(when string, want map[string]string) {
		t.Helper()
		eventually(t, "the links are right "+when, func() bool {
			found := map[string]string{}
			for _, name := range names(t, filepath.Join(mnt, "by-name")) {
				target, err := os.Readlink(filepath.Join(mnt, "by-name", name))
				if err != nil {
					return false
				}
				found[name] = filepath.Base(target)
			}
			return maps.Equal(found, want)
		})
	}
	show := func(img catalog.Image, visibility string) {
		t.Helper()
		if _, err := w.Update(t.Context(), img.ID, func(i *catalog.Image) error { i.Visibility = visibility; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(img catalog.Image) {
		t.Helper()
		if err := w.Delete(t.Context(), img.ID); err != nil {
			t.Fatal(err)
		}
	}
	first := w.queued("same", private)
	links("with one image", map[string]string{"same": first.ID})
	second := w.uploaded("same", []byte("2"), private)
	with := func(img catalog.Image) string { return "same~" + img.ID }
	links("with two that are not public", map[string]string{with(first): first.ID, with(second): second.ID})
	show(second, "public")
	links("with a public one", map[string]string{"same": second.ID, with(first): first.ID})
	third := w.uploaded("same", []byte("3"), private)
	links("with another project's, which is newer", map[string]string{"same": second.ID, with(first): first.ID, with(third): third.ID})
	show(third, "public")
	links("with a newer public one", map[string]string{"same": second.ID, with(first): first.ID, with(third): third.ID})
	if err := w.Deactivate(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	links("when the older public one is deactivated", map[string]string{"same": third.ID, with(first): first.ID, with(second): second.ID})
	if err := w.Reactivate(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	links("when it is active again", map[string]string{"same": second.ID, with(first): first.ID, with(third): third.ID})

	forged := w.queued(with(third), private)
	links("with a name that looks like one with an id", map[string]string{"same": second.ID, with(first): first.ID, with(third): third.ID,
		"same%7E" + third.ID: forged.ID})
	if target, err := os.Readlink(filepath.Join(mnt, "by-name", with(second))); err != nil || filepath.Base(target) != second.ID {
		t.Errorf("a name with an id that is not listed leads to %q, %v", target, err)
	}
	remove(forged)
	show(second, "private")
	show(third, "private")
	remove(first)
	links("when two that are not public are left", map[string]string{with(second): second.ID, with(third): third.ID})
	remove(second)
	links("when one is left", map[string]string{"same": third.ID})
	if _, err := os.Lstat(filepath.Join(mnt, "by-name", with(second))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a deleted image's name with its id: %v", err)
	}
	remove(third)
	links("when none is left", map[string]string{})

	// A name with an id that is not listed, and that the kernel knows, goes with its image.
	only := w.queued("only", private)
	path := filepath.Join(mnt, "by-name", "only~"+only.ID)
	if target, err := os.Readlink(path); err != nil || filepath.Base(target) != only.ID {
		t.Errorf("the only image's name with its id leads to %q, %v", target, err)
	}
	remove(only)
	eventually(t, "a deleted image's name with its id is gone", func() bool {
		_, err := os.Lstat(path)
		return errors.Is(err, os.ErrNotExist)
	})
}

func TestHostileAndForeignNamesWork(t *testing.T) {
	w := newWorld(t)
	all := []string{
		"乌班图 服务器 24.04", "Máy chủ Ubuntu – bản phát hành", "../../etc/passwd", ".", "..", "/", "a/b/c", "%2F", "%",
		"line\nfeed", "tab\there", "\x1b]0;title\a", "-rf", "*", "$(reboot)", "`id`", "a b", "'", `"`, "\\", "😀",
		strings.Repeat("长", 255), strings.Repeat("/", 255), "trailing ", " ", "con:", "~",
	}
	ids := make(map[string]string)
	for _, name := range all {
		ids[name] = w.uploaded(name, []byte(name)).ID
	}
	empty := w.uploaded("", []byte("empty"))
	none := w.queued("", func(i *catalog.Image) { i.Name = nil })
	byName := filepath.Join(w.mount(), "by-name")
	listed := names(t, byName)
	if len(listed) != len(all)+1 {
		t.Errorf("%d names are listed, want %d: %q", len(listed), len(all)+1, listed)
	}
	for _, name := range all {
		if !slices.Contains(listed, fileName(name)) {
			t.Errorf("%q is not listed as %q", name, fileName(name))
		}
		if got, err := os.ReadFile(byName + "/" + fileName(name) + "/disk"); err != nil || string(got) != name {
			t.Errorf("by the name %q: %q, %v", name, got, err)
		}
		target, err := os.Readlink(byName + "/" + fileName(name))
		if err != nil || target != "../images/"+ids[name] {
			t.Errorf("%q leads to %q, %v", name, target, err)
		}
	}
	if target, _ := os.Readlink(byName + "/%"); target != "../images/"+empty.ID {
		t.Errorf("the empty name leads to %q", target)
	}
	if got := getfattr(t, byName+"/../images/"+none.ID); got["user.glance.id"] != none.ID {
		t.Errorf("an image without a name: %q", got)
	}
	if _, err := os.Lstat(byName + "/" + strings.Repeat("x", 256)); !errors.Is(err, syscall.ENAMETOOLONG) && !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a name too long for any file: %v", err)
	}
}

func TestAListingOf2000ImagesIsWholeAndCanBeResumed(t *testing.T) {
	w := newWorld(t)
	want := make(map[string]bool)
	for i := range 2000 {
		want[w.queued(fmt.Sprintf("image %04d", i)).ID] = true
	}
	mnt := w.mount()
	for _, folder := range []string{"images", "by-name"} {
		if got := len(names(t, filepath.Join(mnt, folder))); got != 2000 {
			t.Errorf("%s lists %d entries", folder, got)
		}
	}
	long := strings.Count(testbed.Run(t, "ls", "-lU", filepath.Join(mnt, "images")), "\n")
	if long != 2001 {
		t.Errorf("ls -l prints %d lines", long)
	}

	// Half of a listing, then 100 images come and the first 100 go, then the rest.
	f, err := os.Open(filepath.Join(mnt, "images"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	half, err := f.Readdirnames(1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := w.Delete(t.Context(), half[i]); err != nil {
			t.Fatal(err)
		}
		w.queued(fmt.Sprintf("late %d", i))
	}
	rest, err := f.Readdirnames(-1)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for _, id := range slices.Concat(half, rest) {
		seen[id]++
	}
	for id := range want {
		if seen[id] != 1 {
			t.Errorf("image %s was listed %d times", id, seen[id])
		}
	}
	// From the start again, on the same descriptor; the tree follows the catalog in a moment.
	eventually(t, "rewound, the listing has 2000 entries", func() bool {
		if _, err := f.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		again, err := f.Readdirnames(-1)
		return err == nil && len(again) == 2000
	})
}
