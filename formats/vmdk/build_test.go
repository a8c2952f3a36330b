package vmdk_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

const sector = 512

// builder writes vmdk files the way VMware's tools do, and wrongly where a test
// asks for it. The zero value is VMware's own choice of every field.
type builder struct {
	version     uint32
	flags       uint32 // or-ed to what the kind of file needs
	grainSize   int64  // sectors
	tableLen    int64
	descriptor  string // "" = a fitting one
	level       int    // of zlib; 0 = default
	wholeLast   bool   // the last grain is written whole, zeros past the disk's end
	frontGD     bool   // stream: the directory in front, and no footer, as qemu does
	zeroGrains  bool   // grains of zeros are entry 1, else 0
	tables      []int  // sectors of the tables written, for tests that change them
	gd          int    // sector of the directory written
	firstGrain  int    // sector of the first grain written
	descSectors int64
}

func (b *builder) defaults() {
	if b.version == 0 {
		b.version = 3
	}
	if b.grainSize == 0 {
		b.grainSize = 128
	}
	if b.tableLen == 0 {
		b.tableLen = 512
	}
	if b.level == 0 {
		b.level = zlib.DefaultCompression
	}
	if b.zeroGrains {
		b.flags |= 1 << 2
	}
	b.descSectors = 20
	b.tables = nil
}

// descriptorOf is a descriptor of one extent.
func descriptorOf(createType string, sectors int, name string) string {
	return fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=3a1f0c2e\nparentCID=ffffffff\ncreateType=\"%s\"\n\n"+
		"# Extent description\nRDONLY %d SPARSE \"%s\"\n\n# The Disk Data Base\n#DDB\n\n"+
		"ddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"255\"\nddb.geometry.sectors = \"63\"\nddb.virtualHWVersion = \"4\"\n",
		createType, sectors, name)
}

// head is the header and the descriptor.
func (b *builder) head(createType string, flags uint32, compression uint16, guest []byte) []byte {
	b.defaults()
	capacity := len(guest) / sector
	if b.descriptor == "" {
		b.descriptor = descriptorOf(createType, capacity, "call-me-"+createType+".vmdk")
	}
	h := make([]byte, (1+b.descSectors)*sector)
	copy(h, "KDMV")
	le := binary.LittleEndian
	le.PutUint32(h[4:], b.version)
	le.PutUint32(h[8:], flags|b.flags)
	le.PutUint64(h[12:], uint64(capacity))
	le.PutUint64(h[20:], uint64(b.grainSize))
	le.PutUint64(h[28:], 1)
	le.PutUint64(h[36:], uint64(b.descSectors))
	le.PutUint32(h[44:], uint32(b.tableLen))
	copy(h[73:], "\n \r\n")
	le.PutUint16(h[77:], compression)
	copy(h[sector:], b.descriptor)
	return h
}

// grains cuts guest into grains, the last as long as the disk has it; a hole is nil.
func (b *builder) grains(guest []byte) [][]byte {
	var all [][]byte
	for len(guest) > 0 {
		n := min(len(guest), int(b.grainSize*sector))
		g := guest[:n]
		if len(bytes.Trim(g, "\x00")) == 0 {
			g = nil
		}
		all = append(all, g)
		guest = guest[n:]
	}
	return all
}

// hole is the grain table entry of a grain of zeros.
func (b *builder) hole() uint32 {
	if b.zeroGrains {
		return 1
	}
	return 0
}

func pad(f []byte) []byte { return append(f, make([]byte, -len(f)&(sector-1))...) }

func marker(value uint64, kind uint32) []byte {
	m := make([]byte, sector)
	binary.LittleEndian.PutUint64(m, value)
	binary.LittleEndian.PutUint32(m[12:], kind)
	return m
}

func le32s(v []uint32) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err)
	}
	return pad(b)
}

