package fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrMountpoint says that the tree cannot be mounted where it was asked for.
var ErrMountpoint = errors.New("the mountpoint cannot be used")

const (
	// typeName makes our mounts known in /proc/self/mountinfo as fuse.glanced.
	typeName = "glanced"

	// probeLimit is how long a mount found in our place may take to answer.
	probeLimit = 3 * time.Second

	// stackedLimit bounds how many stale mounts over each other are cleared.
	stackedLimit = 64
)

// mountInfo is one line of /proc/self/mountinfo, proc_pid_mountinfo(5).
type mountInfo struct {
	device string // major:minor
	path   string
	fstype string
}

// mountAt is what is mounted at a path, the topmost of several. It reads the
// kernel's table and does not touch the mount.
func mountAt(path string) (m mountInfo, ok bool, err error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return m, false, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		sep := -1
		for i := 6; i < len(fields); i++ {
			if fields[i] == "-" {
				sep = i
				break
			}
		}
		if sep < 0 || sep+1 >= len(fields) {
			continue
		}
		if p := unescapeOctal(fields[4]); p == path {
			m, ok = mountInfo{device: fields[2], path: p, fstype: fields[sep+1]}, true
		}
	}
	return m, ok, lines.Err()
}

// unescapeOctal reverses the \ooo that mountinfo has for blanks and backslashes.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// prepare makes a path ready to be mounted on and returns it absolute and free
// of symbolic links: a mount that a killed daemon left is taken away, a missing
// folder is made, a folder that holds something is refused.
func prepare(ctx context.Context, mountpoint string) (string, error) {
	if mountpoint == "" {
		return "", fmt.Errorf("%w: no path is given", ErrMountpoint)
	}
	path, err := filepath.Abs(mountpoint)
	if err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrMountpoint, mountpoint, err)
	}
	if path, err = resolve(path); err != nil {
		return "", fmt.Errorf("%w: %w", ErrMountpoint, err)
	}
	if err := clearStale(ctx, path); err != nil {
		return "", err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", fmt.Errorf("%w: it cannot be made: %w", ErrMountpoint, err)
	}
	return path, mustBeEmpty(path)
}

// resolve follows the links in a path without asking anything of a file system
// mounted at its end, which may be dead.
func resolve(path string) (string, error) {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", fmt.Errorf("%s cannot be made: %w", folder, err)
	}
	folder, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return "", err
	}
	path = filepath.Join(folder, filepath.Base(path))
	if _, mounted, err := mountAt(path); err != nil || mounted {
		return path, err
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&os.ModeSymlink == 0 {
		return path, nil
	}
	return filepath.EvalSymlinks(path)
}

// clearStale detaches what killed daemons left mounted at path.
func clearStale(ctx context.Context, path string) error {
	for range stackedLimit {
		m, mounted, err := mountAt(path)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMountpoint, err)
		}
		if !mounted || !strings.HasPrefix(m.fstype, "fuse") {
			return nil // a disk or a container's volume may be mounted on
		}
		err = probe(ctx, path)
		switch {
		case m.fstype != "fuse."+typeName:
			return fmt.Errorf("%w: a %s is mounted at %s; unmount it, or choose another mountpoint", ErrMountpoint, m.fstype, path)
		case err == nil:
			return fmt.Errorf("%w: another glanced serves %s; stop it, or choose another mountpoint", ErrMountpoint, path)
		case !errors.Is(err, syscall.ENOTCONN):
			return fmt.Errorf("%w: the glanced mounted at %s does not answer (%w); stop it, or unmount it with umount --lazy", ErrMountpoint, path, err)
		}
		if err := detach(path); err != nil {
			return fmt.Errorf("%w: the stale mount at %s cannot be taken away: %w", ErrMountpoint, path, err)
		}
	}
	return fmt.Errorf("%w: more than %d stale mounts lie over each other at %s; unmount them", ErrMountpoint, stackedLimit, path)
}

// probe asks a mounted file system a question that the kernel cannot answer from
// its caches: ENOTCONN when nobody serves it any more.
func probe(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		var st unix.Statfs_t
		answer <- unix.Statfs(path, &st)
	}()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// mustBeEmpty refuses a mountpoint whose content a mount would hide.
func mustBeEmpty(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMountpoint, err)
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", ErrMountpoint, err)
	}
	return fmt.Errorf("%w: %s is not empty (it holds %q); empty it, or choose another mountpoint", ErrMountpoint, path, names[0])
}
