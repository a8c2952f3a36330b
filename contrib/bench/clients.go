package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// timed runs a command that moves n bytes: MiB a second, and CPU seconds a GiB, of the
// command itself.
func timed(cmd *exec.Cmd, n int64) (sample, error) {
	cmd.Stderr = os.Stderr
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return sample{}, fmt.Errorf("%s: %w", cmd.Args[0], err)
	}
	wall := time.Since(began).Seconds()
	cpu := (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	return sample{rate: float64(n) / (1 << 20) / wall, cpu: cpu / (float64(n) / (1 << 30))}, nil
}

// copyOnce copies a disk of n bytes from a server: MiB a second, and the server's CPU
// seconds a GiB.
func copyOnce(ctx context.Context, p peer, n int64) (sample, error) {
	before, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	s, err := timed(exec.CommandContext(ctx, "nbdcopy", p.uri(), "null:"), n)
	if err != nil {
		return sample{}, err
	}
	after, err := p.cpuSeconds()
	if err != nil {
		return sample{}, err
	}
	s.cpu = (after - before) / (float64(n) / (1 << 30))
	return s, nil
}

// throughNBDkit copies the disk of a qcow2 at a URL with qemu-nbd, which reads it from
// nbdkit's curl plugin. CPU is not looked at.
func throughNBDkit(ctx context.Context, dir, url string, n int64) (sample, error) {
	object, disk := filepath.Join(dir, "object.sock"), filepath.Join(dir, "disk.sock")
	defer os.Remove(object)
	defer os.Remove(disk)
	kit := newServer(ctx, "nbdkit", "--foreground", "--exit-with-parent", "--readonly", "--unix", object, "curl", "url="+url)
	if err := kit.Start(); err != nil {
		return sample{}, fmt.Errorf("start nbdkit: %w", err)
	}
	defer kit.stop()
	if err := waitFor(object); err != nil {
		return sample{}, err
	}
	q := newServer(ctx, "qemu-nbd", "-r", "-t", "-e", "16", "-k", disk, "-f", "qcow2", "-x", "disk", "nbd+unix:///?socket="+object)
	if err := q.Start(); err != nil {
		return sample{}, fmt.Errorf("start qemu-nbd: %w", err)
	}
	defer q.stop()
	if err := waitFor(disk); err != nil {
		return sample{}, err
	}
	return timed(exec.CommandContext(ctx, "nbdcopy", "nbd+unix:///disk?socket="+disk, "null:"), n)
}

// quietly runs a command and shows what it says only when it fails.
func quietly(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Args[0], err, out)
	}
	return nil
}

// residentMiB is what a process holds in memory.
func residentMiB(pid int) (int, error) { return statusMiB(pid, "VmRSS:") }

// statusMiB is one of the sizes of a process; see proc(5), status.
func statusMiB(pid int, name string) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kib >> 10, err
		}
	}
	return 0, fmt.Errorf("process %d does not say what it holds (%s)", pid, name)
}
