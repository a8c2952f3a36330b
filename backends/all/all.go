// Package all lists the kinds of store that are built in.
package all

import (
	"fmt"
	"strings"

	"glanced/backends"
	"glanced/backends/file"
)

// Config describes one store of any kind; which fields count depends on Type.
type Config struct {
	ID   string // how images and users name the store
	Type string // one of Types
	Path string // file: the folder
}

// Types are the kinds that Open knows.
func Types() []string { return []string{"file"} }

// Open opens a store of any kind.
func Open(cfg Config) (backends.Store, error) {
	switch cfg.Type {
	case "file":
		return file.Open(file.Config{ID: cfg.ID, Path: cfg.Path})
	}
	return nil, fmt.Errorf("store %q: there is no type %q; known are %s", cfg.ID, cfg.Type, strings.Join(Types(), ", "))
}
