package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/all"
)

// diskVariants are, for each format that we read, the ways in which qemu-img is
// asked to write it.
func diskVariants() map[string][][]string {
	return map[string][][]string{
		"raw": {{}},
		"qcow2": {
			{}, {"-o", "compat=0.10"}, {"-c"}, {"-c", "-o", "compression_type=zstd"},
			{"-o", "cluster_size=4k"}, {"-o", "extended_l2=on,cluster_size=128k"},
		},
		"vmdk":  {{"-o", "subformat=monolithicSparse"}, {"-o", "subformat=streamOptimized"}},
		"vhd":   {{"-o", "force_size=on"}, {"-o", "force_size=on,subformat=fixed"}},
		"vhdx":  {{}, {"-o", "subformat=fixed"}},
		"vdi":   {{}, {"-o", "static=on"}},
		"ploop": {{}, {"-o", "cluster_size=64k"}},
	}
}

// untried are formats without variants of their own: other words for raw, discs,
// and what is recognised to be refused.
var untried = []string{"ami", "ari", "aki", "iso", "qed"}

// qemuName is qemu's word for one of our formats.
func qemuName(format string) string {
	switch format {
	case "vhd":
		return "vpc"
	case "ploop":
		return "parallels"
	}
	return format
}

// qemuImg runs qemu-img and returns its output.
func qemuImg(t *testing.T, args ...string) string {
	t.Helper()
	return runTool(t, "qemu-img", args...)
}

// packages are the Debian packages of the tools that tests run.
var packages = map[string]string{"qemu-img": "qemu-utils", "qemu-io": "qemu-utils", "strace": "strace", "mkfifo": "coreutils"}

