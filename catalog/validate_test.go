package catalog_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/uuid"

	"glanced/catalog"
)

func ptr[T any](v T) *T { return &v }

func TestInvalidFieldsAreRefusedOnCreateAndUpdate(t *testing.T) {
	w := newWorld(t, nil)
	img, err := w.Create(t.Context(), catalog.Image{})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ả", 256)
	many := map[string]string{}
	var manyTags []string
	for i := range 129 {
		many[strings.Repeat("x", i+1)] = ""
		manyTags = append(manyTags, strings.Repeat("x", i+1))
	}
	for name, change := range map[string]func(*catalog.Image){
		"a name of 256 characters":           func(i *catalog.Image) { i.Name = &long },
		"a name that is not UTF-8":           func(i *catalog.Image) { i.Name = ptr("a\xffb") },
		"a name with NUL":                    func(i *catalog.Image) { i.Name = ptr("a\x00b") },
		"an owner of 256 characters":         func(i *catalog.Image) { i.Owner = long },
		"an unknown visibility":              func(i *catalog.Image) { i.Visibility = "secret" },
		"an unknown disk format":             func(i *catalog.Image) { i.DiskFormat = ptr("floppy") },
		"an empty disk format":               func(i *catalog.Image) { i.DiskFormat = ptr("") },
		"an unknown container format":        func(i *catalog.Image) { i.ContainerFormat = ptr("box") },
		"min_disk below 0":                   func(i *catalog.Image) { i.MinDisk = -1 },
		"min_disk of 2^31":                   func(i *catalog.Image) { i.MinDisk = 1 << 31 },
		"min_ram of 2^31":                    func(i *catalog.Image) { i.MinRAM = 1 << 31 },
		"a tag of 256 characters":            func(i *catalog.Image) { i.Tags = []string{long} },
		"a tag that is not UTF-8":            func(i *catalog.Image) { i.Tags = []string{"\xc3"} },
		"129 tags":                           func(i *catalog.Image) { i.Tags = manyTags },
		"129 properties":                     func(i *catalog.Image) { i.Properties = many },
		"a property without a name":          func(i *catalog.Image) { i.Properties = map[string]string{"": "x"} },
		"a property's name of 256":           func(i *catalog.Image) { i.Properties = map[string]string{long: "x"} },
		"a property's name that is no UTF-8": func(i *catalog.Image) { i.Properties = map[string]string{"\xff": "x"} },
		"a property's value that is none":    func(i *catalog.Image) { i.Properties = map[string]string{"x": "\xff"} },
		"a property's value of 64 KiB":       func(i *catalog.Image) { i.Properties = map[string]string{"x": strings.Repeat("v", 65536)} },
	} {
		bad := catalog.Image{}
		change(&bad)
		_, err := w.Create(t.Context(), bad)
		wantErr(t, err, catalog.ErrInvalid)
		if err != nil && len(err.Error()) > 400 {
			t.Errorf("%s: a message of %d bytes", name, len(err.Error()))
		}
		_, err = w.Update(t.Context(), img.ID, func(i *catalog.Image) error { change(i); return nil })
		wantErr(t, err, catalog.ErrInvalid)
		if t.Failed() {
			t.Fatal(name)
		}
	}
	for _, id := range []string{"x", "../../etc/passwd", "{" + uuid.NewString() + "}", strings.ReplaceAll(uuid.NewString(), "-", "")} {
		_, err := w.Create(t.Context(), catalog.Image{ID: id})
		wantErr(t, err, catalog.ErrInvalid)
	}
	list, err := w.List(t.Context(), catalog.Query{Scope: catalog.Everything})
	if err != nil || len(list) != 1 || !list[0].UpdatedAt.Equal(img.UpdatedAt) {
		t.Errorf("left behind: %d images, %v", len(list), err)
	}
}

func TestNamesOfTheWorldAreKept(t *testing.T) {
	w := newWorld(t, nil)
	for _, name := range []string{"", "镜像文件", "Ảnh đĩa Việt Nam", strings.Repeat("ế", 255), "💿 𠀀", "a/b", "."} {
		short := "p" + string([]rune(name)[:min(utf8.RuneCountInString(name), 254)])
		img, err := w.Create(t.Context(), catalog.Image{Name: &name, Tags: []string{short}, Properties: map[string]string{short: name}})
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		got := w.get(t, img.ID)
		if *got.Name != name || got.Tags[0] != short || got.Properties[short] != name {
			t.Errorf("%q came back as %q, tags %q, properties %q", name, *got.Name, got.Tags, got.Properties)
		}
		list, err := w.List(t.Context(), catalog.Query{Name: []string{name}, Scope: catalog.Everything})
		if err != nil || len(list) != 1 || list[0].ID != img.ID {
			t.Errorf("list by name %q: %d images, %v", name, len(list), err)
		}
	}
}

