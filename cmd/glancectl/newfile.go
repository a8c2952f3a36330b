package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// newFile is a file in the making: a temporary name beside the final one, so that
// the final name only ever shows a whole, durable file.
type newFile struct {
	*os.File
	final string
	done  bool
}

// createFile begins a file that shall be called path. If path is a symbolic link,
// it is the file behind it that will be replaced.
func createFile(path string) (*newFile, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+shorten(filepath.Base(path))+".part-*")
	if err != nil {
		return nil, fmt.Errorf("make a file beside %s: %w", path, err)
	}
	return &newFile{File: f, final: path}, nil
}

// shorten keeps the temporary name below the 255 bytes that file systems allow.
func shorten(base string) string { return base[:min(len(base), 200)] }

// commit makes the file durable and gives it its name.
func (n *newFile) commit() error {
	if err := n.Chmod(permission(n.final)); err != nil {
		return fmt.Errorf("set the mode of %s: %w", n.final, err)
	}
	if err := n.Sync(); err != nil {
		return fmt.Errorf("write %s to disk: %w", n.final, err)
	}
	if err := n.File.Close(); err != nil {
		return fmt.Errorf("close %s: %w", n.final, err)
	}
	if err := os.Rename(n.Name(), n.final); err != nil {
		return fmt.Errorf("name the finished file: %w", err)
	}
	n.done = true
	dir, err := os.Open(filepath.Dir(n.final))
	if err != nil {
		return fmt.Errorf("write the folder of %s to disk: %w", n.final, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("write the folder of %s to disk: %w", n.final, err)
	}
	return nil
}

// discard drops the file unless it was committed; to be deferred.
func (n *newFile) discard() {
	if !n.done {
		n.File.Close()
		os.Remove(n.Name())
	}
}

// permission is the mode of the file to be replaced, else what the umask leaves
// of 0666, as for any new file.
func permission(path string) fs.FileMode {
	if info, err := os.Stat(path); err == nil {
		return info.Mode().Perm()
	}
	return 0o666 &^ umask()
}