// stream writes guest as streamOptimized.
func (b *builder) stream(guest []byte) []byte {
	flags := uint32(1 | 1<<16 | 1<<17)
	f := b.head("streamOptimized", flags, 1, guest)
	grains := b.grains(guest)
	gts := (len(grains) + int(b.tableLen) - 1) / int(b.tableLen)
	tableSectors := len(le32s(make([]uint32, b.tableLen))) / sector
	gd := make([]uint32, gts)
	front := 0
	if b.frontGD {
		b.gd = len(f) / sector
		f = append(f, le32s(gd)...)
		front = len(f)
		f = append(f, make([]byte, gts*tableSectors*sector)...)
	}
	b.firstGrain = len(f) / sector
	for t := range gts {
		gt := make([]uint32, b.tableLen)
		some := false
		for i := range gt {
			n := t*int(b.tableLen) + i
			if n >= len(grains) {
				break
			}
			if grains[n] == nil {
				gt[i] = b.hole()
				some = some || b.zeroGrains
				continue
			}
			some = true
			gt[i] = uint32(len(f) / sector)
			f = b.appendGrain(f, n, grains[n])
		}
		switch {
		case !some:
		case b.frontGD:
			gd[t] = uint32(front/sector + t*tableSectors)
			copy(f[int(gd[t])*sector:], le32s(gt))
		default:
			f = append(f, marker(uint64(tableSectors), 1)...)
			gd[t] = uint32(len(f) / sector)
			f = append(f, le32s(gt)...)
		}
		if gd[t] != 0 {
			b.tables = append(b.tables, int(gd[t]))
		}
	}
	if b.frontGD {
		copy(f[b.gd*sector:], le32s(gd))
		binary.LittleEndian.PutUint64(f[56:], uint64(b.gd))
		return f
	}
	f = append(f, marker(uint64(len(le32s(gd))/sector), 2)...)
	b.gd = len(f) / sector
	f = append(f, le32s(gd)...)
	foot := bytes.Clone(f[:sector])
	binary.LittleEndian.PutUint64(f[56:], ^uint64(0))
	binary.LittleEndian.PutUint64(foot[56:], uint64(b.gd))
	f = append(f, marker(1, 3)...)
	f = append(f, foot...)
	return append(f, marker(0, 0)...)
}

func (b *builder) appendGrain(f []byte, n int, g []byte) []byte {
	if b.wholeLast {
		g = append(bytes.Clone(g), make([]byte, int(b.grainSize*sector)-len(g))...)
	}
	var coded bytes.Buffer
	z, err := zlib.NewWriterLevel(&coded, b.level)
	if err != nil {
		panic(err)
	}
	z.Write(g)
	z.Close()
	f = binary.LittleEndian.AppendUint64(f, uint64(int64(n)*b.grainSize))
	f = binary.LittleEndian.AppendUint32(f, uint32(coded.Len()))
	return pad(append(f, coded.Bytes()...))
}

// sparse writes guest as monolithicSparse: directory, tables and grains in order.
func (b *builder) sparse(guest []byte) []byte {
	f := b.head("monolithicSparse", 1, 0, guest)
	grains := b.grains(guest)
	gts := (len(grains) + int(b.tableLen) - 1) / int(b.tableLen)
	tableSectors := len(le32s(make([]uint32, b.tableLen))) / sector
	gd := make([]uint32, gts)
	b.gd = len(f) / sector
	f = append(f, le32s(gd)...)
	for t := range gd {
		gd[t] = uint32(len(f)/sector + t*tableSectors)
		b.tables = append(b.tables, int(gd[t]))
	}
	copy(f[b.gd*sector:], le32s(gd))
	f = append(f, make([]byte, gts*tableSectors*sector)...)
	b.firstGrain = len(f) / sector
	for n, g := range grains {
		at := b.hole()
		if g != nil {
			at = uint32(len(f) / sector)
			f = append(f, g...)
			f = append(f, make([]byte, int(b.grainSize*sector)-len(g))...)
		}
		binary.LittleEndian.PutUint32(f[int(gd[n/int(b.tableLen)])*sector+4*(n%int(b.tableLen)):], at)
	}
	binary.LittleEndian.PutUint64(f[56:], uint64(b.gd))
	return f
}

// guestOf is a disk of n bytes with holes, text and noise in it; the last sector
// and the last grain of the first table hold noise.
func guestOf(n int) []byte {
	rnd := rand.New(rand.NewPCG(7, uint64(n)))
	g := make([]byte, n)
	for at := 0; at < min(n, 4<<20); {
		run := min(n-at, sector*(1+rnd.IntN(300)))
		switch rnd.IntN(3) {
		case 0:
			noise(rnd, g[at:at+run])
		case 1:
			for i := range run {
				g[at+i] = "the quick brown fox "[i%20]
			}
		}
		at += run
	}
	if n > 32<<20 {
		noise(rnd, g[32<<20-64<<10:32<<20])
	}
	noise(rnd, g[max(0, n-sector):])
	return g
}

func noise(rnd *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
}
