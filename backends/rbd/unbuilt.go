//go:build !ceph

package rbd

import (
	"fmt"

	"glanced/backends"
)

// Open checks the configuration, and is ErrNotBuilt.
func Open(cfg Config) (backends.Store, error) {
	if _, err := cfg.complete(); err != nil {
		return nil, fmt.Errorf("open an rbd store: %w (%w)", err, ErrNotBuilt)
	}
	return nil, fmt.Errorf("open an rbd store: %w", ErrNotBuilt)
}
