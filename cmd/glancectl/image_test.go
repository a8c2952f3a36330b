package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeFile makes a file with content in a folder of the test.
func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCreateUploadsTheFileAndShowsTheImage(t *testing.T) {
	g := newServer(t)
	file := writeFile(t, "disk.raw", []byte("not of any format"))
	id := "6f0c4bd2-5f3a-4ea7-b2ab-0d1f0f8f5a01"
	r := g.do("image", "create", "--name", "golden", "--file", file, "--id", id, "--visibility", "public", "--property", "os_distro=debian",
		"--property", "list=a,b=c", "--tag", "x", "--tag", "y,z", "--min-disk", "3", "--min-ram", "64", "--protected", "-f", "json")
	img := decode[map[string]any](t, r.ok())
	for k, want := range map[string]any{
		"id": id, "name": "golden", "status": "active", "size": 17.0, "disk_format": "raw", "container_format": "bare", "visibility": "public",
		"os_distro": "debian", "list": "a,b=c", "min_disk": 3.0, "min_ram": 64.0, "protected": true,
	} {
		if img[k] != want {
			t.Errorf("%s is %v, want %v", k, img[k], want)
		}
	}
	if tags := img["tags"].([]any); len(tags) != 2 || tags[0] != "x" || tags[1] != "y,z" {
		t.Errorf("tags are %v", tags)
	}
	if !strings.Contains(r.err, "disk format raw, by the content") {
		t.Errorf("the guess is not told: %q", r.err)
	}
	if string(g.stored(id)) != "not of any format" {
		t.Errorf("uploaded %q", g.stored(id))
	}
}

func TestCreateReadsStandardInput(t *testing.T) {
	g := newServer(t)
	data := strings.Repeat("0123456789", 100_000)
	id := strings.TrimSpace(glancectl(t, data, "--socket", g.socket, "image", "create", "--file", "-", "-f", "value", "-c", "id").ok())
	if got := g.stored(id); string(got) != data {
		t.Errorf("%d bytes arrived, want %d", len(got), len(data))
	}
}

func TestCreateWithoutAFileMakesAQueuedRecord(t *testing.T) {
	g := newServer(t)
	if out := g.do("image", "create", "--name", "later", "-f", "value", "-c", "status", "-c", "disk_format").ok(); out != "queued\n\n" {
		t.Errorf("printed %q", out)
	}
}

func TestFailedUploadTakesTheRecordBack(t *testing.T) {
	file := writeFile(t, "disk.raw", make([]byte, 1<<20))
	for name, keep := range map[string]bool{"deleted": false, "kept": true} {
		t.Run(name, func(t *testing.T) {
			g := newServer(t)
			g.refuseWith("PUT", "/file", http.StatusRequestEntityTooLarge, "Resource image_size_total is over limit of 1 due to current usage 1 and delta 1")
			args := []string{"image", "create", "--name", "big", "--file", file, "--disk-format", "raw", "--protected"}
			if keep {
				args = append(args, "--keep")
			}
			g.do(args...).fails(exitFailed, "image_size_total is over limit of 1", "413", "glancectl quota show", name)
			if left := g.names(); (len(left) == 1) != keep {
				t.Errorf("records left: %q", left)
			}
		})
	}
}

func TestCreateOfAMissingFileMakesNoRecord(t *testing.T) {
	g := newServer(t)
	g.do("image", "create", "--file", filepath.Join(t.TempDir(), "none")).fails(exitFailed, "none: no such file")
	g.do("image", "create", "--file", t.TempDir()).fails(exitFailed, "is a folder")
	if len(g.asked("")) > 0 {
		t.Errorf("asked the server: %q", g.asked(""))
	}
}

func TestListFollowsPagesAndFilters(t *testing.T) {
	g := newServer(t)
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		g.add(name, []byte(name), map[string]any{"os_distro": "debian", "tags": []any{"t", name}})
	}
	g.add("hid", nil, map[string]any{"os_hidden": true})
	g.add("com", nil, map[string]any{"visibility": "community"})
	for args, want := range map[string]string{
		"":                            "com e d c b a", // community images of one's own are listed
		"--limit 3":                   "com e d",
		"--limit 4 --name b":          "b",
		"--all":                       "com e d c b a hid",
		"--all --limit 6":             "com e d c b a",
		"--hidden":                    "hid",
		"--visibility community":      "com",
		"--tag t --tag c":             "c",
		"--property os_distro=debian": "e d c b a",
		"--property os_distro=other":  "",
		"--status queued":             "com",
		"--status active --name a":    "a",
	} {
		out := g.do(append([]string{"image", "list", "-f", "value", "-c", "name"}, strings.Fields(args)...)...).ok()
		if got := strings.Join(strings.Fields(out), " "); got != want {
			t.Errorf("list %s: %q, want %q", args, got, want)
		}
	}
	g.do("image", "list", "--sort", "name:asc").ok()
	if len(g.asked("GET /v2/images?limit=500&sort=name%3Aasc")) == 0 {
		t.Errorf("the order was not passed on: %q", g.asked(""))
	}
	list := decode[[]map[string]any](t, g.do("image", "list", "-f", "json", "--name", "a").ok())
	if len(list) != 1 || list[0]["os_distro"] != "debian" || list[0]["size"] != 1.0 {
		t.Errorf("JSON lists %v", list)
	}
	if out := g.do("image", "list", "-f", "json", "--name", "none").ok(); out != "[]\n" {
		t.Errorf("an empty list is %q", out)
	}
}

