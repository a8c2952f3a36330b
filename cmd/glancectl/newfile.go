package main

import (
	"bytes"
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

// holeSize is the granularity in which zeros become holes, bytes: the block of
// the usual file systems.
const holeSize = 4096

// sparseWriter writes a stream into a new file and leaves holes where it has only zeros.
type sparseWriter struct {
	f    *os.File
	off  int64
	zero [holeSize]byte
}

// Write writes the runs of p that are not zeros, block by block of the file.
func (w *sparseWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n := w.run(p[done:], w.off+int64(done))
		part := p[done : done+n]
		if !w.isZero(part[:min(len(part), holeSize)]) {
			if _, err := w.f.WriteAt(part, w.off+int64(done)); err != nil {
				w.off += int64(done)
				return done, err
			}
		}
		done += n
	}
	w.off += int64(done)
	return done, nil
}

// run is the length of the first run of p, at offset off of the file, whose
// blocks are all zeros or all not.
func (w *sparseWriter) run(p []byte, off int64) int {
	first := true
	zeros := false
	for n := 0; n < len(p); {
		block := min(holeSize-int((off+int64(n))%holeSize), len(p)-n)
		z := w.isZero(p[n : n+block])
		if first {
			first, zeros = false, z
		} else if z != zeros {
			return n
		}
		n += block
	}
	return len(p)
}

func (w *sparseWriter) isZero(p []byte) bool { return bytes.Equal(p, w.zero[:len(p)]) }

// finish gives the file its length, should it end in a hole.
func (w *sparseWriter) finish() error { return w.f.Truncate(w.off) }
