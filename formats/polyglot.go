package formats

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// sign is what makes other programs take a file for something, by its head, whatever
// drivers there are. Alone it says nothing: a raw disk has one as a rule. In an image
// of a format it is a second meaning, and so a polyglot. The list and each rule are
// those of OpenStack's oslo.utils (imageutils/format_inspector.py), which Glance
// refuses by.
type sign struct {
	name string
	boot bool // what a format may leave its first sector to (Driver.Hybrid)
	in   func(head []byte) bool
}

var signs = []sign{
	{name: "mbr", boot: true, in: hasBootRecord},
	{name: "luks", in: func(head []byte) bool { return bytes.HasPrefix(head, []byte("LUKS\xba\xbe")) }},
	{name: "iso", in: hasVolumeDescriptor},
}

// hasBootRecord reports whether a partition table (MBR, or the one in front of a
// GPT) seems to be in the first sector: the boot signature is all that is asked for,
// and that it is no FAT boot sector of two tables on a fixed disk.
func hasBootRecord(head []byte) bool {
	const fatTables, fatMedia, fixedDisk = 0x10, 0x15, 0xf8
	return len(head) >= 512 && head[510] == 0x55 && head[511] == 0xaa && (head[fatTables] != 2 || head[fatMedia] != fixedDisk)
}

// hasVolumeDescriptor looks for ISO 9660 and UDF by their names alone.
func hasVolumeDescriptor(head []byte) bool {
	const at = 16*2048 + 1
	if len(head) < at+5 {
		return false
	}
	return slices.Contains([]string{"CD001", "NSR02", "NSR03"}, string(head[at:at+5]))
}

// second adds to names, the formats of an image that begins with head, the signs in
// it of something else. hybrid: one of them is so (Driver.Hybrid).
func second(names []string, hybrid bool, head []byte) []string {
	for _, s := range signs {
		if s.in(head) && !(s.boot && hybrid) && !slices.Contains(names, s.name) {
			names = append(names, s.name)
		}
	}
	return names
}

// one is the name in names, and "raw" where there is none.
func one(names []string) (string, error) {
	switch len(names) {
	case 0:
		return "raw", nil
	case 1:
		return names[0], nil
	}
	return "", fmt.Errorf("%w: the content is %s at once", ErrFormat, strings.Join(names, " and "))
}
