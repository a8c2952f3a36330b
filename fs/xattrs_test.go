package fs

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"glanced/catalog"
	"glanced/contrib/testbed"

	"golang.org/x/sys/unix"
)

// getfattr is what getfattr(1) shows of a file, by full name.
func getfattr(t *testing.T, path string) map[string]string {
	t.Helper()
	testbed.Need(t, "getfattr", "attr")
	all := make(map[string]string)
	for _, line := range strings.Split(testbed.Run(t, "getfattr", "--absolute-names", "-d", "-m", "-", "-e", "text", path), "\n") {
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			value = strings.TrimSuffix(strings.TrimPrefix(value, `"`), `"`)
			all[name] = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(value)
		}
	}
	return all
}

// metadata is an image's metadata.json.
func metadata(t *testing.T, folder string) (fields map[string]any, left map[string]string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(folder, "metadata.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &fields); err != nil {
		t.Fatal(err)
	}
	left = make(map[string]string)
	for _, x := range fields["xattrs_left_out"].([]any) {
		left[x.(map[string]any)["name"].(string)] = x.(map[string]any)["reason"].(string)
	}
	return fields, left
}

func TestGetfattrShowsTheFields(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("máy chủ 乌班图", sparse(), func(i *catalog.Image) {
		i.Properties = map[string]string{"os_distro": "ubuntu", "描述": "一 \"quoted\" value", "empty": ""}
		i.Tags = []string{"b, c", "a"}
		i.MinDisk = 7
	})
	queued := w.queued("q", func(i *catalog.Image) { i.Owner = "" })
	images := filepath.Join(w.mount(), "images")

	want := map[string]string{
		"id":               img.ID,
		"name":             "máy chủ 乌班图",
		"status":           "active",
		"disk_format":      "raw",
		"container_format": "bare",
		"size":             fmt.Sprint(*img.Size),
		"virtual_size":     fmt.Sprint(*img.VirtualSize),
		"checksum":         *img.Checksum,
		"os_hash_algo":     "sha512",
		"os_hash_value":    *img.HashValue,
		"os_hidden":        "false",
		"visibility":       "public",
		"owner":            "p",
		"min_disk":         "7",
		"min_ram":          "0",
		"protected":        "false",
		"created_at":       img.CreatedAt.UTC().Format("2006-01-02T15:04:05Z"),
		"updated_at":       img.UpdatedAt.UTC().Format("2006-01-02T15:04:05Z"),
		"tags":             `["a","b, c"]`,
		"stores":           img.Locations[0].Store,
		"os_distro":        "ubuntu",
		"描述":               `一 "quoted" value`,
		"empty":            "",
	}
	for _, path := range []string{"", "disk", "file"} {
		got := getfattr(t, filepath.Join(images, img.ID, path))
		for name, value := range want {
			if v, ok := got["user.glance."+name]; !ok && value != "" || v != value {
				t.Errorf("%q of image's %q is %q, want %q", name, path, v, value)
			}
		}
		if len(got) < len(want)-1 || len(got) > len(want) {
			t.Errorf("%d attributes, want %d: %q", len(got), len(want), got)
		}
	}
	got := getfattr(t, filepath.Join(images, queued.ID))
	for _, null := range []string{"size", "virtual_size", "checksum", "os_hash_algo", "os_hash_value", "owner", "disk_error", "os_glance_disk_error", "os_glance_snapshots", "stores"} {
		if v, ok := got["user.glance."+null]; ok {
			t.Errorf("the null field %s is shown as %q", null, v)
		}
	}
	if got["user.glance.tags"] != "[]" || got["user.glance.status"] != "queued" {
		t.Errorf("the queued image's tags are %q, its status %q", got["user.glance.tags"], got["user.glance.status"])
	}

	fields, left := metadata(t, filepath.Join(images, img.ID))
	if len(left) != 0 || fields["name"] != "máy chủ 乌班图" || fields["size"] != float64(*img.Size) || fields["描述"] != want["描述"] || fields["protected"] != false || fields["disk_error"] != nil {
		t.Errorf("metadata.json: %v", fields)
	}
}

