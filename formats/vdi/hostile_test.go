package vdi_test

import (
	"bytes"
	"testing"

	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
	"glanced/formats/vdi"
)

// hostileEdits lists what malicious or damaged images do, each as a change of a valid
// one, with the kind of error that must come of it.
var hostileEdits = []struct {
	name string
	edit func(f []byte) []byte
	want error
}{
	{"version 0.2", set32(68, 2), formats.ErrUnsupported},
	{"version 1.2", set32(68, 0x00010002), formats.ErrUnsupported},
	{"version 2.0", set32(68, 0x00020000), formats.ErrUnsupported},
	{"a header of no bytes", set32(72, 0), formats.ErrCorrupt},
	{"a header that is too short", set32(72, 383), formats.ErrCorrupt},
	{"the header cut off", func(f []byte) []byte { return f[:455] }, formats.ErrCorrupt},
	{"only the signature", func(f []byte) []byte { return f[:68] }, formats.ErrCorrupt},
	{"no signature", set32(64, 0), formats.ErrFormat},
	{"the signature cut off", func(f []byte) []byte { return f[:67] }, formats.ErrFormat},

	{"type 0", set32(76, 0), formats.ErrUnsupported},
	{"type 5", set32(76, 5), formats.ErrUnsupported},
	{"an undo image without a parent", set32(76, undo), formats.ErrCorrupt},
	{"a differencing image without a parent", set32(76, differencing), formats.ErrCorrupt},
	{"a parent", func(f []byte) []byte { le.PutUint32(f[76:], differencing); f[424] = 1; return f }, formats.ErrReference},
	{"an undone parent", func(f []byte) []byte { le.PutUint32(f[76:], undo); f[424] = 1; return f }, formats.ErrReference},
	{"a parent of a dynamic image", func(f []byte) []byte { f[439] = 1; return f }, formats.ErrReference},
	{"an unknown flag", set32(80, 2), formats.ErrUnsupported},
	{"the last unknown flag", set32(80, 1<<31), formats.ErrUnsupported},
	{"sectors of 4096 bytes", set32(360, 4096), formats.ErrUnsupported},
	{"sectors of no bytes", set32(360, 0), formats.ErrUnsupported},

	{"blocks of no bytes", set32(376, 0), formats.ErrCorrupt},
	{"blocks of three sectors", set32(376, 1536), formats.ErrCorrupt},
	{"blocks of not quite 4 GiB", set32(376, 0xffffffff), formats.ErrCorrupt},
	{"blocks of 64 KiB", set32(376, 64<<10), formats.ErrUnsupported},
	{"blocks of one byte", set32(376, 1), formats.ErrUnsupported},
	{"blocks of 256 MiB", set32(376, 256<<20), formats.ErrUnsupported},
	{"blocks of 2 GiB", set32(376, 1<<31), formats.ErrUnsupported},
	{"three extra sectors", set32(380, 1536), formats.ErrCorrupt},
	{"one extra byte", set32(380, 1), formats.ErrCorrupt},
	{"more extra than block", set32(380, 256<<10), formats.ErrCorrupt},
	{"the most extra bytes", set32(380, 0xffffffff), formats.ErrCorrupt},

	{"more disk than blocks", set64(368, 5*hostileBlock), formats.ErrCorrupt},
	{"the largest disk", set64(368, 1<<64-1), formats.ErrCorrupt},
	{"a negative size", set64(368, 1<<63), formats.ErrCorrupt},
	{"no blocks", set32(384, 0), formats.ErrCorrupt},
	{"a block map longer than the file", func(f []byte) []byte {
		le.PutUint32(f[344:], 1<<31)
		le.PutUint32(f[384:], 1<<20)
		return f
	}, formats.ErrCorrupt},
	{"a block map longer than the file, for no disk", func(f []byte) []byte {
		le.PutUint32(f[344:], 1<<31)
		le.PutUint64(f[368:], 0)
		le.PutUint32(f[384:], 1<<20)
		return f
	}, formats.ErrCorrupt},
	{"the most blocks", set32(384, 0xffffffff), formats.ErrLimit},
	{"a disk of the most blocks", func(f []byte) []byte {
		le.PutUint32(f[384:], 1<<30-1)
		le.PutUint64(f[368:], (1<<30-1)*hostileBlock)
		return f
	}, formats.ErrCorrupt},

	{"the block map over the header", set32(340, 0), formats.ErrCorrupt},
	{"no block map, over the header", func(f []byte) []byte {
		le.PutUint32(f[340:], 0)
		le.PutUint64(f[368:], 0)
		le.PutUint32(f[384:], 0)
		return f
	}, formats.ErrCorrupt},
	{"an unaligned block map", set32(340, 513), formats.ErrUnsupported},
	{"a block map past the end", set32(340, 0xfffffe00), formats.ErrCorrupt},
	{"unaligned data", set32(344, 1025), formats.ErrUnsupported},
	{"data over the block map", set32(344, 512), formats.ErrCorrupt},
	{"data over the header", set32(344, 0), formats.ErrCorrupt},
	{"data past the end", set32(344, 0xfffffe00), formats.ErrCorrupt},

	{"a block number past the last", set32(512, 4), formats.ErrCorrupt},
	{"a block number past the last, with a block there", func(f []byte) []byte {
		le.PutUint32(f[512:], 4)
		return append(f, make([]byte, 4*hostileBlock)...)
	}, formats.ErrCorrupt},
	{"the largest block number", set32(512, 0xfffffffd), formats.ErrCorrupt},
	{"a block past the end", set32(512, 3), formats.ErrCorrupt},
	{"the last block cut off", shortened(1), formats.ErrCorrupt},
	{"a whole block cut off", shortened(hostileBlock), formats.ErrCorrupt},
	{"extra bytes that push a block past the end", set32(380, 512), formats.ErrCorrupt},
}

