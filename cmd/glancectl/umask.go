package main

import (
	"io/fs"
	"syscall"
)

// umask is the process's umask, which can only be read by setting it. Files that
// are made meanwhile by others of our goroutines only get stricter modes.
func umask() fs.FileMode {
	m := syscall.Umask(0o077)
	syscall.Umask(m)
	return fs.FileMode(m)
}