func TestXattrCallsFollowTheManual(t *testing.T) {
	w := newWorld(t)
	img := w.uploaded("somewhat long a name", []byte("x"))
	path := filepath.Join(w.mount(), "images", img.ID, "disk")

	const name = "user.glance.name"
	n, err := unix.Getxattr(path, name, nil)
	if err != nil || n != 20 {
		t.Errorf("asked for the size: %d, %v", n, err)
	}
	if _, err := unix.Getxattr(path, name, make([]byte, 19)); !errors.Is(err, syscall.ERANGE) {
		t.Errorf("with a buffer one byte too short: %v", err)
	}
	buf := make([]byte, 20)
	if n, err := unix.Getxattr(path, name, buf); err != nil || string(buf[:n]) != "somewhat long a name" {
		t.Errorf("with a buffer that fits: %q, %v", buf[:n], err)
	}
	size, err := unix.Listxattr(path, nil)
	if err != nil || size == 0 {
		t.Fatalf("asked for the list's size: %d, %v", size, err)
	}
	if _, err := unix.Listxattr(path, make([]byte, size-1)); !errors.Is(err, syscall.ERANGE) {
		t.Errorf("with a list buffer one byte too short: %v", err)
	}
	list := make([]byte, size)
	if n, err := unix.Listxattr(path, list); err != nil || n != size || list[n-1] != 0 || !strings.Contains(string(list), "\x00user.glance.status\x00") {
		t.Errorf("the list is %q, %v", list[:n], err)
	}
	for _, other := range []string{"user.glance.nothing", "user.mime_type", "security.selinux", "security.capability", "system.posix_acl_access", "trusted.x", "user.glance."} {
		if _, err := unix.Getxattr(path, other, buf); !errors.Is(err, syscall.ENODATA) && !errors.Is(err, syscall.ENOTSUP) {
			t.Errorf("%s: %v, want ENODATA or ENOTSUP", other, err)
		}
	}
}

func TestWhatCannotBeAnAttributeIsLeftOutAndSaidSo(t *testing.T) {
	w := newWorld(t)
	fits := strings.Repeat("n", 255-len("user.glance."))
	img := w.uploaded("x", []byte("x"), func(i *catalog.Image) {
		i.Properties = map[string]string{
			fits:                     "fits",
			fits + "n":               "a byte too long",
			strings.Repeat("名", 100): "300 bytes",
			"status":                 "deleted",
			"disk_error":             "of a field that is null",
			"self":                   "of a field that the tree does not show",
			"big":                    strings.Repeat("v", 65535),
			"xattrs_left_out":        "mine",
		}
	})
	folder := filepath.Join(w.mount(), "images", img.ID)
	got := getfattr(t, filepath.Join(folder, "disk"))
	if got["user.glance."+fits] != "fits" || len(got["user.glance.big"]) != 65535 {
		t.Error("what fits is not there")
	}
	if _, ok := got["user.glance.disk_error"]; ok || got["user.glance.status"] != "active" {
		t.Errorf("a property shadows a field: status %q, disk_error %q", got["user.glance.status"], got["user.glance.disk_error"])
	}
	fields, left := metadata(t, folder)
	for _, name := range []string{fits + "n", strings.Repeat("名", 100), "status", "disk_error", "self"} {
		if left[name] == "" {
			t.Errorf("%.20q… is not among what was left out: %v", name, left)
		}
	}
	if fields["status"] != "active" || fields["disk_error"] != nil || fields["self"] != nil || fields[fits+"n"] != "a byte too long" {
		t.Error("metadata.json lost a field, or a property shadows one")
	}
}

func TestAListOfAttributesLongerThanLinuxAllowsIsCut(t *testing.T) {
	img := &catalog.Image{ID: "x", Properties: make(map[string]string)}
	for i := range 400 {
		img.Properties[fmt.Sprintf("%03d", i)+strings.Repeat("n", 200)] = "v"
	}
	img.Properties["huge"] = strings.Repeat("v", 64<<10+1)
	x := newXattrs(img)
	if len(x.list) > 64<<10 || len(x.list) < 64<<10-300 {
		t.Errorf("the list has %d bytes", len(x.list))
	}
	fields := 0
	for _, v := range ownFields(img) {
		if !v.Null {
			fields++
		}
	}
	if want := fields + 401; len(x.values)+len(x.leftOut) != want {
		t.Errorf("%d attributes and %d left out, want %d together", len(x.values), len(x.leftOut), want)
	}
	if _, ok := x.values["user.glance.huge"]; ok {
		t.Error("a value over 64 KiB was kept")
	}
	if x.values["user.glance.id"] != "x" {
		t.Error("the base fields are not kept first")
	}
}
