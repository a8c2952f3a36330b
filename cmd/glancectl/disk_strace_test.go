package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// traced runs the program under strace, and is every path that it named to the
// kernel but for those of its own start: libraries, and what the Go runtime asks.
func traced(t *testing.T, args ...string) (paths []string) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		runTool(t, "strace")
	}
	log := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command("strace", append([]string{"-f", "-s", "4096", "-e", "trace=%file,connect", "-o", log, os.Args[0]}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		if _, failed := err.(*exec.ExitError); !failed || strings.Contains(string(out), "PTRACE") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " connect(") {
			t.Errorf("it connects to something: %s", line)
		}
		for _, m := range quoted.FindAllStringSubmatch(line, -1) {
			calls++
			if !ownStart.MatchString(m[1]) && m[1] != os.Args[0] && !strings.Contains(line, "execve(") && m[1] != "" {
				paths = append(paths, m[1])
			}
		}
	}
	if calls < 3 {
		t.Fatalf("strace saw nothing:\n%s", text)
	}
	return paths
}

var (
	quoted   = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
	ownStart = regexp.MustCompile(`^/(proc|sys|lib|lib64|usr/lib|usr/share/zoneinfo)(/|$)|^/etc/(ld\.so\.|localtime)|^/dev/(null|urandom|tty)$`)
)

// TestNoFileIsTouchedThatTheUserDidNotName: the images name files that are there,
// a secret and a pipe on which an open would wait for ever.
func TestNoFileIsTouchedThatTheUserDidNotName(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("secret.raw", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	runTool(t, "mkfifo", "pipe")
	secret := filepath.Join(dir, "secret.raw")
	images := []string{"raw.img"}
	if err := os.WriteFile("raw.img", []byte("QFI is not its beginning"), 0o600); err != nil {
		t.Fatal(err)
	}
	qcow2 := func(name, backing, format string) {
		qemuImg(t, "create", "-q", "-u", "-f", "qcow2", "-b", backing, "-F", format, name, "1M")
		images = append(images, name)
	}
	qcow2("absolute.qcow2", secret, "raw")
	qcow2("relative.qcow2", "secret.raw", "raw")
	qcow2("pipe.qcow2", filepath.Join(dir, "pipe"), "raw")
	qcow2("url.qcow2", "file://"+secret, "raw")
	qcow2("json.qcow2", `json:{"driver":"raw","file":{"driver":"file","filename":"`+secret+`"}}`, "raw")
	qcow2("nbd.qcow2", "nbd:unix:"+secret, "raw")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "data_file=secret.raw,data_file_raw=on", "data.qcow2", "1M")
	qemuImg(t, "create", "-q", "-f", "vmdk", "parent.vmdk", "1M")
	qemuImg(t, "create", "-q", "-f", "vmdk", "-F", "vmdk", "-b", filepath.Join(dir, "parent.vmdk"), "delta.vmdk")
	qemuImg(t, "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "flat.vmdk", "1M")
	qemuImg(t, "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "split.vmdk", "1M")
	descriptor := "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT %q 0\n"
	if err := os.WriteFile("path.vmdk", fmt.Appendf(nil, descriptor, secret), 0o600); err != nil {
		t.Fatal(err)
	}
	stream := streamOf(t, secret)
	appliance, err := os.ReadFile(applianceOf(t, false, stream))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(stream)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"inside.ova": appliance,
		"path.ova":   bytes.Replace(appliance, []byte(`href="disk1.vmdk"`), []byte(`href="../../pipe"`), 1),
		"disk.gz":    zipped(t, data),
	} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		images = append(images, name)
	}
	images = append(images, "data.qcow2", "delta.vmdk", "flat.vmdk", "split.vmdk", "path.vmdk")
	for _, image := range images {
		t.Run(image, func(t *testing.T) {
			for _, command := range []string{"info", "map", "check", "bench"} {
				for _, path := range traced(t, "disk", command, image) {
					// What is decompressed is put into the folder of temporary files.
					if path != image && !(image == "disk.gz" && strings.HasPrefix(path, os.TempDir()) && !strings.HasPrefix(path, dir)) {
						t.Errorf("disk %s names %q to the kernel", command, path)
					}
				}
			}
		})
	}
	t.Run("convert, and the files of --ref", func(t *testing.T) {
		if err := os.WriteFile("given", make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		named := regexp.MustCompile(`^(relative\.qcow2|given|out|\./?|` + regexp.QuoteMeta(dir) + `|(\./)?\.out\.part-[0-9]+)$`)
		read := false
		for _, path := range traced(t, "disk", "convert", "relative.qcow2", "out", "--ref", "secret.raw=given") {
			read = read || path == "given"
			if !named.MatchString(path) {
				t.Errorf("names %q to the kernel", path)
			}
		}
		if !read {
			t.Error("the file of --ref was not opened: the trace shows nothing")
		}
		if info, err := os.Stat("out"); err != nil || info.Size() != 1<<20 {
			t.Errorf("converted to %v, %v", info, err)
		}
	})
}
