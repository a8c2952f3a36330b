//go:build !cgo || purego

package compressed_test

import (
	"errors"
	"strings"
	"testing"

	"glanced/formats"
	"glanced/formats/container"
)

func TestABuildWithoutLiblzmaRefusesXZByName(t *testing.T) {
	coded := compress(t, disk(100000), "xz", "-c")
	if _, err := openBytes(t, coded, container.Options{}); !errors.Is(err, formats.ErrUnsupported) || !strings.Contains(err.Error(), "xz -d") {
		t.Errorf("got %v", err)
	}
}
