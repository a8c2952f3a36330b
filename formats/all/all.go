// Package all lists the disk formats, and the containers for them, that are built in.
package all

import (
	"glanced/formats"
	"glanced/formats/container"
	"glanced/formats/container/compressed"
	"glanced/formats/container/ova"
	"glanced/formats/iso"
	"glanced/formats/parallels"
	"glanced/formats/qcow2"
	"glanced/formats/qed"
	"glanced/formats/raw"
	"glanced/formats/vdi"
	"glanced/formats/vhd"
	"glanced/formats/vhdx"
	"glanced/formats/vmdk"
)

// Drivers lists every format, raw and its other names last: raw is what is left.
func Drivers() []formats.Driver {
	return append([]formats.Driver{
		qcow2.Driver(),
		vmdk.Driver(),
		vhdx.Driver(),
		vdi.Driver(),
		vhd.Driver(),
		parallels.Driver(),
		iso.Driver(),
		qed.Driver(),
	}, raw.Drivers()...)
}

// Containers lists every kind of container that a disk is looked for in.
func Containers() []container.Container {
	return []container.Container{
		ova.Container(),
		compressed.Container(),
	}
}
