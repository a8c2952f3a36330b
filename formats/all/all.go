// Package all lists the disk formats that are built in.
package all

import (
	"glanced/formats"
	"glanced/formats/qcow2"
	"glanced/formats/raw"
	"glanced/formats/vdi"
	"glanced/formats/vhdx"
	"glanced/formats/vmdk"
)

// Drivers lists every format, raw last: it is what is left.
func Drivers() []formats.Driver {
	return []formats.Driver{
		qcow2.Driver(),
		vhdx.Driver(),
		vmdk.Driver(),
		vdi.Driver(),
		raw.Driver(),
	}
}