const hostileBlock = 128 << 10

// victim is a small valid image of four blocks, of which the file has the first,
// the third, and of the last what the disk has.
func victim() []byte {
	guest := make([]byte, 3*hostileBlock+512)
	for i := range guest {
		if n := i / hostileBlock; n != 1 {
			guest[i] = byte(i)
		}
	}
	return (&builder{shortLast: true}).build(guest)
}

func set32(at int, v uint32) func(f []byte) []byte {
	return func(f []byte) []byte { le.PutUint32(f[at:], v); return f }
}

func shortened(by int) func(f []byte) []byte {
	return func(f []byte) []byte { return f[:max(0, len(f)-by)] }
}

func set64(at int, v uint64) func(f []byte) []byte {
	return func(f []byte) []byte { le.PutUint64(f[at:], v); return f }
}

func TestRefusesHostileImages(t *testing.T) {
	for _, h := range hostileEdits {
		t.Run(h.name, func(t *testing.T) {
			formattest.Refuse(t, vdi.Driver(), h.edit(victim()), h.want)
		})
	}
}

// The extra bytes are where the header says, and are still refused.
func TestRefusesExtraBytesThatAreNoPowerOfTwoOfSectors(t *testing.T) {
	for _, extra := range []int{8, 1536, 256 << 10} {
		formattest.Refuse(t, vdi.Driver(), (&builder{blockExtra: extra}).build(guestOf(2*hostileBlock)), formats.ErrCorrupt)
	}
}

// What is odd, and harmless: many guest blocks in one of the file, a disk of no
// bytes, data that nothing points to.
func TestReadsOddImages(t *testing.T) {
	for name, edit := range map[string]func(f []byte) []byte{
		"aliased blocks": set32(512+4*2, 0),
		"no disk":        set64(368, 0),
		"a longer file":  func(f []byte) []byte { return append(f, make([]byte, 1000)...) },
		"nothing at all": func(f []byte) []byte { le.PutUint64(f[368:], 0); le.PutUint32(f[384:], 0); return f },
		"no block stored": func(f []byte) []byte {
			copy(f[512:528], "\xff\xff\xff\xff\xfe\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")
			return f[:1024]
		},
	} {
		t.Run(name, func(t *testing.T) {
			formattest.Refuse(t, vdi.Driver(), edit(victim()), nil)
		})
	}
}

// A block map of one block over and over: a large disk in a small file. Its walk
// is bounded by the map, which is in the file.
func TestWalksOfAliasedBlocksAreBounded(t *testing.T) {
	const blocks = 1 << 20
	image := (&builder{more: blocks - 1}).build(guestOf(hostileBlock))
	clear(image[512:][:4*blocks])
	le.PutUint64(image[368:], blocks*hostileBlock)
	formattest.Refuse(t, vdi.Driver(), image, nil)
}

func FuzzOpenVDI(f *testing.F) {
	seeds := [][]byte{
		(&builder{shortLast: true}).build(guestOf(512)),
		(&builder{shortLast: true, blockExtra: 512, zeros: zero}).build(append(make([]byte, 2*hostileBlock), "last"...)),
		(&builder{kind: static, shortLast: true}).build(make([]byte, 1024)),
		(&builder{kind: differencing, link: parentUUID, shortLast: true}).build(append(make([]byte, hostileBlock), "child"...)),
		(&builder{kind: undo, link: parentUUID}).build(nil),
		(&builder{more: 40_000, shortLast: true}).build([]byte("many blocks")),
		qemuImage(f, "static=off"),
		qemuImage(f, "static=on"),
	}
	for _, h := range hostileEdits {
		seeds = append(seeds, h.edit(bytes.Clone(seeds[0])))
	}
	formattest.FuzzOpen(f, vdi.Driver(), append(seeds, hostile.Seeds("vdi")...)...)
}