func TestAnImageIsFoundByIDAndByItsOnlyName(t *testing.T) {
	g := newServer(t)
	one := g.add("one", nil, nil)
	hidden := g.add("hid", nil, map[string]any{"os_hidden": true})
	community := g.add("com", nil, map[string]any{"visibility": "community"})
	odd := g.add("in:a,b", nil, nil)
	likeID := g.add("11111111-2222-3333-4444-555555555555", nil, nil)
	utf8 := g.add("Ảnh 映像", nil, nil)
	capitals := g.add("cap", nil, map[string]any{"id": "6F0C4BD2-5F3A-4EA7-B2AB-0D1F0F8F5A01"})
	for arg, want := range map[string]string{
		one: one, strings.ToUpper(one): one, "one": one, "hid": hidden, "com": community, "in:a,b": odd,
		"11111111-2222-3333-4444-555555555555": likeID, "Ảnh 映像": utf8, capitals: capitals,
	} {
		if got := g.do("image", "show", arg, "-f", "value", "-c", "id").ok(); got != want+"\n" {
			t.Errorf("%s is %q, want %s", arg, got, want)
		}
	}
	g.do("image", "show", "none").fails(exitFailed, "no image with the id or name none", "image list --all")
	twin := g.add("one", nil, map[string]any{"os_hidden": true})
	for _, command := range []string{"show", "delete", "deactivate", "download"} {
		g.do("image", command, "one").fails(exitFailed, "2 images are named one", one, twin)
	}
}

func TestUpdateChangesFieldsPropertiesAndTags(t *testing.T) {
	g := newServer(t)
	id := g.add("one", nil, map[string]any{"draft": "yes", "tags": []any{"old"}, "protected": true})
	out := g.do("image", "update", "one", "--name", "two", "--protected=false", "--hidden", "--min-ram", "0", "--property", "a/b~c=1", "--property", "empty=",
		"--remove-property", "draft", "--tag", "né w", "--remove-tag", "old", "-f", "json").ok()
	img := decode[map[string]any](t, out)
	for k, want := range map[string]any{"id": id, "name": "two", "protected": false, "os_hidden": true, "a/b~c": "1", "empty": "", "min_ram": 0.0} {
		if img[k] != want {
			t.Errorf("%s is %v, want %v", k, img[k], want)
		}
	}
	if _, there := img["draft"]; there {
		t.Error("the property draft is still there")
	}
	if tags := img["tags"].([]any); len(tags) != 1 || tags[0] != "né w" {
		t.Errorf("tags are %v", tags)
	}
	g.do("image", "update", id, "--remove-property", "none").fails(exitFailed, "Property none does not exist", "409")
	g.do("image", "update", id, "--remove-tag", "none").fails(exitFailed, "tag none")
}

func TestDeleteGoesOnAfterAFailure(t *testing.T) {
	g := newServer(t)
	g.add("a", nil, nil)
	g.add("b", nil, map[string]any{"protected": true})
	g.add("c", nil, nil)
	g.do("image", "delete", "a", "none", "b", "c").fails(exitFailed, "no image with the id or name none", "image b not deleted", "protected", "--protected=false")
	if left := g.names(); !slices.Equal(left, []string{"b"}) {
		t.Errorf("left: %q", left)
	}
}

func TestDeactivateAndReactivate(t *testing.T) {
	g := newServer(t)
	id := g.add("a", []byte("x"), nil)
	g.do("image", "deactivate", "a").ok()
	if got := g.do("image", "show", id, "-f", "value", "-c", "status").ok(); got != "deactivated\n" {
		t.Errorf("status %q", got)
	}
	g.do("image", "reactivate", id).ok()
	if got := g.do("image", "show", id, "-f", "value", "-c", "Status").ok(); got != "active\n" {
		t.Errorf("status %q", got)
	}
}

