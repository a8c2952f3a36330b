package vhd_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"unicode/utf16"
)

const sector = 512

var be = binary.BigEndian

// builder writes vhd files as Hyper-V does, and otherwise where a test asks for
// it. The zero value is a dynamic disk with the smallest blocks that are read.
type builder struct {
	app      string // creator application; "" = "win "
	block    int    // bytes; 0 = 16 KiB
	old      bool   // footers of 511 bytes
	geometry [3]int // cylinders, heads, sectors a track
	id       byte   // the unique id is 16 of these; 0 = 'i'
	size     uint64 // current size, bytes; 0 = the guest's
	headerAt int    // bytes; 0 = behind the first footer
	backward bool   // blocks lie in the file in reverse order
	spare    int    // entries of the BAT beyond those needed

	parent     byte // the parent's unique id is 16 of these; 0 = no parent
	parentName string
	locators   map[uint32]string // platform -> bytes in the file
}

// built is a finished image, and where what tests change lies in it.
type built struct {
	image    []byte
	header   int   // bytes
	bat      int   // bytes
	blocks   []int // sectors; 0 = unallocated
	end      int   // where the footer begins
	blockLen int   // of a block with its bitmap, bytes
}

func all(int) bool { return true }

// footer is a sealed footer for guest.
func (b builder) footer(kind uint32, guest int, dataOff uint64) []byte {
	f := make([]byte, sector)
	copy(f, "conectix")
	be.PutUint32(f[8:], 2)
	be.PutUint32(f[12:], 0x10000)
	be.PutUint64(f[16:], dataOff)
	be.PutUint32(f[24:], 0x12345678)
	copy(f[28:], "win ")
	if b.app != "" {
		copy(f[28:], b.app)
	}
	copy(f[36:], "Wi2k")
	size := uint64(guest)
	if b.size != 0 {
		size = b.size
	}
	be.PutUint64(f[40:], size)
	be.PutUint64(f[48:], size)
	be.PutUint16(f[56:], uint16(b.geometry[0]))
	f[58], f[59] = byte(b.geometry[1]), byte(b.geometry[2])
	be.PutUint32(f[60:], kind)
	id := b.id
	if id == 0 {
		id = 'i'
	}
	copy(f[68:], bytes.Repeat([]byte{id}, 16))
	if b.old {
		f = f[:sector-1]
	}
	return seal(f, 64)
}

// seal writes the checksum at at.
func seal(b []byte, at int) []byte {
	be.PutUint32(b[at:], 0)
	sum := uint32(0)
	for _, c := range b {
		sum += uint32(c)
	}
	be.PutUint32(b[at:], ^sum)
	return b
}

// fixed is guest as a fixed disk.
func (b builder) fixed(guest []byte) []byte {
	return append(bytes.Clone(guest), b.footer(2, len(guest), 1<<64-1)...)
}

// sparse is guest as a dynamic disk, or a differencing one where there is a
// parent. Only sectors that has says are in the file: in place of the others of
// a block there is something else.
func (b builder) sparse(guest []byte, has func(sector int) bool) *built {
	if b.block == 0 {
		b.block = 16 << 10
	}
	if b.headerAt == 0 {
		b.headerAt = sector
	}
	kind := uint32(3)
	if b.parent != 0 {
		kind = 4
	}
	footer := b.footer(kind, len(guest), uint64(b.headerAt))
	blocks := (len(guest) + b.block - 1) / b.block
	bitmap := (b.block/sector/8 + sector - 1) / sector * sector
	x := &built{header: b.headerAt, bat: b.headerAt + 1024, blocks: make([]int, blocks), blockLen: bitmap + b.block}

	f := make([]byte, x.bat)
	copy(f, footer)
	f = append(f, bytes.Repeat([]byte{0xff}, (4*(blocks+b.spare)+sector-1)/sector*sector)...)
	h := f[b.headerAt:]
	i := 0
	for platform, text := range b.locators {
		l := h[576+24*i:]
		be.PutUint32(l, platform)
		be.PutUint32(l[4:], 1)
		be.PutUint32(l[8:], uint32(len(text)))
		be.PutUint64(l[16:], uint64(len(f)))
		f = append(append(f, text...), make([]byte, -len(text)&(sector-1))...)
		h = f[b.headerAt:]
		i++
	}
	for i := range blocks {
		n := i
		if b.backward {
			n = blocks - 1 - i
		}
		if at := len(f); b.appendBlock(&f, guest, n, bitmap, has) {
			x.blocks[n] = at / sector
			be.PutUint32(f[x.bat+4*n:], uint32(at/sector))
		}
	}
	h = f[b.headerAt:]
	copy(h, "cxsparse")
	be.PutUint64(h[8:], 1<<64-1)
	be.PutUint64(h[16:], uint64(x.bat))
	be.PutUint32(h[24:], 0x10000)
	be.PutUint32(h[28:], uint32(blocks+b.spare))
	be.PutUint32(h[32:], uint32(b.block))
	if b.parent != 0 {
		copy(h[40:], bytes.Repeat([]byte{b.parent}, 16))
		for i, u := range utf16.Encode([]rune(b.parentName)) {
			be.PutUint16(h[64+2*i:], u)
		}
	}
	seal(h[:1024], 36)
	x.end = len(f)
	x.image = append(f, footer...)
	return x
}

// appendBlock writes block n of guest, if any of its sectors are to be there.
func (b builder) appendBlock(f *[]byte, guest []byte, n, bitmap int, has func(int) bool) bool {
	out := bytes.Repeat([]byte("?"), bitmap+b.block)
	clear(out[:bitmap])
	some := false
	for s := range b.block / sector {
		at := n*b.block + s*sector
		if at >= len(guest) || !has(at/sector) {
			continue
		}
		some = true
		out[s/8] |= 0x80 >> (s % 8)
		copy(out[bitmap+s*sector:], guest[at:at+sector])
	}
	if some {
		*f = append(*f, out...)
	}
	return some
}

// footers changes both footers alike, and seals them.
func (x *built) footers(edit func(f []byte)) []byte {
	edit(x.image[:sector])
	edit(x.image[x.end:])
	seal(x.image[:sector], 64)
	seal(x.image[x.end:], 64)
	return x.image
}

// headers changes the dynamic disk header, and seals it.
func (x *built) headers(edit func(h []byte)) []byte {
	edit(x.image[x.header:])
	seal(x.image[x.header:][:1024], 36)
	return x.image
}

// entry sets an entry of the BAT.
func (x *built) entry(block, sector int) []byte {
	be.PutUint32(x.image[x.bat+4*block:], uint32(sector))
	return x.image
}

// guestOf is a disk of n bytes of noise.
func guestOf(n int) []byte {
	rnd := rand.New(rand.NewPCG(11, uint64(n)))
	g := make([]byte, n)
	for i := range g {
		g[i] = byte(rnd.Uint32())
	}
	return g
}

// mixture says of each sector whether it is in the file: runs of many lengths,
// whole blocks of 16 KiB with and without, and single sectors at their borders.
func mixture(seed uint64) func(int) bool {
	return func(s int) bool {
		rnd := rand.New(rand.NewPCG(seed, uint64(s/32)))
		switch rnd.IntN(5) {
		case 0:
			return true
		case 1:
			return false
		case 2:
			return s%32 == 0 || s%32 == 31
		case 3:
			return s%32 != 15
		}
		return (s+s/7)%5 < 2
	}
}
