package hostile

import (
	"fmt"
	"math"
	"unicode/utf16"

	"glanced/formats"
)

// Fields of the vhd footer and dynamic disk header (Microsoft's Virtual Hard Disk
// Image Format Specification), and where vhd puts things.
const (
	hDataOff, hCurrentSize, hKind      = 16, 48, 60
	hTable, hEntries, hBlock, hParent  = 16, 28, 32, 40
	hParentName, hLocators             = 64, 576
	vhdHeader, vhdBAT, vhdBlock        = 512, 1536, 2048
	vhdBlockBytes, vhdBlocks, vhdTotal = 16 << 10, 4, 512 + 16<<10
)

// vhd is a dynamic disk of 64 KiB in blocks of 16 KiB, of which the first is there.
// footer and header change both footers and the header before they are sealed.
func vhd(footer, header, image func(b []byte)) []byte {
	f := vhdFooter(3, vhdBlocks*vhdBlockBytes)
	be.PutUint64(f[hDataOff:], vhdHeader)
	if footer != nil {
		footer(f)
	}
	vhdSeal(f, 64)
	b := make([]byte, vhdBlock+vhdTotal)
	copy(b, f)
	h := b[vhdHeader:][:1024]
	copy(h, "cxsparse")
	be.PutUint64(h[8:], math.MaxUint64)
	be.PutUint64(h[hTable:], vhdBAT)
	be.PutUint32(h[24:], 0x10000)
	be.PutUint32(h[hEntries:], vhdBlocks)
	be.PutUint32(h[hBlock:], vhdBlockBytes)
	if header != nil {
		header(h)
	}
	vhdSeal(h, 36)
	for i := range 512 / 4 {
		be.PutUint32(b[vhdBAT+4*i:], math.MaxUint32)
	}
	be.PutUint32(b[vhdBAT:], vhdBlock/sector)
	for i := range vhdTotal {
		b[vhdBlock+i] = 0xff // its bitmap, and its data
	}
	if image != nil {
		image(b)
	}
	return append(b, f...)
}

func vhdFooter(kind uint32, size uint64) []byte {
	f := make([]byte, sector)
	copy(f, "conectix")
	be.PutUint32(f[8:], 2)
	be.PutUint32(f[12:], 0x10000)
	be.PutUint64(f[hDataOff:], math.MaxUint64)
	copy(f[28:], "win \x00\x0a\x00\x00Wi2k")
	be.PutUint64(f[40:], size)
	be.PutUint64(f[hCurrentSize:], size)
	be.PutUint32(f[hKind:], kind)
	copy(f[68:], "an id of 16 byte")
	return f
}

func vhdSeal(b []byte, at int) []byte {
	be.PutUint32(b[at:], 0)
	sum := uint32(0)
	for _, c := range b {
		sum += uint32(c)
	}
	be.PutUint32(b[at:], ^sum)
	return b
}

