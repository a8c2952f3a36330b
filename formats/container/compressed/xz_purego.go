//go:build !cgo || purego

package compressed

import (
	"fmt"
	"io"

	"glanced/formats"
)

// unxz refuses: this build is without liblzma.
func unxz(io.Reader) (io.ReadCloser, error) {
	return nil, fmt.Errorf("%w: this build cannot decompress xz: decompress it first (xz -d), or build with cgo and liblzma", formats.ErrUnsupported)
}