// runTool runs a program and returns its output. Where it is not installed the
// test is skipped, or fails where tests may not be skipped.
func runTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	testbed.Need(t, name, packages[name])
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// guestDisk is a raw disk of an odd number of sectors, with data here and there.
func guestDisk(t *testing.T) string {
	t.Helper()
	const size = 24<<20 + 512
	path := filepath.Join(t.TempDir(), "guest.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := rand.NewChaCha8([32]byte{7})
	noise := make([]byte, 300_000)
	r.Read(noise)
	text := bytes.Repeat([]byte("compressible "), 50_000)
	for off, p := range map[int64][]byte{0: text, 5<<20 + 4096: noise, 16 << 20: text, size - 1000: noise[:1000]} {
		if _, err := f.WriteAt(p, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// variants is where eachVariant keeps its images, of all tests; TestMain removes it.
var variants struct {
	once  sync.Once
	dir   string
	guest string
}

// eachVariant calls check with every image of the same guest disk that our drivers
// should read. The images are made once, and are not to be changed.
func eachVariant(t *testing.T, check func(t *testing.T, format, image, guest string)) {
	variants.once.Do(func() {
		var err error
		if variants.dir, err = os.MkdirTemp("", "glancectl-variants-"); err != nil {
			t.Fatal(err)
		}
		variants.guest = filepath.Join(variants.dir, "guest.raw")
		if err := os.Rename(guestDisk(t), variants.guest); err != nil {
			t.Fatal(err)
		}
	})
	known := diskVariants()
	for _, d := range all.Drivers() {
		if len(known[d.Name]) == 0 && !slices.Contains(untried, d.Name) {
			t.Errorf("the format %s is built in, and not tested here", d.Name)
		}
		for i, options := range known[d.Name] {
			t.Run(d.Name+" "+strings.Join(options, " "), func(t *testing.T) {
				image := filepath.Join(variants.dir, fmt.Sprintf("disk-%d.%s", i, d.Name))
				if _, err := os.Stat(image); err != nil {
					args := append([]string{"convert", "-f", "raw", "-O", qemuName(d.Name)}, options...)
					qemuImg(t, append(args, variants.guest, image)...)
				}
				check(t, d.Name, image, variants.guest)
			})
		}
	}
}

func TestConvertWritesWhatQemuReadsAndKeepsHoles(t *testing.T) {
	eachVariant(t, func(t *testing.T, format, image, guest string) {
		out := filepath.Join(t.TempDir(), "out.raw")
		glancectl(t, "", "disk", "convert", image, out).ok()
		qemuImg(t, "compare", "-f", "raw", "-F", "raw", out, guest)
		info, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		// compare lets a difference in length pass if it is zeros.
		if want, err := os.Stat(guest); err != nil || info.Size() != want.Size() {
			t.Errorf("%d bytes long, want %d", info.Size(), want.Size())
		}
		if blocks := info.Sys().(*syscall.Stat_t).Blocks * 512; blocks > 8<<20 {
			t.Errorf("%d bytes are allocated for some 2 MiB of data", blocks)
		}
		onlyFile(t, out, true)
	})
}

type mapRun struct {
	Start, Length, Offset, Stored int64
	Kind                          string
	Zero, Data, Compressed        bool
}

func TestMapCoversTheDiskAndCallsOnlyZerosZero(t *testing.T) {
	eachVariant(t, func(t *testing.T, format, image, guest string) {
		content, err := os.ReadFile(guest)
		if err != nil {
			t.Fatal(err)
		}
		runs := decode[[]mapRun](t, glancectl(t, "", "disk", "map", "-f", "json", image).ok())
		var at, data int64
		for _, r := range runs {
			if r.Start != at || r.Length <= 0 {
				t.Fatalf("after %d comes a run %+v", at, r)
			}
			at += r.Length
			if r.Data == r.Zero {
				t.Errorf("the run %+v is data and zero, or neither", r)
			}
			if r.Zero && !bytes.Equal(content[r.Start:at], make([]byte, r.Length)) {
				t.Errorf("the run %+v is not zeros", r)
			}
			if r.Data {
				data += r.Length
			}
			if format == "raw" && r.Data && r.Offset != r.Start {
				t.Errorf("the raw run %+v lies elsewhere", r)
			}
		}
		if at != int64(len(content)) {
			t.Errorf("the map ends at %d of %d", at, len(content))
		}
		info := decode[map[string]any](t, glancectl(t, "", "disk", "info", "-f", "json", image).ok())
		if info["allocated_size"] != float64(data) || data == 0 || data > int64(len(content)) {
			t.Errorf("info says %v bytes are allocated, the map %d", info["allocated_size"], data)
		}
		if lines := strings.Count(glancectl(t, "", "disk", "map", image).ok(), "\n"); lines != len(runs)+4 {
			t.Errorf("the table has %d lines for %d runs", lines, len(runs))
		}
	})
}

func TestInfoAgreesWithQemu(t *testing.T) {
	eachVariant(t, func(t *testing.T, format, image, guest string) {
		type qemu struct {
			Format      string
			VirtualSize int64 `json:"virtual-size"`
			ClusterSize int64 `json:"cluster-size"`
		}
		theirs := decode[qemu](t, qemuImg(t, "info", "-f", qemuName(format), "--output=json", image))
		ours := decode[map[string]any](t, glancectl(t, "", "disk", "info", image, "-f", "json").ok())
		if ours["format"] != format || qemuName(format) != theirs.Format || ours["virtual_size"] != float64(theirs.VirtualSize) {
			t.Errorf("qemu says %+v, we %v", theirs, ours)
		}
		if format == "qcow2" && ours["cluster_size"] != float64(theirs.ClusterSize) {
			t.Errorf("qemu says clusters of %d, we %v", theirs.ClusterSize, ours["cluster_size"])
		}
		if ours["safe"] != true || ours["refused"] != nil {
			t.Errorf("called unsafe: %v", ours["refused"])
		}
		// Declared raw, any image is what it is, byte for byte.
		stat, err := os.Stat(image)
		if err != nil {
			t.Fatal(err)
		}
		raw := decode[map[string]any](t, glancectl(t, "", "disk", "info", image, "--format", "raw", "-f", "json").ok())
		if raw["format"] != "raw" || raw["virtual_size"] != float64(stat.Size()) {
			t.Errorf("with --format raw: %v", raw)
		}
		out := filepath.Join(t.TempDir(), "copy")
		glancectl(t, "", "disk", "convert", "--format", "raw", image, out).ok()
		a, _ := os.ReadFile(image)
		if b, _ := os.ReadFile(out); !bytes.Equal(a, b) {
			t.Error("convert --format raw changed the bytes")
		}
	})
}

func TestAnImageThatRefersToAnotherIsDescribedAndNeverFollowed(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret.raw")
	if err := os.WriteFile(secret, bytes.Repeat([]byte("secret! "), 1<<13), 0o600); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(dir, "child.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, image)
	info := decode[struct {
		Safe       bool
		Refused    string
		Allocated  *int64 `json:"allocated_size"`
		References []formats.Ref
	}](t, glancectl(t, "", "disk", "info", image, "-f", "json").ok())
	if info.Safe || info.Refused == "" || info.Allocated != nil || len(info.References) != 1 || info.References[0].Name != secret {
		t.Errorf("described as %+v", info)
	}
	if table := glancectl(t, "", "disk", "info", image).ok(); !strings.Contains(table, secret) || !strings.Contains(table, "| no ") {
		t.Errorf("the table:\n%s", table)
	}
	out := filepath.Join(t.TempDir(), "out")
	glancectl(t, "", "disk", "convert", image, out).fails(exitFailed, "refers to another file", "never followed")
	glancectl(t, "", "disk", "map", image).fails(exitFailed, "refers to another file")
	onlyFile(t, out, false)
}

func TestARefusedImageIsPrintedWithWhy(t *testing.T) {
	why := fmt.Errorf("%w: backing file %q", formats.ErrReference, "/etc/\x1b[2Jshadow")
	file, _, err := openSource(writeFile(t, "f", []byte("123456789")))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := &disk{path: "f", file: file, refs: &references{}}
	r := infoRecord(d, formats.Info{Format: "qcow2", Refs: []formats.Ref{{Kind: formats.RefBacking, Name: "/etc/shadow", Format: "raw"}}}, nil, why)
	if got := decode[map[string]any](t, string(object(r))); got["safe"] != false || got["refused"] != why.Error() || got["allocated_size"] != nil {
		t.Errorf("JSON: %v", got)
	}
	if f, _ := r.find("references"); cell(f) != `backing file "/etc/shadow" (raw)` {
		t.Errorf("references: %q", cell(f))
	}
	if f, _ := r.find("safe"); cell(f) != "no" {
		t.Errorf("safe: %q", cell(f))
	}
}

func TestConvertReplacesOnlyWithForce(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	for path, text := range map[string]string{in: "new", out: "old"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	glancectl(t, "", "disk", "convert", in, out).fails(exitFailed, "is there already", "--force")
	if b, _ := os.ReadFile(out); string(b) != "old" {
		t.Errorf("out is %q", b)
	}
	glancectl(t, "", "disk", "convert", in, out, "--force").ok()
	if b, _ := os.ReadFile(out); string(b) != "new" {
		t.Errorf("out is %q", b)
	}
	glancectl(t, "", "disk", "convert", in, in, "--force").fails(exitFailed, "same file")
	glancectl(t, "", "disk", "convert", in, dir, "--force").fails(exitFailed, "no regular file")
	glancectl(t, "", "disk", "convert", in, "/dev/null", "--force").fails(exitFailed, "no regular file")
	glancectl(t, "", "disk", "convert", filepath.Join(dir, "none"), out, "--force").fails(exitFailed, "none: no such file")
	glancectl(t, "", "disk", "info", dir).fails(exitFailed, "is a folder")
	glancectl(t, "", "disk", "info", "/dev/zero").fails(exitFailed, "no regular file")
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestAnInterruptedConversionLeavesNothing(t *testing.T) {
	in := guestDisk(t)
	out := filepath.Join(t.TempDir(), "out")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs bytes.Buffer
	code := run(ctx, []string{"glancectl", "disk", "convert", in, out}, streams{in: strings.NewReader(""), out: &errs, err: &errs})
	if code != exitFailed || errs.String() != "glancectl: interrupted\n" {
		t.Errorf("exit code %d, said %q", code, errs.String())
	}
	onlyFile(t, out, false)
}

func TestAnEmptyFileIsAnEmptyRawDisk(t *testing.T) {
	empty := writeFile(t, "empty", nil)
	if out := glancectl(t, "", "disk", "map", empty, "-f", "json").ok(); out != "[]\n" {
		t.Errorf("its map is %q", out)
	}
	glancectl(t, "", "disk", "info", empty).ok()
	out := filepath.Join(t.TempDir(), "out")
	glancectl(t, "", "disk", "convert", empty, out).ok()
	if info, err := os.Stat(out); err != nil || info.Size() != 0 {
		t.Errorf("converted to %v, %v", info, err)
	}
}
