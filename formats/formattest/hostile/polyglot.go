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
	for _, p := range Pairs() {
		want := formats.ErrFormat
		if p.Harmless {
			want = nil
		}
		add(p.Declared, "bare", p.Name, want, Open, p.Bytes)
	}
	add("qcow2", "bare", "a vdi image and a disc with a boot record as well", formats.ErrFormat, Open, fourfold())
	add("iso", "bare", "a disc with a boot record that is qcow2 and vdi as well", formats.ErrFormat, Open, fourfold())
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

// fourfold is all that a file can be at once in front of its end.
func fourfold() []byte {
	b := append(qcow2(), make([]byte, 40<<10)...)
	for _, m := range marks() {
		if m.at > 0 {
			copy(b[m.at:], m.text)
		}
	}
	b[32<<10], b[32<<10+6] = 1, 1
	return b
}

// fixedVHD is b as the guest's content of a fixed disk.
func fixedVHD(b []byte) []byte {
	b = append(bytes.Clone(b), make([]byte, -len(b)&(sector-1))...)
	return append(b, vhdSeal(vhdFooter(2, uint64(len(b))), 64)...)
}