func TestDaemonReports(t *testing.T) {
	g := newServer(t)
	table := g.do("status").ok()
	for _, part := range []string{"1.2", "1m1s", "http 127.0.0.1:9292", "3 active, 1 queued", "local (file): 1.0 GiB of 2.0 GiB free, default; far (s3): room unknown", "1.0 MiB in use, budget 512.0 MiB"} {
		if !strings.Contains(table, part) {
			t.Errorf("status lacks %q:\n%s", part, table)
		}
	}
	if v := decode[map[string]any](t, g.do("status", "-f", "json").ok()); v["images"].(map[string]any)["active"] != 3.0 {
		t.Errorf("status as JSON: %v", v)
	}
	g.do("status", "-c", "bogus").fails(exitUsage, `no column "bogus"`, "uptime_seconds")
	if out := g.do("exports", "-f", "value").ok(); !strings.HasPrefix(out, "e1\t127.0.0.1:5\t") || !strings.HasSuffix(out, "\t3145728\n") {
		t.Errorf("exports: %q", out)
	}
	if out := g.do("mounts", "-f", "value").ok(); out != "/mnt/glance\n" {
		t.Errorf("mounts: %q", out)
	}
	glancectl(t, "", "--url", g.url, "--token", testToken, "status").fails(exitFailed, "control socket only")
}

func TestQuotaIsSetShownAndUnset(t *testing.T) {
	g := newServer(t)
	for range 3 {
		g.add("x", make([]byte, 1<<20), map[string]any{"owner": "p"})
	}
	if out := g.do("quota", "show", "p").ok(); !strings.Contains(out, "3 images, no limit") || !strings.Contains(out, "no, the configured") {
		t.Errorf("without a quota:\n%s", out)
	}
	if out := g.do("quota", "set", "p", "--image-count-total", "5").ok(); !strings.Contains(out, "3 of 5 images") || !strings.Contains(out, "3 MiB, no limit") {
		t.Errorf("with a count:\n%s", out)
	}
	out := g.do("quota", "set", "--image-size-total", "100", "p", "-f", "json").ok()
	q := decode[struct {
		Own   bool
		Count struct{ Limit int64 } `json:"image_count_total"`
		Size  struct{ Limit int64 } `json:"image_size_total"`
	}](t, out)
	if !q.Own || q.Count.Limit != 5 || q.Size.Limit != 100 {
		t.Errorf("a limit that was not given changed: %+v", q)
	}
	if out := g.do("quota", "unset", "p", "-f", "value", "-c", "own").ok(); out != "false\n" {
		t.Errorf("after unset own is %q", out)
	}
}

func TestTheServerRefusesContentThatIsNotTheDeclaredFormat(t *testing.T) {
	g := newServer(t)
	file := writeFile(t, "disk.vmdk", make([]byte, 1<<20))
	g.do("image", "create", "--name", "x", "--disk-format", "vmdk", "--file", file).fails(exitFailed, "415", "glancectl disk info", "deleted again")
	if left := g.names(); len(left) > 0 {
		t.Errorf("records left: %q", left)
	}
}

func TestQuotaStopsAnUpload(t *testing.T) {
	g := newServer(t)
	g.do("quota", "set", "admin", "--image-size-total", "1").ok()
	file := writeFile(t, "disk", make([]byte, 3<<20))
	g.do("image", "create", "--name", "x", "--file", file).fails(exitFailed, "image_size_total is over limit of 1", "413", "quota show", "deleted again")
}

func TestStoresAreListedAndTried(t *testing.T) {
	g := newServer(t)
	if table := g.do("store", "list").ok(); !strings.Contains(table, "far") || !strings.Contains(table, "unknown") || !strings.Contains(table, "1.0 GiB") {
		t.Error(table)
	}
	if out := g.do("store", "list", "-f", "value", "-c", "id").ok(); out != "local\nfar\n" {
		t.Errorf("%q", out)
	}
	if out := g.do("store", "check", "local").ok(); !strings.Contains(out, "write works, read works, delete works") {
		t.Error(out)
	}
	g.do("store", "check", "tape").fails(exitFailed, "No store has this id")
	g.mu.Lock()
	g.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/admin/stores/") {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"id":"far","ok":false,"steps":[{"name":"write","error":""},{"name":"read","error":"the store cannot be reached"}]}`)
		return true
	}
	g.mu.Unlock()
	g.do("store", "check", "far").fails(exitFailed, "store far: write works; cannot read: the store cannot be reached")
}

func TestAnUploadMayNameItsStore(t *testing.T) {
	g := newServer(t)
	file := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(file, []byte("a disk"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.do("image", "create", "--name", "a", "--disk-format", "raw", "--file", file, "--store", "local").ok()
	g.do("image", "create", "--name", "b", "--disk-format", "raw", "--file", file, "--store", "tape").fails(exitFailed, "Store for identifier tape not found")
	g.do("image", "create", "--name", "c", "--disk-format", "raw", "--container-format", "bare").ok()
	g.do("image", "upload", "c", file, "--store", "tape").fails(exitFailed, "Store for identifier tape not found")
	g.do("image", "upload", "c", file, "--store", "local").ok()
}
