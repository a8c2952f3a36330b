package hostile

import (
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"unicode/utf16"

	"glanced/formats"
)

// Where vhdx puts things: offsets of Microsoft's [MS-VHDX], and four regions of 1 MiB.
const (
	mib = 1 << 20
	kib = 1 << 10

	xHeader1, xHeader2, xRegions1, xRegions2 = 64 * kib, 128 * kib, 192 * kib, 256 * kib
	xLog, xMetadata, xBAT, xBlock            = 1 * mib, 2 * mib, 3 * mib, 4 * mib
	xItems                                   = xMetadata + 64*kib
	xBlockSize, xFlags, xDiskSize, xSector   = xItems, xItems + 4, xItems + 8, xItems + 16
	xLocator                                 = xItems + 40

	xLogID = "11111111-2222-3333-4444-555555555555"
)

// vhdx is a disk of 4 MiB in blocks of 1 MiB, of which the first is there. change
// edits it before its checksums are set; with parent, it is a differencing disk.
func vhdx(parent []byte, change func(b []byte)) []byte {
	b := make([]byte, 5*mib)
	copy(b, "vhdxfile")
	for i, at := range []int{xHeader1, xHeader2} {
		copy(b[at:], "head")
		le.PutUint64(b[at+8:], uint64(7-i))
		copy(b[at+32:], guid("0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa"))
		le.PutUint16(b[at+66:], 1)
		le.PutUint32(b[at+68:], mib)
		le.PutUint64(b[at+72:], xLog)
	}
	for _, at := range []int{xRegions1, xRegions2} {
		copy(b[at:], "regi")
		le.PutUint32(b[at+8:], 2)
		for i, r := range []struct {
			id string
			at uint64
		}{{"2dc27766-f623-4200-9d64-115e9bfd4a08", xBAT}, {"8b7ca206-4790-4b9a-b8fe-575f050f886e", xMetadata}} {
			e := b[at+16+32*i:]
			copy(e, guid(r.id))
			le.PutUint64(e[16:], r.at)
			le.PutUint32(e[24:], mib)
			le.PutUint32(e[28:], 1)
		}
	}
	flags := uint32(0)
	if parent != nil {
		flags = 2
	}
	copy(b[xMetadata:], "metadata")
	at := xItems
	item := func(id string, flags uint32, content []byte) {
		n := int(le.Uint16(b[xMetadata+10:]))
		e := b[xMetadata+32*(n+1):]
		copy(e, guid(id))
		le.PutUint32(e[16:], uint32(at-xMetadata))
		le.PutUint32(e[20:], uint32(len(content)))
		le.PutUint32(e[24:], flags)
		at += copy(b[at:], content)
		le.PutUint16(b[xMetadata+10:], uint16(n+1))
	}
	item("caa16737-fa36-4d43-b3b6-33f0aa44e76b", 4, le.AppendUint32(le.AppendUint32(nil, mib), flags))
	item("2fa54224-cd1b-4876-b211-5dbed83bf4b8", 6, le.AppendUint64(nil, 4*mib))
	item("8141bf1d-a96f-4709-ba47-f233a8faab5f", 6, le.AppendUint32(nil, 512))
	item("cda348c7-445d-4471-9cc9-e9885251c556", 6, le.AppendUint32(nil, 4096))
	item("beca12ab-b2e6-4523-93ef-c309e000c746", 6, guid("12345678-9abc-def0-1234-56789abcdef0"))
	if parent != nil {
		item("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", 4, parent)
	}
	le.PutUint64(b[xBAT:], 6|xBlock)
	for i := range mib {
		b[xBlock+i] = byte(i>>12) | 1
	}
	if change != nil {
		change(b)
	}
	vhdxSum(b[xHeader1:][:4*kib])
	vhdxSum(b[xHeader2:][:4*kib])
	vhdxSum(b[xRegions1:][:64*kib])
	vhdxSum(b[xRegions2:][:64*kib])
	return b
}

