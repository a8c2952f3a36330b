package hostile

import (
	"fmt"
	"math"

	"glanced/formats"
)

// Fields of the vdi header (VirtualBox's VDICore.h).
const (
	iVersion, iHeader, iKind, iFlags, iMapOff, iDataOff, iSectors = 68, 72, 76, 80, 340, 344, 360
	iSize, iBlock, iExtra, iBlocks, iID, iLink                    = 368, 376, 380, 384, 392, 424

	vdiBlock = 128 << 10
)

// vdi is a disk of 512 KiB in blocks of 128 KiB, of which the first is there.
func vdi() []byte {
	b := make([]byte, 1024+vdiBlock)
	copy(b, "<<< Oracle VM VirtualBox Disk Image >>>\n")
	for at, v := range map[int]uint32{64: 0xbeda107f, iVersion: 0x10001, iHeader: 400, iKind: 1, iMapOff: 512, iDataOff: 1024,
		iSectors: sector, iSize: 4 * vdiBlock, iBlock: vdiBlock, iBlocks: 4, 388: 1, 468: sector} {
		le.PutUint32(b[at:], v)
	}
	copy(b[iID:], "an id of 16 byte")
	for i := 1; i < 4; i++ {
		le.PutUint32(b[512+4*i:], math.MaxUint32)
	}
	for i := range vdiBlock {
		b[1024+i] = byte(i >> 9)
	}
	return b
}

func vdiImages() []Image {
	m := &maker{format: "vdi", container: "bare"}
	corrupt, limit, unsupported := formats.ErrCorrupt, formats.ErrLimit, formats.ErrUnsupported
	edit := func(class Class, name string, want error, step Step, changes ...func(b []byte)) {
		b := vdi()
		for _, change := range changes {
			change(b)
		}
		m.add(class, name, want, step, b)
	}
	edit(Chain, "its own parent", formats.ErrReference, Open, put32(iKind, 4), func(b []byte) { copy(b[iLink:], "an id of 16 byte") })

	edit(Names, "a parent, by its id", formats.ErrReference, Open, put32(iKind, 4), func(b []byte) { copy(b[iLink:], "another's id .. ") })
	edit(Sizes, "4 billion blocks", limit, Open, put32(iBlocks, math.MaxUint32))
	edit(Sizes, "a map longer than the file", corrupt, Open, put32(iBlocks, 1<<20), put32(iDataOff, 1<<31))
	edit(Sizes, "more disk than blocks", corrupt, Open, put64(iSize, 1<<40))
	edit(Sizes, "the largest disk", corrupt, Open, put64(iSize, math.MaxUint64))
	edit(Sizes, "a map past the end", corrupt, Open, put32(iMapOff, math.MaxUint32&^511))
	edit(Sizes, "data past the end", corrupt, Map, put32(iDataOff, math.MaxUint32&^511))
	edit(Sizes, "more extra bytes than a block", corrupt, Open, put32(iExtra, 1<<31))
	for _, n := range []uint32{0, 3 * sector, math.MaxUint32} {
		edit(Clusters, fmt.Sprintf("blocks of %d bytes", n), corrupt, Open, put32(iBlock, n))
	}
	for _, n := range []uint32{1, sector, 1 << 31} {
		edit(Clusters, fmt.Sprintf("blocks of %d bytes", n), unsupported, Open, put32(iBlock, n))
	}
	edit(Clusters, "sectors of 4 GiB", unsupported, Open, put32(iSectors, math.MaxUint32))

	edit(Entries, "version 2", unsupported, Open, put32(iVersion, 0x20000))
	edit(Entries, "an unknown type", unsupported, Open, put32(iKind, 77))
	edit(Entries, "an unknown flag", unsupported, Open, put32(iFlags, 1<<31))
	edit(Entries, "a block past the end", corrupt, Map, put32(512, 1))
	edit(Entries, "the largest block number", corrupt, Map, put32(512, 0xfffffffd))
	edit(Entries, "data over the map", corrupt, Open, put32(iDataOff, 512))
	edit(Entries, "an unaligned map", unsupported, Open, put32(iMapOff, 513))
	b := vdi()
	m.add(Entries, "a block that is cut off", corrupt, Map, b[:len(b)-sector])

	edit(Aliasing, "all blocks in one", nil, Open, func(b []byte) { clear(b[512 : 512+16]) })

	const blocks = 1 << 20
	b = append(vdi()[:512], make([]byte, 4*blocks+vdiBlock)...)
	le.PutUint32(b[iBlocks:], blocks)
	le.PutUint32(b[iDataOff:], 512+4*blocks)
	le.PutUint64(b[iSize:], blocks*vdiBlock)
	b[512+4*blocks] = 1
	for i := range blocks {
		if i%2 == 0 {
			le.PutUint32(b[512+4*i:], math.MaxUint32)
		}
	}
	m.add(Time, "a disk of 128 GiB, every other block in one", nil, Open, b)
	return m.images
}
