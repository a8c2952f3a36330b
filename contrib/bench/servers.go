package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// peer is one server with the disk open to clients.
type peer struct {
	name         string
	sock, export string
	pid          int
}

func (p peer) uri() string { return "nbd+unix:///" + p.export + "?socket=" + p.sock }

// cpuSeconds is the user and system time of the server so far; see proc(5), stat.
func (p peer) cpuSeconds() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, fmt.Errorf("CPU time of %s: %w", p.name, err)
	}
	// The command's name, in parentheses, may hold spaces; fields count from after it.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("CPU time of %s: %d fields in stat", p.name, len(fields))
	}
	var ticks float64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			return 0, fmt.Errorf("CPU time of %s: %w", p.name, err)
		}
		ticks += n
	}
	return ticks / 100, nil // USER_HZ is 100 on Linux
}

const qemuLabel = "qemu-nbd"

// qemuNBD serves one file read-only.
type qemuNBD struct {
	*server
	sock string
}

func (q *qemuNBD) start(ctx context.Context, dir string, f format, file string) error {
	q.sock = filepath.Join(dir, "qemu-"+f.name+".sock")
	q.server = newServer(ctx, "qemu-nbd", "-r", "-t", "-e", "16", "-k", q.sock, "-f", f.driver, "--aio=io_uring", "-x", "disk", file)
	if err := q.Start(); err != nil {
		return fmt.Errorf("start qemu-nbd: %w", err)
	}
	return waitFor(q.sock)
}

func (q *qemuNBD) peer() peer {
	return peer{name: qemuLabel, sock: q.sock, export: "disk", pid: q.pid()}
}

// nbdkit serves one raw file read-only.
type nbdkit struct {
	*server
	sock string
}

func (n *nbdkit) start(ctx context.Context, dir, file string) error {
	n.sock = filepath.Join(dir, "nbdkit.sock")
	n.server = newServer(ctx, "nbdkit", "--foreground", "--exit-with-parent", "--readonly", "--unix", n.sock, "file", file)
	if err := n.Start(); err != nil {
		return fmt.Errorf("start nbdkit: %w", err)
	}
	return waitFor(n.sock)
}

func (n *nbdkit) peer() peer { return peer{name: "nbdkit", sock: n.sock, pid: n.pid()} }

func (n *nbdkit) stop() error {
	n.server.stop()
	return os.Remove(n.sock)
}

// build is the programs of one build of ours.
type build struct{ label, bin string }

// builds are this one, and the one in against, if that is set.
func builds(against string) []build {
	all := []build{{"glanced", "bin"}}
	if against != "" {
		all = append(all, build{"the other build", against})
	}
	return all
}

// glanced is a daemon of its own with a given memory budget.
type glanced struct {
	build  build
	budget string
	what   string // what the budget means, for its label
	store  string // its store's configuration; "" = a local folder
	dir    string
	*server
}

func (g *glanced) start(ctx context.Context, dir string) error {
	g.dir = dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if g.store == "" {
		g.store = "[[stores]]\nid = \"local\"\ntype = \"file\"\npath = \"images\"\ndefault = true\n"
	}
	text := fmt.Sprintf(`data_dir = %q
[http]
listen = ""
[control]
socket = "control.sock"
[nbd]
listen = ["unix:nbd.sock"]
[memory]
budget = %q
[log]
level = "warn"
%s`, dir, g.budget, g.store)
	if err := os.WriteFile(g.config(), []byte(text), 0o600); err != nil {
		return err
	}
	return g.again(ctx)
}

func (g *glanced) config() string { return filepath.Join(g.dir, "glanced.toml") }

// again starts it once more on what is there, after stop.
func (g *glanced) again(ctx context.Context) error {
	g.server = newServer(ctx, filepath.Join(g.build.bin, "glanced"), "--config", g.config())
	if err := g.Start(); err != nil {
		return fmt.Errorf("start glanced: %w", err)
	}
	err := waitFor(filepath.Join(g.dir, "control.sock"))
	if err != nil {
		g.stop()
	}
	return err
}

func (g *glanced) upload(ctx context.Context, f format, file string) (peer, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(g.build.bin, "glancectl"), "--socket", filepath.Join(g.dir, "control.sock"), "image", "create",
		"--name", f.name, "--disk-format", ourName(f), "--container-format", "bare", "--file", file, "-f", "value", "-c", "id")
	cmd.Stderr = os.Stderr
	id, err := cmd.Output()
	if err != nil {
		return peer{}, fmt.Errorf("upload %s: %w", file, err)
	}
	// The stored copy is in the page cache, as the file is that the others serve.
	if strings.Contains(g.store, `"file"`) {
		if err := readFile(filepath.Join(g.dir, "images", strings.TrimSpace(string(id)))); err != nil {
			return peer{}, err
		}
	}
	return peer{name: g.build.label + g.what, sock: filepath.Join(g.dir, "nbd.sock"), export: strings.TrimSpace(string(id)), pid: g.pid()}, nil
}

// ctl runs glancectl on the daemon.
func (g *glanced) ctl(ctx context.Context, args ...string) error {
	return quietly(exec.CommandContext(ctx, filepath.Join(g.build.bin, "glancectl"), append([]string{"--socket", filepath.Join(g.dir, "control.sock")}, args...)...))
}

// stop stops the one that was started last.
func (g *glanced) stop() { g.server.stop() }

// readFile reads a file, so that the kernel has it. What the kernel has of it already is
// dropped before: that lies in pages as large as its writer's pieces were, and reads of
// small pages take longer.
func readFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil { // what is not on the disk is not dropped
		return fmt.Errorf("sync %s: %w", path, err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("have the kernel drop %s: %w", path, err)
	}
	_, err = io.Copy(struct{ io.Writer }{io.Discard}, f)
	return err
}

// waitFor waits until a socket is there.
func waitFor(path string) error {
	for range 200 {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s did not appear within 10 s", path)
}
