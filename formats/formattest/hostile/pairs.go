package hostile

import (
	"bytes"
	"fmt"
)

// Pair is an image of one format that bears the sign of another. But for that sign it
// is a good image.
type Pair struct {
	Declared string // a disk_format word
	Also     string // what else it is like, as formats.Detect calls it
	Name     string // unique
	Bytes    []byte
	// At and Len: where the sign lies. With any of its bytes changed, there is none.
	At, Len int
	// Harmless: the two make no polyglot: a boot record in front of a disc, and what a
	// guest has written to the beginning of its fixed disk.
	Harmless bool
}

// mark is what a format is recognised by, for the first or for all of its kinds.
type mark struct {
	format, kind string
	at           int // -1: behind the end
	text         string
	base         func() []byte // a good image that has the mark; nil: there is no such format
}

// marks are of all formats that are recognised, and what no driver is of.
func marks() []mark {
	return []mark{
		{"qcow2", "", 0, "QFI\xfb", qcow2},
		{"vmdk", "", 0, "KDMV", vmdkPlain},
		{"vmdk", "descriptor", 0, "# Disk DescriptorFile", func() []byte { return []byte(vmdkText("monolithicFlat", `RW 64 FLAT "disk.img" 0`, "")) }},
		{"vhd", "dynamic", 0, "conectix", func() []byte { return vhd(nil, nil, nil) }},
		{"vhdx", "", 0, "vhdxfile", func() []byte { return vhdx(nil, nil) }},
		{"ploop", "", 0, "WithoutFreeSpace", func() []byte { return parallels(false) }},
		{"ploop", "version 2", 0, "WithouFreSpacExt", func() []byte { return parallels(true) }},
		{"qed", "", 0, "QED\x00", qed},
		{"luks", "", 0, "LUKS\xba\xbe", nil},
		{"vdi", "", 64, "\x7f\x10\xda\xbe", vdi},
		{"mbr", "", 510, "\x55\xaa", nil},
		{"iso", "", 32<<10 + 1, "CD001", iso},
		{"vhd", "fixed", -1, "conectix", func() []byte { return fixedVHD(bytes.Repeat([]byte("guest data. "), 4<<10)) }},
	}
}

// Pairs are an image for every ordered pair of formats whose marks lie at different
// places of a file.
func Pairs() []Pair {
	var all []Pair
	for _, a := range marks() {
		for _, b := range marks() {
			if a.base == nil || a.format == b.format || a.at == b.at {
				continue
			}
			p := Pair{Declared: a.format, Also: b.format, Name: fmt.Sprintf("%s as well", label(b)), Len: len(b.text)}
			if a.kind != "" {
				p.Name = a.kind + ", " + p.Name
			}
			image := a.base()
			if b.at < 0 {
				p.Bytes = fixedVHD(image)
				p.At = len(p.Bytes) - sector
			} else {
				p.Bytes, p.At = stamped(a, b, image), b.at
			}
			p.Harmless = b.format == "mbr" && a.format == "iso" || a.kind == "fixed" && (b.format == "mbr" || b.format == "luks")
			all = append(all, p)
		}
	}
	return all
}

func label(m mark) string {
	if m.kind != "" {
		return m.format + ", " + m.kind + ","
	}
	return m.format
}

// stamped is an image of a with the mark of b in it. A vhd keeps its footer at the end.
func stamped(a, b mark, image []byte) []byte {
	foot := 0
	if a.format == "vhd" {
		foot = sector
	}
	body, footer := image[:len(image)-foot], image[len(image)-foot:]
	image = append(bytes.Clone(body), make([]byte, max(0, 40<<10-len(body)))...)
	switch b.format {
	case "mbr": // one partition, of Linux
		copy(image[446:], "\x80\x01\x01\x00\x83\xfe\xff\xff\x00\x08\x00\x00\x00\x08\x00\x00")
	case "iso":
		copy(image[b.at-1:], "\x01CD001\x01")
	}
	copy(image[b.at:], b.text)
	if a.kind == "fixed" { // what was added is its guest's
		return fixedVHD(image)
	}
	return append(image, footer...)
}