func vhdxSum(b []byte) {
	clear(b[4:8])
	le.PutUint32(b[4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func guid(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil {
		panic(err) // the text is one of ours
	}
	slices.Reverse(b[:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = le.AppendUint16(b, u)
	}
	return b
}

// vhdxParent is a parent locator with the parent's identity, and name in all of
// the keys that hold one.
func vhdxParent(identity, name string) []byte {
	pairs := [][2]string{{"parent_linkage", "{" + identity + "}"}, {"relative_path", name}, {"volume_path", name}, {"absolute_win32_path", name}}
	b := append(guid("b04aefb7-d19e-4a81-b789-25b8e9445913"), 0, 0, byte(len(pairs)), 0)
	var text []byte
	for _, p := range pairs {
		key, value, at := utf16le(p[0]), utf16le(p[1]), 20+12*len(pairs)+len(text)
		b = le.AppendUint32(le.AppendUint32(b, uint32(at)), uint32(at+len(key)))
		b = le.AppendUint16(le.AppendUint16(b, uint16(len(key))), uint16(len(value)))
		text = append(append(text, key...), value...)
	}
	return append(b, text...)
}

func vhdxImages() []Image {
	m := &maker{format: "vhdx", container: "bare"}
	corrupt, unsupported := formats.ErrCorrupt, formats.ErrUnsupported
	edit := func(class Class, name string, want error, step Step, changes ...func(b []byte)) {
		m.add(class, name, want, step, vhdx(nil, func(b []byte) {
			for _, change := range changes {
				change(b)
			}
		}))
	}
	// twice is an edit of both headers or both region tables, which are 64 KiB apart.
	twice := func(at int, put func(at int) func([]byte)) func([]byte) {
		return func(b []byte) { put(at)(b); put(at + 64*kib)(b) }
	}
	twice32 := func(at int, v uint32) func([]byte) {
		return twice(at, func(at int) func([]byte) { return put32(at, v) })
	}
	twice64 := func(at int, v uint64) func([]byte) {
		return twice(at, func(at int) func([]byte) { return put64(at, v) })
	}
	m.add(Chain, "its own parent", formats.ErrReference, Open, vhdx(vhdxParent("0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa", "hostile.img"), nil))

	edit(Sizes, "4 billion regions", corrupt, Open, twice32(xRegions1+8, math.MaxUint32))
	edit(Sizes, "a region past the end", corrupt, Open, twice64(xRegions1+32, 1<<40))
	edit(Sizes, "a region whose end overflows", corrupt, Open, twice64(xRegions1+32, math.MaxUint64&^(mib-1)))
	edit(Sizes, "a BAT of 4 GiB", corrupt, Open, twice32(xRegions1+40, 0xfff00000))
	edit(Sizes, "65535 items", corrupt, Open, func(b []byte) { le.PutUint16(b[xMetadata+10:], math.MaxUint16) })
	edit(Sizes, "an item of 4 GiB", corrupt, Open, put32(xMetadata+32+20, math.MaxUint32))
	edit(Sizes, "an item far away", corrupt, Open, put32(xMetadata+32+16, math.MaxUint32-7))
	edit(Sizes, "a disk of 16 EiB", corrupt, Open, put64(xDiskSize, math.MaxUint64&^511))
	edit(Sizes, "more disk than the BAT maps", corrupt, Open, put64(xDiskSize, 64<<40))
	edit(Sizes, "a log past the end", corrupt, Open, twice64(xHeader1+72, 1<<40))
	edit(Sizes, "a log of 4 GiB", corrupt, Open, twice32(xHeader1+68, 0xfff00000))
	m.add(Sizes, "a locator of 65535 entries", corrupt, Open, vhdx(vhdxParent("0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa", "x"),
		func(b []byte) { le.PutUint16(b[xLocator+18:], math.MaxUint16) }))

	for _, n := range []uint32{0, 1, 512 * kib, 3 * mib, 512 * mib, math.MaxUint32} {
		edit(Clusters, fmt.Sprintf("blocks of %d bytes", n), corrupt, Open, put32(xBlockSize, n))
	}
	edit(Clusters, "sectors of no bytes", corrupt, Open, put32(xSector, 0))
	edit(Clusters, "sectors of 2 GiB", corrupt, Open, put32(xSector, 1<<31))

	edit(Entries, "version 2", unsupported, Open, func(b []byte) { b[xHeader1+66] = 2 })
	edit(Entries, "an unknown region that is required", unsupported, Open, func(b []byte) { b[xRegions1+16]++; b[xRegions2+16]++ })
	edit(Entries, "an unknown item that is required", unsupported, Open, func(b []byte) { b[xMetadata+32]++ })
	edit(Entries, "a block past the end", corrupt, Map, put64(xBAT, 6|1<<40))
	edit(Entries, "the farthest block", corrupt, Map, put64(xBAT, 6|math.MaxUint64&^(mib-1)))
	edit(Entries, "a block in the headers", corrupt, Map, put64(xBAT, 6))
	edit(Entries, "a block over the BAT", corrupt, Map, put64(xBAT, 6|xBAT))
	edit(Entries, "reserved bits of a block", corrupt, Map, put64(xBAT, 6|xBlock|1<<10))
	edit(Entries, "a reserved state", corrupt, Map, put64(xBAT, 5|xBlock))
	edit(Entries, "a block of a parent that there is not", corrupt, Map, put64(xBAT, 7|xBlock))
	b := vhdx(nil, nil)
	b[xHeader1+100]++
	b[xHeader2+100]++
	m.add(Entries, "wrong checksums of the headers", corrupt, Open, b)

	edit(Aliasing, "all blocks in one", nil, Open, func(b []byte) {
		for i := range 4 {
			le.PutUint64(b[xBAT+8*i:], 6|xBlock)
		}
	})
	edit(Aliasing, "a BAT that is the metadata", corrupt, Open, twice64(xRegions1+32, xMetadata))
	edit(Aliasing, "a log that is the BAT", corrupt, Open, twice64(xHeader1+72, xBAT))

	// A BAT of 1 MiB maps 128 GiB less the entries of the sector bitmaps.
	edit(Time, "127 GiB of one block", nil, Open, put64(xDiskSize, 127<<30), func(b []byte) {
		for i := range mib / 8 {
			if i%2 == 0 {
				le.PutUint64(b[xBAT+8*i:], 2)
			}
		}
	})
	return append(m.images, vhdxLogs()...)
}

var vhdxPlaces = []place{
	{"vhdx", "bare", "the parent, in all of its locator's paths", formats.ErrReference, func(name string) []byte {
		return vhdx(vhdxParent("83ed0ec3-24c8-49a6-a959-5e4bf1288bfb", name), nil)
	}},
}
