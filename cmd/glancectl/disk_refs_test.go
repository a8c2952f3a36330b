package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"glanced/formats"
)

// qemuIO runs qemu-io commands on an image.
func qemuIO(t *testing.T, format, image string, commands ...string) {
	t.Helper()
	args := []string{"-f", format}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	runTool(t, "qemu-io", append(args, image)...)
}

// chainOf is base.raw, mid.qcow2 on it and top.qcow2 on that, in a folder, each
// with a MiB of its own at 0, 1 and 2 MiB; and what the top disk holds.
func chainOf(t *testing.T) (dir string, content []byte) {
	t.Helper()
	dir = t.TempDir()
	t.Chdir(dir) // the names in the images are relative
	content = make([]byte, 4<<20)
	for i := range 3 {
		for k := range 1 << 20 {
			content[i<<20+k] = byte(i + 1)
		}
	}
	if err := os.WriteFile("base.raw", append(bytes.Repeat([]byte{1}, 1<<20), make([]byte, 3<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.raw", "mid.qcow2")
	qemuIO(t, "qcow2", "mid.qcow2", "write -P 2 1M 1M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "mid.qcow2", "top.qcow2")
	qemuIO(t, "qcow2", "top.qcow2", "write -P 3 2M 1M")
	// What the names in the images lead to is not what shall be read.
	for _, name := range []string{"base.raw", "mid.qcow2"} {
		if err := os.Rename(name, "the-"+name); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("a trap"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, content
}

// converted is the raw disk that disk convert makes of args.
func converted(t *testing.T, args ...string) []byte {
	t.Helper()
	return []byte(glancectl(t, "", append(append([]string{"disk", "convert"}, args...), "-")...).ok())
}

func TestAChainIsReadFromTheFilesThatRefNames(t *testing.T) {
	_, content := chainOf(t)
	for name, refs := range map[string][]string{
		"by name":          {"--ref", "base.raw=the-base.raw", "--ref", "mid.qcow2=the-mid.qcow2"},
		"by kind":          {"--ref", "backing=the-mid.qcow2", "--ref", "backing=the-base.raw"},
		"by name and kind": {"--ref", "backing=the-base.raw", "--ref", "mid.qcow2=the-mid.qcow2"},
	} {
		t.Run(name, func(t *testing.T) {
			if !bytes.Equal(converted(t, append([]string{"top.qcow2"}, refs...)...), content) {
				t.Error("the disk is another one")
			}
			runs := decode[[]struct{ Start, Depth int64 }](t, glancectl(t, "", append([]string{"disk", "map", "top.qcow2", "-f", "json"}, refs...)...).ok())
			var depths []int64
			for _, r := range runs[:3] {
				depths = append(depths, r.Depth)
			}
			if !slices.Equal(depths, []int64{2, 1, 0}) {
				t.Errorf("found at the depths %v", depths)
			}
			info := decode[struct {
				Safe        bool
				Refused     *string
				VirtualSize int64 `json:"virtual_size"`
				Opened      []openedRef
			}](t, glancectl(t, "", append([]string{"disk", "info", "top.qcow2", "-f", "json"}, refs...)...).ok())
			if !info.Safe || info.Refused != nil || info.VirtualSize != 4<<20 || len(info.Opened) != 2 {
				t.Errorf("info: %+v", info)
			}
			if o := info.Opened[0]; o != (openedRef{0, formats.RefBacking, "mid.qcow2", "the-mid.qcow2", "qcow2", false}) {
				t.Errorf("opened %+v", o)
			}
		})
	}
}

func TestAReferenceWithoutAFileNamesTheOptionItNeeds(t *testing.T) {
	chainOf(t)
	paste := "--ref mid.qcow2=FILE"
	for _, command := range []string{"map", "check", "bench"} {
		glancectl(t, "", "disk", command, "top.qcow2").fails(exitFailed, "top.qcow2", "refers to another file", "never followed", paste)
	}
	glancectl(t, "", "disk", "map", "top.qcow2", "--ref", "mid.qcow2=the-mid.qcow2").fails(exitFailed, "the-mid.qcow2", "--ref base.raw=FILE")
	table := glancectl(t, "", "disk", "info", "top.qcow2").ok()
	if !strings.Contains(table, paste) || !strings.Contains(table, "| no ") {
		t.Errorf("info does not say what it needs:\n%s", table)
	}
	for name, want := range map[string]string{
		"a b.raw":                "--ref 'a b.raw=FILE'",
		"it's.raw":               `--ref 'it'\''s.raw=FILE'`,
		"json:{\"file\": \"x\"}": `--ref 'json:{"file": "x"}=FILE'`,
		"\x1b[2J":                "--ref backing=FILE",
		"two\nlines":             "--ref backing=FILE",
		strings.Repeat("x", 999): "--ref backing=FILE",
		"-rf":                    "--ref backing=FILE",
		"":                       "--ref backing=FILE",
	} {
		if got := refOption(formats.Ref{Kind: formats.RefBacking, Name: name}); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestARefThatDoesNotFitIsRefused(t *testing.T) {
	chainOf(t)
	both := []string{"--ref", "mid.qcow2=the-mid.qcow2", "--ref", "base.raw=the-base.raw"}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{append(both, "--ref", "bsae.raw=the-base.raw"), exitFailed, `nothing refers to "bsae.raw"`},
		{append(both, "--ref", "data=the-base.raw"), exitFailed, `nothing refers to "data"`},
		{[]string{"--ref", "mid.qcow2=none"}, exitFailed, "none: no such file"},
		{[]string{"--ref", "mid.qcow2=."}, exitFailed, "is a folder"},
		{[]string{"--ref", "mid.qcow2=top.qcow2"}, exitFailed, "would never end"},
		{[]string{"--ref", "mid.qcow2=the-mid.qcow2", "--ref", "base.raw=the-mid.qcow2"}, exitFailed, "would never end"},
		{[]string{"--ref", "mid.qcow2=the-base.raw"}, exitFailed, "not an image of this format"}, // it is said to be qcow2
		{[]string{"--ref", "mid.qcow2"}, exitUsage, "is not NAME=FILE"},
		{[]string{"--ref", "=x"}, exitUsage, "is not NAME=FILE"},
		{[]string{"--ref", "x="}, exitUsage, "is not NAME=FILE"},
		{[]string{"--ref", "x=1", "--ref", "x=2"}, exitUsage, "given twice"},
	} {
		for _, command := range []string{"map", "info"} {
			r := glancectl(t, "", append([]string{"disk", command, "top.qcow2"}, tt.args...)...)
			if command == "info" && strings.Contains(tt.says, "not an image") {
				continue // which says so in what it prints
			}
			r.fails(tt.code, tt.says)
		}
	}
	glancectl(t, "", "disk", "map", "base.raw", "--ref", "x=the-base.raw").fails(exitFailed, "nothing refers to", "leave --ref out")
	// FILE is what follows the last "=": no name in an image can move that.
	refs, err := parseRefs([]string{"rbd:pool/disk:id=admin=/srv/x"})
	if path, ok := refs.find(formats.Ref{Kind: formats.RefBacking, Name: "rbd:pool/disk:id=admin"}); err != nil || !ok || path != "/srv/x" {
		t.Errorf("%q, %v, %v", path, ok, err)
	}
	if path, ok := refs.find(formats.Ref{Kind: formats.RefBacking, Name: "rbd:pool/disk:id"}); ok {
		t.Errorf("a shorter name finds %q", path)
	}
	glancectl(t, "", "disk", "convert", "top.qcow2", "the-base.raw", "--force", "--ref", "mid.qcow2=the-mid.qcow2", "--ref", "base.raw=the-base.raw").fails(exitFailed, "are the same file")
}

func TestABackingFileOfNoSaidFormatIsProbedAndSaidSo(t *testing.T) {
	chainOf(t)
	// qemu-img refuses to leave the format out, so it is taken out: version 2 has
	// the extension right behind the header.
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-F", "raw", "-b", filepath.Base("base.raw"), "child.qcow2", "4M")
	b, err := os.ReadFile("child.qcow2")
	if err != nil {
		t.Fatal(err)
	}
	copy(b[72:], make([]byte, 4)) // the type of the first extension: their end
	if err := os.WriteFile("child.qcow2", b, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"disk", "info", "child.qcow2", "--ref", "base.raw=the-base.raw"}
	info := decode[struct{ Opened []openedRef }](t, glancectl(t, "", append(args, "-f", "json")...).ok())
	if len(info.Opened) != 1 || !info.Opened[0].Probed || info.Opened[0].Format != "raw" {
		t.Errorf("opened %+v", info.Opened)
	}
	if table := glancectl(t, "", args...).ok(); !strings.Contains(table, "as its content says") {
		t.Errorf("the table does not say that it was probed:\n%s", table)
	}
}

func TestADataFileIsReadFromTheFileThatRefNames(t *testing.T) {
	t.Chdir(t.TempDir())
	guest := guestDisk(t)
	qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", "-o", "data_file=data.raw", guest, "disk.qcow2")
	if err := os.Rename("data.raw", "moved"); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(converted(t, "disk.qcow2", "--ref", "data.raw=moved"), want) || !bytes.Equal(converted(t, "disk.qcow2", "--ref", "data=moved"), want) {
		t.Error("the disk is another one")
	}
	glancectl(t, "", "disk", "map", "disk.qcow2").fails(exitFailed, "--ref data.raw=FILE")
	glancectl(t, "", "disk", "map", "disk.qcow2", "--ref", "data=disk.qcow2").fails(exitFailed, "would never end")
	for _, r := range decode[[]struct {
		Data   bool
		Source int
	}](t, glancectl(t, "", "disk", "map", "disk.qcow2", "--ref", "data=moved", "-f", "json").ok()) {
		if r.Data && r.Source != 1 {
			t.Errorf("data is said to be in source %d", r.Source)
		}
	}
}

// esxDisk makes guest a flat disk as ESX has it on its own file system, in a new
// folder: disk.vmdk, and disk-flat.vmdk beside it.
func esxDisk(t *testing.T, guest string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	text := filepath.Join(dir, "disk.vmdk")
	qemuImg(t, "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=monolithicFlat", guest, text)
	b, err := os.ReadFile(text)
	if err != nil {
		t.Fatal(err)
	}
	esx := strings.NewReplacer(`"monolithicFlat"`, `"vmfs"`, `FLAT "disk-flat.vmdk" 0`, `VMFS "disk-flat.vmdk"`).Replace(string(b))
	if err := os.WriteFile(text, []byte(esx), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAFlatDiskOfESXIsReadFromTheFileThatRefNames(t *testing.T) {
	guest := guestDisk(t)
	want, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(esxDisk(t, guest))
	if err := os.Rename("disk-flat.vmdk", "moved"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"disk-flat.vmdk", "extent"} {
		if !bytes.Equal(converted(t, "disk.vmdk", "--ref", name+"=moved"), want) {
			t.Errorf("by %s: the disk is another one", name)
		}
	}
	info := decode[map[string]any](t, glancectl(t, "", "disk", "info", "disk.vmdk", "--ref", "extent=moved", "-f", "json").ok())
	if info["safe"] != true || info["variant"] != "vmfs" {
		t.Errorf("info: %v", info)
	}
	glancectl(t, "", "disk", "map", "disk.vmdk").fails(exitFailed, "--ref disk-flat.vmdk=FILE")
}

func TestAChainHasAtMostSixteenImagesBelowTheFirst(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("0", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var refs []string
	for i := 1; i <= maxChain+1; i++ {
		below, format := strconv.Itoa(i-1), "qcow2"
		if i == 1 {
			format = "raw"
		}
		qemuImg(t, "create", "-q", "-f", "qcow2", "-F", format, "-b", below, strconv.Itoa(i))
		refs = append(refs, "--ref", below+"="+below)
	}
	top := strconv.Itoa(maxChain)
	glancectl(t, "", append([]string{"disk", "map", top}, refs[:len(refs)-2]...)...).ok()
	glancectl(t, "", append([]string{"disk", "map", strconv.Itoa(maxChain + 1)}, refs...)...).fails(exitFailed, "more than 16 images")
}

func TestSnapshotsAreOpenedByIdOrName(t *testing.T) {
	t.Chdir(t.TempDir())
	qemuImg(t, "create", "-q", "-f", "qcow2", "disk.qcow2", "1M")
	qemuIO(t, "qcow2", "disk.qcow2", "write -P 1 0 1M")
	qemuImg(t, "snapshot", "-c", "before", "disk.qcow2")
	qemuIO(t, "qcow2", "disk.qcow2", "write -P 2 0 1M")
	for args, want := range map[string]byte{"": 2, "--snapshot before": 1, "--snapshot 1": 1} {
		if got := converted(t, append([]string{"disk.qcow2"}, strings.Fields(args)...)...); !bytes.Equal(got, bytes.Repeat([]byte{want}, 1<<20)) {
			t.Errorf("%q: the disk begins with %d, want %d", args, got[0], want)
		}
	}
	for _, command := range []string{"info", "map", "check"} {
		glancectl(t, "", "disk", command, "disk.qcow2", "--snapshot", "after").fails(exitFailed, `no snapshot "after"`, "before (id 1)")
	}
	info := decode[map[string]any](t, glancectl(t, "", "disk", "info", "disk.qcow2", "-f", "json").ok())
	if b, _ := json.Marshal(info["snapshots"]); string(b) != `[{"id":"1","name":"before","virtual_size":1048576}]` {
		t.Errorf("snapshots: %s", b)
	}
}
