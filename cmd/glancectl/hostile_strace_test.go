package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"glanced/formats/formattest/hostile"
)

// lure is in every name that the images of this test hold, and nowhere else.
const lure = "lure-d41d8"

// lures are names of things that are there: a file, a pipe that an open would
// wait on for ever, a socket, and a folder, named in every way that some reader
// of disk images follows.
func lures(t *testing.T, dir string) []string {
	t.Helper()
	at := func(kind string) string { return filepath.Join(dir, lure+"."+kind) }
	if err := os.WriteFile(at("raw"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(at("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(at("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", at("sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return []string{
		at("raw"), lure + ".raw", "./" + lure + ".raw", "../" + filepath.Base(dir) + "/" + lure + ".raw",
		at("fifo"), at("sock"), "file://" + at("raw"), "file:" + at("raw"), "nbd:unix:" + at("sock"), "nbd+unix:///x?socket=" + at("sock"),
		`json:{"driver":"raw","file":{"driver":"file","filename":"` + at("raw") + `"}}`, "fat:" + at("folder"), "host_device:" + at("raw"), "blkdebug::" + at("raw"),
	}
}

// TestNoNameInsideAnImageReachesTheKernel runs the program under strace on images
// that name what is there, in every place that a format has for a name. That an
// access fails is no excuse: the name may not be asked for at all.
func TestNoNameInsideAnImageReachesTheKernel(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		runTool(t, "strace")
	}
	program := builtProgram(t)
	dir, out := t.TempDir(), t.TempDir()
	var images []string
	for i, name := range lures(t, dir) {
		for j, img := range hostile.References(name) {
			if j%3 != i%3 && os.Getenv("GLANCED_HOSTILE_ALL") == "" {
				continue
			}
			path, err := img.Write(dir)
			if err != nil {
				t.Fatal(err)
			}
			images = append(images, path)
		}
	}
	// One tracer for all: the shell's own calls name no lure either.
	script := filepath.Join(out, "all.sh")
	text := "for f; do for c in info map check bench; do \"$P\" disk $c \"$f\"; done; \"$P\" disk convert \"$f\" out; \"$P\" disk convert \"$f\" out --to qcow2; done >/dev/null 2>errors\ntrue\n"
	if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(out, "trace")
	cmd := exec.Command("strace", append([]string{"-f", "--seccomp-bpf", "-qq", "-s", "4096", "-o", trace,
		"-e", "trace=%file,connect,bind,sendto,sendmsg", "-e", "signal=none", "sh", script}, images...)...)
	cmd.Dir = dir // where a relative name leads to something
	cmd.Env = append(os.Environ(), "P="+program)
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("strace: %v\n%s", err, said)
	}
	log, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	opened := 0
	for line := range strings.Lines(string(log)) {
		switch {
		case strings.Contains(line, "hostile-") && strings.Contains(line, "open"):
			opened++
		case strings.Contains(line, lure), network.MatchString(line):
			t.Errorf("asked of the kernel: %.300s", line)
		}
	}
	if want := 6 * len(images); opened < want || len(images) < 50 {
		t.Errorf("the trace has %d opens of %d images, %d expected: it does not see what the program does", opened, len(images), want)
	}
	if said, err := os.ReadFile(filepath.Join(dir, "errors")); err != nil || strings.Count(string(said), "glancectl: ") < 5*len(images) {
		t.Errorf("of %d images: %v, %.2000s", len(images), err, said)
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); err == nil {
		t.Error("one of them was converted")
	}
}

var network = regexp.MustCompile(`^\d+ +(connect|bind|sendto|sendmsg)\(`)
