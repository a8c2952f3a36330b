package catalog

import (
	"glanced/backends"
	"glanced/formats"
)

// source makes a store's blob what formats reads from, with the abilities that
// the blob, or what it wraps, has.
func source(b backends.Blob) formats.Source {
	files, hasFiles := backends.As[backends.FileRanger](b)
	holes, hasHoles := backends.As[backends.Extenter](b)
	switch {
	case hasFiles && hasHoles:
		return struct {
			backends.Blob
			formats.FileRanger
			formats.Extenter
		}{b, files, holes}
	case hasFiles:
		return struct {
			backends.Blob
			formats.FileRanger
		}{b, files}
	case hasHoles:
		return struct {
			backends.Blob
			formats.Extenter
		}{b, holes}
	}
	return b
}
