package ctl

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"glanced/catalog"
)

func pointer[T any](v T) *T { return &v }

// An image is written as encoding/json writes a map of what Glance shows: keys in order,
// null where there is nothing, a property never in a field's place.
func TestAnImageIsShownAsGlanceShowsIt(t *testing.T) {
	const id = "6f0c4bd2-5f3a-4ea7-b2ab-0d1f0f8f5a01"
	made := time.Date(2026, 12, 1, 6, 0, 5, 999_000, time.UTC)
	images := map[string]catalog.Image{
		"queued": {ID: id, Status: catalog.Queued, Visibility: "shared", CreatedAt: made, UpdatedAt: made},
		"active": {ID: id, Name: pointer("<ảnh> \"đĩa\"\u2028"), Status: catalog.Active, DiskFormat: pointer("qcow2"), ContainerFormat: pointer("bare"),
			Visibility: "public", Owner: "p", Protected: true, Hidden: true, MinDisk: 1, MinRAM: 2, Size: pointer(int64(0)), VirtualSize: pointer(int64(1 << 40)),
			Allocated: pointer(int64(9)), Checksum: pointer("c"), HashAlgo: pointer("sha512"), HashValue: pointer("h"), DiskError: "why & how",
			Parent: &catalog.Parent{ID: "parent", HashValue: "secret"}, Snapshots: []catalog.Snapshot{{Name: "a"}, {Name: "b"}},
			CreatedAt: made, UpdatedAt: made, Tags: []string{"x", "y\x01"}, Node: "secret", Reserved: 5,
			Locations:  []catalog.Location{{Store: "fast", URL: "file:///secret"}, {Store: "slow"}},
			Properties: map[string]string{"": "no name", "a/b": "\\", "zz": "the last", "size": "mine", "direct_url": "mine", "os_glance_x": "1", "node": "a property"}},
	}
	none := map[string]any{"name": nil, "disk_format": nil, "container_format": nil, "owner": nil, "size": nil, "virtual_size": nil, "checksum": nil,
		"os_hash_algo": nil, "os_hash_value": nil, "protected": false, "os_hidden": false, "min_disk": 0, "min_ram": 0, "tags": []string{},
		"status": "queued", "visibility": "shared"}
	all := map[string]any{"name": "<ảnh> \"đĩa\"\u2028", "disk_format": "qcow2", "container_format": "bare", "owner": "p", "size": 0, "virtual_size": int64(1 << 40),
		"checksum": "c", "os_hash_algo": "sha512", "os_hash_value": "h", "protected": true, "os_hidden": true, "min_disk": 1, "min_ram": 2, "tags": []string{"x", "y\x01"},
		"status": "active", "visibility": "public", "stores": "fast,slow", "os_glance_disk_error": "why & how", "os_glance_backing_image": "parent",
		"os_glance_snapshots": `["a","b"]`, "": "no name", "a/b": "\\", "zz": "the last", "os_glance_x": "1", "node": "a property"}
	for name, want := range map[string]map[string]any{"queued": none, "active": all} {
		want["id"], want["self"], want["file"], want["schema"] = id, "/v2/images/"+id, "/v2/images/"+id+"/file", "/v2/schemas/image"
		want["created_at"], want["updated_at"] = "2026-12-01T06:00:05Z", "2026-12-01T06:00:05Z"
		var text bytes.Buffer
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(want); err != nil {
			t.Fatal(err)
		}
		img := images[name]
		a := &answer{}
		a.image(&img)
		if got := a.buf.String() + "\n"; got != text.String() {
			t.Errorf("%s is shown as\n%swant\n%s", name, got, text.String())
		}
	}
}
