package ctl_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"glanced/contrib/testbed"
)

// command is a stock client without any cloud of the machine's, or a proxy to it.
// Its home is kept: glance stores the schema there and makes options of it.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(w.t.Context(), args[0], args[1:]...)
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(v, "OS_") && !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, "HOME="+w.dir, "COLUMNS=500")
	return cmd
}

// cli runs a stock client against w and returns what it printed and whether it succeeded.
func (w *world) cli(args ...string) (string, bool) {
	w.t.Helper()
	w.t.Logf("$ %s", strings.Join(args, " "))
	cmd := w.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if errs.Len() > 0 {
		w.t.Logf("stderr: %s", errs.Bytes())
	}
	if err != nil {
		return errs.String(), false
	}
	return out.String(), true
}

func (w *world) glance(args ...string) string {
	w.t.Helper()
	out, ok := w.cli(append([]string{"glance", "--os-image-url", w.server.URL, "--os-auth-token", "demo-token"}, args...)...)
	if !ok {
		w.t.Fatalf("glance %s failed: %s", args[0], out)
	}
	return out
}

// openstack runs commands in one session of the client, whose start takes longer
// than all of them. It returns what they printed, as JSON values one after
// another, and their complaints. A session goes on after a command that failed.
func (w *world) openstack(commands ...string) (*json.Decoder, string) {
	w.t.Helper()
	cmd := w.command("openstack") // options would be taken for commands of the session
	cmd.Env = append(cmd.Env, "OS_AUTH_TYPE=admin_token", "OS_ENDPOINT="+w.server.URL+"/v2", "OS_TOKEN=demo-token")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	w.t.Logf("openstack < %q:\n%s\nstderr: %s", commands, out.Bytes(), errs.Bytes())
	if err != nil {
		w.t.Fatalf("openstack: %v", err)
	}
	return json.NewDecoder(&out), errs.String()
}

// dataFile is a file of n random bytes.
func dataFile(t *testing.T, n int) (path string, data []byte) {
	data = make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(data)
	path = filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, data
}

func TestGlanceclientWorks(t *testing.T) {
	testbed.Need(t, "glance", "python3-glanceclient")
	t.Parallel()
	w := newWorld(t, options{})
	path, data := dataFile(t, 3_000_000)
	const id = "0e5b9c9e-0a6e-4b8e-9a56-5d1f7c1f9a11"
	out := w.glance("image-create", "--id", id, "--name", "máy ảo 镜像", "--disk-format", "raw", "--container-format", "bare",
		"--property", "os_distro=debian", "--tag", "t1", "--file", path)
	for _, want := range []string{"active", "máy ảo 镜像", "debian", "3000000"} {
		if !strings.Contains(out, want) {
			t.Errorf("image-create does not show %q:\n%s", want, out)
		}
	}
	saved := filepath.Join(t.TempDir(), "saved")
	w.glance("image-download", "--file", saved, id) // checks os_hash_value itself
	if got, err := os.ReadFile(saved); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what was downloaded differs: %d bytes, %v", len(got), err)
	}
	w.glance("image-update", "--property", "a=b", "--min-ram", "64", "--remove-property", "os_distro", id)
	w.glance("image-tag-update", id, "t2")
	w.glance("image-deactivate", id)
	if img := w.show(id); img["status"] != "deactivated" || img["a"] != "b" || img["min_ram"] != 64.0 || img["os_distro"] != nil {
		t.Errorf("after update and deactivate: %v", img)
	}
	out, ok := w.cli("glance", "--os-image-url", w.server.URL, "--os-auth-token", "demo-token", "image-download", "--file", saved, id)
	if ok || !strings.Contains(out, "403 Forbidden") || !strings.Contains(out, "deactivated") {
		t.Errorf("the refused download says: %s", out)
	}
	w.glance("image-reactivate", id)
	if out := w.glance("image-list"); !strings.Contains(out, id) {
		t.Errorf("image-list does not show it:\n%s", out)
	}
	w.glance("image-delete", id)
	out, ok = w.cli("glance", "--os-image-url", w.server.URL, "--os-auth-token", "demo-token", "image-show", id)
	if ok || !strings.Contains(out, "HTTP 404 Not Found: No image found with ID "+id) {
		t.Errorf("image-show of a deleted image says: %s", out)
	}
}

func TestGlanceclientUploadsByItself(t *testing.T) {
	testbed.Need(t, "glance", "python3-glanceclient")
	t.Parallel()
	w := newWorld(t, options{})
	path, _ := dataFile(t, 100_000)
	id := w.create(nil)
	w.glance("image-upload", "--file", path, id)
	if img := w.show(id); img["status"] != "active" || img["size"] != 100000.0 {
		t.Errorf("after image-upload: %v", img)
	}
	if out := w.glance("stores-info"); !strings.Contains(out, "fast") {
		t.Errorf("stores-info: %s", out)
	}
}

func TestOpenstackclientWorks(t *testing.T) {
	testbed.Need(t, "openstack", "python3-openstackclient")
	t.Parallel()
	w := newWorld(t, options{})
	path, data := dataFile(t, 2_000_000)
	saved := filepath.Join(t.TempDir(), "saved")
	out, complaints := w.openstack(
		"image create -f json --disk-format raw --container-format bare --file "+path+" --property os_distro=debian --tag t1 cli1",
		"image list --name cli1 --long -f json",
		"image set --property a=b --min-ram 64 --name cli2 cli1",
		"image show cli2 -f json",
		"image save --file "+saved+" cli2",
		"image unset --property a --tag t1 cli2",
		"image create --public p")
	var made, shown map[string]any
	var list []map[string]any
	if err := out.Decode(&made); err != nil || made["name"] != "cli1" {
		t.Fatalf("image create: %v %v", made, err)
	}
	if err := out.Decode(&list); err != nil || len(list) != 1 || list[0]["Status"] != "active" || list[0]["Size"] != 2000000.0 {
		t.Fatalf("image list: %v %v", list, err)
	}
	if err := out.Decode(&shown); err != nil || shown["status"] != "active" || shown["min_ram"] != 64.0 {
		t.Errorf("image show by name: %v %v", shown, err)
	}
	if got, err := os.ReadFile(saved); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what was saved differs: %d bytes, %v", len(got), err)
	}
	id := list[0]["ID"].(string)
	img := w.show(id)
	if img["a"] != nil || len(img["tags"].([]any)) != 0 || img["os_distro"] != "debian" {
		t.Errorf("after unset: %v", img)
	}
	if !strings.Contains(complaints, "403 Forbidden: You are not authorized to complete publicize_image action") {
		t.Errorf("the refused create says: %s", complaints)
	}
	w.openstack("image delete " + id)
	if a := w.do("GET", "/v2/images/"+id, nil); a.StatusCode != 404 {
		t.Errorf("after image delete: %d", a.StatusCode)
	}
}
