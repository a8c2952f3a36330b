package fs

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"glanced/catalog"
	"glanced/contrib/testbed"
)

// names lists a folder, sorted.
func names(t *testing.T, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestFoldersHoldWhatAnImagesStatusGives(t *testing.T) {
	w := newWorld(t)
	queued := w.queued("queued")
	active := w.uploaded("active", sparse())
	deactivated := w.uploaded("deactivated", sparse())
	if err := w.Deactivate(t.Context(), deactivated.ID); err != nil {
		t.Fatal(err)
	}
	container := w.uploaded("container", []byte("layers"), func(i *catalog.Image) { i.DiskFormat, i.ContainerFormat = ptr("raw"), ptr("docker") })
	empty := w.queued("empty")
	if err := w.Activate(t.Context(), empty.ID); err != nil {
		t.Fatal(err)
	}
	mnt := w.mount()

	if got := names(t, mnt); !slices.Equal(got, []string{"by-name", "images"}) {
		t.Errorf("the mount holds %q", got)
	}
	for id, want := range map[string][]string{
		queued.ID:      {"metadata.json"},
		active.ID:      {"disk", "file", "metadata.json"},
		deactivated.ID: {"disk", "file", "metadata.json"},
		empty.ID:       {"disk", "file", "metadata.json"},
	} {
		if got := names(t, filepath.Join(mnt, "images", id)); !slices.Equal(got, want) {
			t.Errorf("the folder of image %s holds %q, want %q", id, got, want)
		}
	}
	img, err := w.Get(t.Context(), container.ID)
	if err != nil {
		t.Fatal(err)
	}
	if hasDisk := slices.Contains(names(t, filepath.Join(mnt, "images", img.ID)), "disk"); hasDisk != (img.DiskError == "") {
		t.Errorf("an image whose disk error is %q has a disk: %v", img.DiskError, hasDisk)
	}
	if got := names(t, filepath.Join(mnt, "by-name")); !slices.Equal(got, []string{"active", "container", "deactivated", "empty", "queued"}) {
		t.Errorf("by-name holds %q", got)
	}
	for _, name := range []string{"disk", "file", "disk2", "..x"} {
		if _, err := os.Lstat(filepath.Join(mnt, "images", queued.ID, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a queued image's %s: %v", name, err)
		}
	}
}

func TestAttributesOfFiles(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("x", sparse())
	mnt := w.mount()
	folder := filepath.Join(mnt, "images", img.ID)

	for path, mode := range map[string]uint32{
		mnt:                                    syscall.S_IFDIR | 0o500,
		filepath.Join(mnt, "images"):           syscall.S_IFDIR | 0o555,
		filepath.Join(mnt, "by-name"):          syscall.S_IFDIR | 0o555,
		folder:                                 syscall.S_IFDIR | 0o555,
		filepath.Join(folder, "disk"):          syscall.S_IFREG | 0o444,
		filepath.Join(folder, "file"):          syscall.S_IFREG | 0o444,
		filepath.Join(folder, "metadata.json"): syscall.S_IFREG | 0o444,
		filepath.Join(mnt, "by-name", "x"):     syscall.S_IFLNK | 0o777,
	} {
		if st := stat(t, path); st.Mode != mode {
			t.Errorf("%s has mode %o, want %o", path, st.Mode, mode)
		}
	}
	if n := stat(t, filepath.Join(mnt, "images")).Nlink; n != 3 {
		t.Errorf("images, with one folder in it, has %d links", n)
	}
	if *img.Allocated >= *img.Size {
		t.Fatalf("the image of %d bytes has %d allocated; the test needs holes", *img.Size, *img.Allocated)
	}
	for _, name := range []string{"disk", "file"} {
		st := stat(t, filepath.Join(folder, name))
		if st.Size != int64(len(sparse())) || st.Nlink != 1 {
			t.Errorf("%s: %d bytes, %d links", name, st.Size, st.Nlink)
		}
		if want := (*img.Allocated + 511) / 512; st.Blocks != want {
			t.Errorf("%s has %d blocks, want %d", name, st.Blocks, want)
		}
		if st.Mtim.Sec != img.CreatedAt.Unix() || st.Ctim.Sec != img.UpdatedAt.Unix() {
			t.Errorf("%s: modified %d, changed %d; the image was created %d, updated %d",
				name, st.Mtim.Sec, st.Ctim.Sec, img.CreatedAt.Unix(), img.UpdatedAt.Unix())
		}
	}
	meta := stat(t, filepath.Join(folder, "metadata.json"))
	content, err := os.ReadFile(filepath.Join(folder, "metadata.json"))
	if err != nil || int64(len(content)) != meta.Size || meta.Mtim.Sec != img.UpdatedAt.Unix() {
		t.Errorf("metadata.json: %v, %d bytes read of %d, modified %d", err, len(content), meta.Size, meta.Mtim.Sec)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(mnt, &fs); err != nil || fs.Bfree != 0 || fs.Namelen != 255 || int64(fs.Blocks)*fs.Bsize < *img.Size {
		t.Errorf("statfs: %v, %+v", err, fs)
	}
}

func TestContentIsTheGuestDiskAndTheStoredBytes(t *testing.T) {
	testbed.Need(t, "cmp", "diffutils")
	w := newWorld(t)
	data := sparse()
	img := w.uploaded("x", data)
	mnt := w.mount()
	original := filepath.Join(t.TempDir(), "original")
	if err := os.WriteFile(original, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk", "file"} {
		path := filepath.Join(mnt, "images", img.ID, name)
		testbed.Run(t, "cmp", original, path)
		testbed.Run(t, "cmp", original, filepath.Join(mnt, "by-name", "x", name))
		part := filepath.Join(t.TempDir(), "part")
		testbed.Run(t, "dd", "if="+path, "of="+part, "bs=1000", "skip=1048", "count=3333", "iflag=fullblock")
		direct := filepath.Join(t.TempDir(), "direct")
		testbed.Run(t, "dd", "if="+path, "of="+direct, "bs=64k", "iflag=direct")
		testbed.Run(t, "cmp", original, direct)
		got, err := os.ReadFile(part)
		if err != nil || !bytes.Equal(got, data[1048*1000:(1048+3333)*1000]) {
			t.Errorf("dd of a part of %s: %v, or other bytes", name, err)
		}
	}
}

func TestSparseCopiesStaySparse(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("x", sparse())
	mnt := w.mount()
	for _, how := range []string{"auto", "always"} {
		to := filepath.Join(t.TempDir(), "copy")
		testbed.Run(t, "cp", "--sparse="+how, filepath.Join(mnt, "images", img.ID, "disk"), to)
		got, err := os.ReadFile(to)
		if err != nil || !bytes.Equal(got, sparse()) {
			t.Errorf("cp --sparse=%s: %v, or other bytes", how, err)
		}
		if st := stat(t, to); st.Blocks*512 > 3*mib {
			t.Errorf("cp --sparse=%s wrote %d bytes; 1.5 MiB are data", how, st.Blocks*512)
		}
	}
}

func TestQemuReadsTheDisk(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	w := newWorld(t)
	img := w.uploaded("x", sparse())
	disk := filepath.Join(w.mount(), "images", img.ID, "disk")
	original := filepath.Join(t.TempDir(), "original")
	if err := os.WriteFile(original, sparse(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := testbed.Run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", original, disk); !strings.Contains(out, "identical") {
		t.Error(out)
	}
	var info struct {
		Size   int64 `json:"virtual-size"`
		Actual int64 `json:"actual-size"`
	}
	if err := json.Unmarshal([]byte(testbed.Run(t, "qemu-img", "info", "-f", "raw", "--output=json", disk)), &info); err != nil || info.Size != int64(len(sparse())) || info.Actual >= 3*mib {
		t.Errorf("qemu-img info: %v, %+v", err, info)
	}
	var runs []struct {
		Start, Length int64
		Data          bool
	}
	if err := json.Unmarshal([]byte(testbed.Run(t, "qemu-img", "map", "-f", "raw", "--output=json", disk)), &runs); err != nil {
		t.Fatal(err)
	}
	var data int64
	for _, r := range runs {
		if r.Data {
			data += r.Length
		}
	}
	if len(runs) < 5 || data > 2*mib {
		t.Errorf("qemu-img map sees %d runs, %d bytes of data", len(runs), data)
	}
}

func TestFindWalksTheWholeTree(t *testing.T) {
	testbed.Need(t, "find", "findutils")
	w := newWorld(t)
	w.uploaded("x", []byte("x"))
	w.queued("y")
	mnt := w.mount()
	out := strings.Fields(testbed.Run(t, "find", mnt, "-printf", "%P\n"))
	if len(out) != 2+2+3+1+2 {
		t.Errorf("find sees %q", out)
	}
}

func TestNothingCanBeWritten(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("x", []byte("data"))
	mnt := w.mount()
	folder := filepath.Join(mnt, "images", img.ID)
	check := func(t *testing.T) {
		for what, err := range map[string]error{
			"open for writing": func() error { _, err := os.OpenFile(folder+"/disk", os.O_WRONLY, 0); return err }(),
			"open and append":  func() error { _, err := os.OpenFile(folder+"/metadata.json", os.O_RDWR|os.O_APPEND, 0); return err }(),
			"create":           func() error { _, err := os.Create(folder + "/new"); return err }(),
			"make a folder":    os.Mkdir(mnt+"/images/new", 0o755),
			"unlink":           os.Remove(folder + "/disk"),
			"remove a folder":  syscall.Rmdir(folder),
			"rename":           os.Rename(folder+"/disk", folder+"/disc"),
			"symlink":          os.Symlink("x", mnt+"/by-name/z"),
			"hard link":        os.Link(folder+"/disk", folder+"/disc"),
			"truncate":         os.Truncate(folder+"/disk", 0),
			"chmod":            os.Chmod(folder+"/disk", 0o666),
			"set an attribute": syscall.Setxattr(folder+"/disk", "user.glance.name", []byte("y"), 0),
			"drop one":         syscall.Removexattr(folder+"/disk", "user.glance.name"),
		} {
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("%s: %v, want EROFS", what, err)
			}
		}
	}
	t.Run("as mounted", check)
	if err := syscall.Mount("", mnt, "", syscall.MS_REMOUNT, ""); err != nil {
		t.Fatalf("remount read-write: %v", err)
	}
	t.Run("remounted read-write", check)
	if got, err := os.ReadFile(folder + "/disk"); err != nil || string(got) != "data" {
		t.Errorf("after all that the disk reads %q, %v", got, err)
	}
	f, err := os.Open(folder + "/disk")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Errorf("fsync: %v", err)
	}
}