func vhdImages() []Image {
	m := &maker{format: "vhd", container: "bare"}
	corrupt, limit, unsupported := formats.ErrCorrupt, formats.ErrLimit, formats.ErrUnsupported
	b32 := func(at int, v uint32) func([]byte) { return func(b []byte) { be.PutUint32(b[at:], v) } }
	b64 := func(at int, v uint64) func([]byte) { return func(b []byte) { be.PutUint64(b[at:], v) } }
	footer := func(class Class, name string, want error, change func([]byte)) {
		m.add(class, name, want, Open, vhd(change, nil, nil))
	}
	header := func(class Class, name string, want error, change func([]byte)) {
		m.add(class, name, want, Open, vhd(nil, change, nil))
	}
	image := func(class Class, name string, want error, step Step, change func([]byte)) {
		m.add(class, name, want, step, vhd(nil, nil, change))
	}

	m.add(Chain, "its own parent", corrupt, Open, vhd(b32(hKind, 4), func(h []byte) { copy(h[hParent:], "an id of 16 byte") }, nil))

	footer(Sizes, "a disk of 8 EiB", limit, b64(hCurrentSize, math.MaxInt64))
	footer(Sizes, "the largest disk", limit, b64(hCurrentSize, math.MaxUint64))
	footer(Sizes, "more disk than blocks", corrupt, b64(hCurrentSize, 1<<40))
	footer(Sizes, "a header past the end", corrupt, b64(hDataOff, 1<<40))
	footer(Sizes, "a header whose place overflows", corrupt, b64(hDataOff, math.MaxInt64))
	header(Sizes, "4 billion entries", corrupt, b32(hEntries, math.MaxUint32))
	header(Sizes, "a BAT past the end", corrupt, b64(hTable, 1<<40))
	header(Sizes, "a BAT whose end overflows", corrupt, b64(hTable, math.MaxUint64-3))
	header(Sizes, "a BAT whose place is negative", corrupt, b64(hTable, 1<<63))
	m.add(Sizes, "a fixed disk longer than its file", corrupt, Open, append(make([]byte, 4096), vhdSeal(vhdFooter(2, 1<<40), 64)...))

	for _, n := range []uint32{0, 1, 511, 24 << 10, math.MaxUint32} {
		header(Clusters, fmt.Sprintf("blocks of %d bytes", n), corrupt, b32(hBlock, n))
	}
	header(Clusters, "blocks of 2 GiB", limit, b32(hBlock, 1<<31))
	header(Clusters, "blocks of a sector", limit, b32(hBlock, sector))

	footer(Entries, "version 2", unsupported, b32(12, 0x20000))
	footer(Entries, "an unknown feature", unsupported, b32(8, 0x80000002))
	footer(Entries, "an unknown type", unsupported, b32(hKind, 77))
	header(Entries, "a header of version 2", unsupported, b32(24, 0x20000))
	image(Entries, "a block past the end", corrupt, Map, b32(vhdBAT, 1<<31))
	image(Entries, "a block cut off by the footer", corrupt, Map, b32(vhdBAT, vhdBlock/sector+1))
	image(Entries, "a block over the BAT", corrupt, Map, b32(vhdBAT, vhdBAT/sector))
	image(Entries, "a block in the footer's copy", corrupt, Map, b32(vhdBAT, 0))
	image(Entries, "a wrong checksum", corrupt, Open, func(b []byte) { b[64]++ })

	image(Aliasing, "a block used twice", corrupt, Map, b32(vhdBAT+4, vhdBlock/sector))
	header(Aliasing, "a BAT that is the header", corrupt, b64(hTable, vhdHeader))
	image(Aliasing, "footers of two disks", corrupt, Open, func(b []byte) { b[70]++; vhdSeal(b[:sector], 64) })

	m.add(Time, "the most blocks, none of them there", nil, Open, vhdLarge())
	m.add(Time, "blocks with every other sector", nil, Open, vhdStriped(64))
	return m.images
}

// vhdLarge is a disk of 32 GiB in blocks of 16 KiB: a BAT of 8 MiB.
func vhdLarge() []byte {
	const entries = 2 << 20
	f := vhdFooter(3, entries*vhdBlockBytes)
	be.PutUint64(f[hDataOff:], vhdHeader)
	vhdSeal(f, 64)
	b := vhd(nil, func(h []byte) { be.PutUint32(h[hEntries:], entries) }, nil)[:vhdBAT]
	copy(b, f)
	bat := make([]byte, 4*entries)
	for i := range bat {
		bat[i] = 0xff
	}
	return append(append(b, bat...), f...)
}

// vhdStriped is a disk of n blocks of 16 KiB of which every other sector is there.
func vhdStriped(n int) []byte {
	f := vhdFooter(3, uint64(n)*vhdBlockBytes)
	be.PutUint64(f[hDataOff:], vhdHeader)
	vhdSeal(f, 64)
	b := vhd(nil, func(h []byte) { be.PutUint32(h[hEntries:], uint32(n)) }, nil)[:vhdBAT]
	copy(b, f)
	first := (vhdBAT + 4*n + sector - 1) / sector
	b = append(b, make([]byte, first*sector-len(b))...)
	for i := range n {
		be.PutUint32(b[vhdBAT+4*i:], uint32(len(b)/sector))
		block := make([]byte, vhdTotal)
		for j := range vhdBlockBytes / sector / 8 {
			block[j] = 0x55
		}
		for j := sector; j < len(block); j += 100 {
			block[j] = byte(i) | 1
		}
		b = append(b, block...)
	}
	return append(b, f...)
}

var vhdPlaces = []place{
	{"vhd", "bare", "the parent, in the header", formats.ErrReference, func(name string) []byte {
		return vhd(vhdChild, func(h []byte) {
			copy(h[hParent:], "the parent's id.")
			for i, u := range utf16.Encode([]rune(name)) {
				be.PutUint16(h[hParentName+2*i:], u)
			}
		}, nil)
	}},
	{"vhd", "bare", "the parent, by a locator", formats.ErrReference, func(name string) []byte {
		return vhd(vhdChild, func(h []byte) {
			copy(h[hParent:], "the parent's id.")
			copy(h[hLocators:], "MacX")
			be.PutUint32(h[hLocators+4:], 1)
			be.PutUint32(h[hLocators+8:], uint32(len(name)))
			be.PutUint64(h[hLocators+16:], vhdBlock+1024)
		}, func(b []byte) { copy(b[vhdBlock+1024:], name) })
	}},
}

func vhdChild(f []byte) { be.PutUint32(f[hKind:], 4) }