func TestADuplicateIDIsRefused(t *testing.T) {
	w := newWorld(t, nil)
	img, err := w.Create(t.Context(), catalog.Image{Name: ptr("first")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Create(t.Context(), catalog.Image{ID: img.ID, Name: ptr("second")})
	wantErr(t, err, catalog.ErrExists)
	if got := w.get(t, img.ID); *got.Name != "first" {
		t.Errorf("the image is now called %s", *got.Name)
	}
}

func TestCreateTakesOnlyWhatAUserMaySet(t *testing.T) {
	w := newWorld(t, nil)
	img, err := w.Create(t.Context(), catalog.Image{Status: catalog.Active, Size: ptr(int64(5)), Checksum: ptr("x"),
		Locations: []catalog.Location{{Store: "local", URL: "file:///etc/passwd"}}, Reserved: 7})
	if err != nil {
		t.Fatal(err)
	}
	if img.Status != catalog.Queued || img.Size != nil || img.Checksum != nil || img.Locations != nil || img.Reserved != 0 || img.Visibility != "shared" {
		t.Errorf("created %+v", img)
	}
	got, err := w.Update(t.Context(), img.ID, func(i *catalog.Image) error {
		i.Status, i.Size, i.Locations, i.Name = catalog.Active, ptr(int64(5)), []catalog.Location{{Store: "x"}}, ptr("new")
		return nil
	})
	if err != nil || got.Status != catalog.Queued || got.Size != nil || got.Locations != nil || *got.Name != "new" {
		t.Errorf("updated %+v, %v", got, err)
	}
}

func TestFormatsAreFixedOnceDataIsThere(t *testing.T) {
	w := newWorld(t, nil)
	img := w.active(t, "raw", "bare", []byte("content"))
	for _, change := range []func(*catalog.Image){
		func(i *catalog.Image) { i.DiskFormat = ptr("qcow2") },
		func(i *catalog.Image) { i.ContainerFormat = nil },
	} {
		_, err := w.Update(t.Context(), img.ID, func(i *catalog.Image) error { change(i); return nil })
		wantErr(t, err, catalog.ErrFixed)
		wantErr(t, err, catalog.ErrStatus)
	}
	if _, err := w.Update(t.Context(), img.ID, func(i *catalog.Image) error { i.DiskFormat = ptr("raw"); return nil }); err != nil {
		t.Error(err)
	}
}

func TestListsRefuseUnknownOrders(t *testing.T) {
	w := newWorld(t, nil)
	for _, q := range []catalog.Query{
		{Sort: []catalog.SortKey{{Key: "owner"}}},
		{Sort: []catalog.SortKey{{Key: "name"}, {Key: "name", Desc: true}}},
		{CreatedAt: []catalog.Compare{{Op: "like"}}},
	} {
		_, err := w.List(t.Context(), q)
		wantErr(t, err, catalog.ErrInvalid)
	}
	_, err := w.List(t.Context(), catalog.Query{Marker: "nobody"})
	wantErr(t, err, catalog.ErrMarker)
}

func TestMovesThatTheMachineLacksAreRefused(t *testing.T) {
	w := newWorld(t, nil)
	queued := w.queued(t, "raw", "bare")
	for _, err := range []error{w.Deactivate(t.Context(), queued.ID), w.Reactivate(t.Context(), queued.ID)} {
		wantErr(t, err, catalog.ErrStatus)
	}
	img := w.active(t, "raw", "bare", []byte("x"))
	wantErr(t, w.Upload(t.Context(), img.ID, strings.NewReader("y"), catalog.UploadOptions{Size: -1}), catalog.ErrStatus)
	wantErr(t, w.Activate(t.Context(), img.ID), catalog.ErrStatus)
	for range 2 { // the second is without effect
		if err := w.Deactivate(t.Context(), img.ID); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := w.Reactivate(t.Context(), img.ID); err != nil {
			t.Error(err)
		}
	}
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Error(err)
	}
	for _, err := range []error{w.Deactivate(t.Context(), img.ID), w.Reactivate(t.Context(), img.ID), w.Delete(t.Context(), img.ID), w.Activate(t.Context(), img.ID)} {
		wantErr(t, err, catalog.ErrNotFound)
	}
}

func TestAProtectedImageStays(t *testing.T) {
	w := newWorld(t, nil)
	img := w.active(t, "raw", "bare", []byte("x"))
	set := func(p bool) {
		if _, err := w.Update(t.Context(), img.ID, func(i *catalog.Image) error { i.Protected = p; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	set(true)
	wantErr(t, w.Delete(t.Context(), img.ID), catalog.ErrProtected)
	if _, err := w.Open(t.Context(), img.ID, catalog.View{}); err != nil {
		t.Error(err)
	}
	set(false)
	if err := w.Delete(t.Context(), img.ID); err != nil {
		t.Error(err)
	}
}
