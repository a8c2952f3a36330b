package hostile

import (
	"bytes"
	"slices"

	"glanced/formats"
)

// polyglots are files that two programs take for two different disks, and files
// that are not what they are declared to be.
func polyglots() []Image {
	var all []Image
	as := func(class Class, format, container, name string, want error, step Step, b []byte) {
		m := &maker{format: format, container: container}
		m.add(class, name, want, step, b)
		all = append(all, m.images...)
	}
	add := func(format, container, name string, want error, step Step, b []byte) {
		as(Polyglot, format, container, name, want, step, b)
	}
	bases := map[string][]byte{
		"qcow2": qcow2(), "vmdk": vmdkPlain(), "vhdx": vhdx(nil, nil), "vdi": vdi(), "ploop": parallels(false), "qed": qed(),
	}
	for format, b := range bases {
		add(format, "bare", "a disc as well", formats.ErrFormat, Open, disc(b))
		add("iso", "bare", "a "+format+" image as well", formats.ErrFormat, Open, disc(b))
		add("vhd", "bare", "a fixed disk whose guest wrote a "+format+" image into it", formats.ErrFormat, Open, fixedVHD(b))
		add(format, "bare", "the footer of a fixed vhd behind it", formats.ErrFormat, Probe, fixedVHD(b))
	}
	add("vmdk", "bare", "a descriptor that is a disc as well", formats.ErrFormat, Open, disc([]byte(vmdkText("monolithicFlat", `RW 64 FLAT "disk.img" 0`, ""))))
	both := qcow2()
	copy(both[64:], "\x7f\x10\xda\xbe\x01\x00\x01\x00") // vdi's signature, in the place of the snapshots
	add("qcow2", "bare", "a vdi image as well", formats.ErrFormat, Open, both)
	add("vdi", "bare", "a qcow2 image as well", formats.ErrFormat, Open, both)
	other := map[string]string{"qcow2": "vmdk", "vmdk": "vhdx", "vhdx": "vdi", "vdi": "ploop", "ploop": "qed", "qed": "qcow2"}
	for format, b := range bases {
		as(Disguise, other[format], "bare", "it is "+format, formats.ErrFormat, Open, b)
		as(Disguise, "iso", "bare", "it is "+format, formats.ErrFormat, Open, b)
		as(Disguise, "vhd", "bare", "it is "+format, formats.ErrFormat, Open, b)
		as(Disguise, format, "ova", "it is bare", formats.ErrFormat, Open, b)
		as(Disguise, format, "compressed", "it is bare", formats.ErrFormat, Open, b)
	}
	as(Disguise, "vmdk", "bare", "it is an archive", formats.ErrFormat, Open, pack(member{name: "disk.vmdk", content: string(vmdkPlain())}))

	// An archive whose first member's name is the header of a qcow2 image.
	tar := pack(member{name: "disk.vmdk", content: string(vmdkPlain())})
	copy(tar, "QFI\xfb\x00\x00\x00\x03")
	reseal(tar, 0)
	add("vmdk", "ova", "a qcow2 image as well", formats.ErrCorrupt, Open, tar)
	add("qcow2", "bare", "an archive as well", formats.ErrCorrupt, Open, tar)
	slices.SortFunc(all, func(a, b Image) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return all
}

// disc is b with the volume descriptor of an iso in it.
func disc(b []byte) []byte {
	b = append(bytes.Clone(b), make([]byte, max(0, 40<<10-len(b)))...)
	copy(b[32<<10:], iso()[32<<10:][:7])
	return b
}

// fixedVHD is b as the guest's content of a fixed disk.
func fixedVHD(b []byte) []byte {
	b = append(bytes.Clone(b), make([]byte, -len(b)&(sector-1))...)
	return append(b, vhdSeal(vhdFooter(2, uint64(len(b))), 64)...)
}
