package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"glanced/contrib/testbed"
)

// as runs a program as another user of the host.
func as(uid, gid uint32, groups []uint32, name string, args ...string) string {
	cmd := exec.Command(name, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%s%v", out, err)
	}
	return string(out)
}

// Users of the host are one identity at every door, whatever they are called: what
// their entry says. Who is in none is refused, save root and the daemon's own user.
func TestAUserOfTheHostIsTheSameAtEveryDoor(t *testing.T) {
	testbed.Need(t, "nbdinfo", "libnbd-bin")
	testbed.Need(t, "curl", "curl")
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "glanced.toml")
	err := os.WriteFile(config, []byte(`
data_dir = "`+dir+`"
[control]
mode = "0666" # who gets in is said below
[[control.users]]
user = "64001"
project = "lab"
roles = ["member"]
[[control.users]]
user = "64002"
project = "lab"
roles = ["reader"]
[[control.users]]
group = "64100"
project = "lab"
roles = ["reader"]
[[control.users]]
group = "64101"
project = "ops"
roles = ["admin"]
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p := startDaemon(t, dir, "--config", config)
	public := p.create("public", "public", bytes.Repeat([]byte("p"), 4096))
	private := p.create("private", "private", bytes.Repeat([]byte("q"), 4096))
	status, v := p.call("POST", "/v2/images", "application/json", strings.NewReader(`{"disk_format":"raw","container_format":"bare","visibility":"private","owner":"lab"}`))
	if status != 201 {
		t.Fatalf("%d %v", status, v)
	}
	labs := v["id"].(string)
	if status, v := p.call("PUT", "/v2/images/"+labs+"/file", "application/octet-stream", strings.NewReader("lab")); status != 204 {
		t.Fatalf("%d %v", status, v)
	}
	names := map[string]string{public: "public", private: "private", labs: "lab's"}
	seen := func(text string) string {
		var all []string
		for _, id := range []string{public, private, labs} {
			if strings.Contains(text, id) {
				all = append(all, names[id])
			}
		}
		return strings.Join(all, ", ")
	}
	control, nbdURI := filepath.Join(dir, "control.sock"), "nbd+unix:///%s?socket="+filepath.Join(dir, "nbd.sock")
	for _, c := range []struct {
		uid, gid uint32
		groups   []uint32
		sees     string
		creates  string // the status of a create
		mount    bool
	}{
		{64001, 64001, nil, "public, lab's", "201", false},
		{64002, 64002, nil, "public, lab's", "403", false},
		{64002, 64101, nil, "public, lab's", "403", false}, // their own entry counts before the group's
		{64003, 64100, nil, "public, lab's", "403", false},
		{64003, 5, []uint32{64100}, "public, lab's", "403", false},
		{64004, 64101, nil, "public, private, lab's", "201", true},
		{64004, 5, []uint32{64100, 64101}, "public, private, lab's", "201", true},
		{64005, 64005, []uint32{5}, "", "403", false},
		{0, 0, nil, "public, private, lab's", "201", true},
	} {
		run := func(name string, args ...string) string { return as(c.uid, c.gid, c.groups, name, args...) }
		t.Run(fmt.Sprint(c.uid, c.gid, c.groups), func(t *testing.T) {
			curl := func(args ...string) string {
				return run("curl", append([]string{"-s", "--unix-socket", control, "-w", " %{http_code}"}, args...)...)
			}
			list := curl("http://control/v2/images")
			if got := seen(list); got != c.sees || (c.sees == "") != strings.HasSuffix(list, " 403") {
				t.Errorf("the control socket lists %q, want %q: %s", got, c.sees, list)
			}
			if c.sees == "" && !strings.Contains(list, "control.users") {
				t.Errorf("they are not told why: %s", list)
			}
			made := curl("-H", "Content-Type: application/json", "-d", "{}", "http://control/v2/images")
			if !strings.HasSuffix(made, " "+c.creates) {
				t.Errorf("create answers %s, want %s", made, c.creates)
			}
			if got := seen(run("nbdinfo", "--list", fmt.Sprintf(nbdURI, ""))); got != c.sees {
				t.Errorf("the NBD socket lists %q, want %q", got, c.sees)
			}
			for id, name := range names {
				size := run("nbdinfo", "--size", fmt.Sprintf(nbdURI, id))
				if opened := !strings.Contains(size, "nbdinfo"); opened != strings.Contains(c.sees, name) {
					t.Errorf("the NBD socket opens the image %s: %s", name, size)
				}
				data := run("cat", filepath.Join(dir, "mnt/images", id, "file"))
				if read := !strings.Contains(data, "Permission denied"); read != c.mount {
					t.Errorf("the mount: the image %s reads %.100q", name, data)
				}
			}
			for _, path := range []string{"mnt", "mnt/images", "mnt/by-name", "mnt/by-name/private"} {
				if out := run("ls", "-l", filepath.Join(dir, path)); strings.Contains(out, "Permission denied") == c.mount {
					t.Errorf("ls %s: %s", path, out)
				}
			}
			if c.mount { // the kernel knows every node now: the next ones must not get at what it keeps
				run("find", filepath.Join(dir, "mnt"))
			}
		})
	}
}
