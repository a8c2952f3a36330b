package vhdx_test

import (
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"unicode/utf16"
)

const (
	kib = 1 << 10
	mib = 1 << 20

	// Where the builder puts things.
	logAt      = 1 * mib
	metadataAt = 2 * mib
	batAt      = 3 * mib // its length varies; the blocks follow
	itemsAt    = metadataAt + 64*kib
	locatorAt  = itemsAt + 4*kib

	notPresent, undefined, zero, unmapped, fully, partially = 0, 1, 2, 3, 6, 7

	imageIdentity  = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9fa"
	parentIdentity = "83ed0ec3-24c8-49a6-a959-5e4bf1288bfb"
	logIdentity    = "11111111-2222-3333-4444-555555555555"
)

// block is a payload block: its state, and what the file holds for it.
type block struct {
	state uint64
	data  []byte // nil = it has no place in the file
}

// builder writes vhdx files the way Windows does, and wrongly where a test asks
// for it. The zero value is a dynamic disk with blocks of 1 MiB.
type builder struct {
	size       int64
	blockSize  int64 // 0 = 1 MiB
	sectorSize int64 // 0 = 512
	fixed      bool
	cut        bool // the file ends where the disk does, not the block
	identity   string
	blocks     map[int64]block
	bitmaps    map[int64][]byte // by chunk
	locator    [][2]string      // of the parent; nil = none
}

func (b *builder) defaults() {
	if b.blockSize == 0 {
		b.blockSize = mib
	}
	if b.sectorSize == 0 {
		b.sectorSize = 512
	}
	if b.identity == "" {
		b.identity = imageIdentity
	}
}

// of fills the builder's blocks with guest; blocks of zeros are not present.
func (b builder) of(guest []byte) *builder {
	b.defaults()
	b.size, b.blocks = int64(len(guest)), make(map[int64]block)
	for i := int64(0); i*b.blockSize < b.size; i++ {
		data := guest[i*b.blockSize : min((i+1)*b.blockSize, b.size)]
		if b.fixed || slices.ContainsFunc(data, func(c byte) bool { return c != 0 }) {
			b.blocks[i] = block{fully, data}
		}
	}
	return &b
}

func (b *builder) ratio() int64 { return b.sectorSize << 23 / b.blockSize }

// mark says in the sector bitmap that n sectors from first on are in this file.
func (b *builder) mark(first, n int64) {
	b.defaults()
	if b.bitmaps == nil {
		b.bitmaps = make(map[int64][]byte)
	}
	for s := first; s < first+n; s++ {
		chunk, bit := s>>23, s&(1<<23-1)
		if b.bitmaps[chunk] == nil {
			b.bitmaps[chunk] = make([]byte, mib)
		}
		b.bitmaps[chunk][bit/8] |= 1 << (bit % 8)
	}
}

// batLength is the length of the BAT region, whole MiB.
func (b *builder) batLength() int64 {
	chunks := (b.size + b.ratio()*b.blockSize - 1) / (b.ratio() * b.blockSize)
	return max(1, (chunks*(b.ratio()+1)*8+mib-1)/mib) * mib
}

// image is the whole file.
func (b *builder) image() []byte {
	b.defaults()
	f := make([]byte, batAt+b.batLength())
	le := binary.LittleEndian
	copy(f, "vhdxfile")
	copy(f[8:], utf16le("glanced tests"))
	for i, at := range []int{64 * kib, 128 * kib} {
		h := f[at:]
		copy(h, "head")
		le.PutUint64(h[8:], uint64(7-i))
		copy(h[16:], guidBytes("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"))
		copy(h[32:], guidBytes(b.identity))
		le.PutUint16(h[66:], 1)
		le.PutUint32(h[68:], mib)
		le.PutUint64(h[72:], logAt)
	}
	for _, at := range []int{192 * kib, 256 * kib} {
		r := f[at:]
		copy(r, "regi")
		le.PutUint32(r[8:], 2)
		putRegion(r[16:], "2dc27766-f623-4200-9d64-115e9bfd4a08", batAt, b.batLength(), 1)
		putRegion(r[48:], "8b7ca206-4790-4b9a-b8fe-575f050f886e", metadataAt, mib, 1)
	}
	b.putMetadata(f)
	order := slices.Sorted(maps.Keys(b.blocks))
	if !b.cut {
		slices.Reverse(order) // so that no order is taken for granted
	}
	for _, i := range order {
		v := b.blocks[i]
		at := 0
		if v.data != nil {
			at, f = len(f)/mib, append(f, v.data...)
			if partial := (i+1)*b.blockSize > b.size; !partial || !b.cut {
				f = append(f, make([]byte, b.blockSize-int64(len(v.data)))...)
			}
		}
		b.setBlock(f, i, v.state, at)
	}
	for _, chunk := range slices.Sorted(maps.Keys(b.bitmaps)) {
		putEntry(f, chunk*(b.ratio()+1)+b.ratio(), 6, len(f)/mib)
		f = append(f, b.bitmaps[chunk]...)
	}
	return seal(f)
}

func (b *builder) putMetadata(f []byte) {
	le := binary.LittleEndian
	copy(f[metadataAt:], "metadata")
	n, at := 0, itemsAt
	put := func(id string, flags uint32, item []byte) {
		e := f[metadataAt+32*(n+1):]
		copy(e, guidBytes(id))
		le.PutUint32(e[16:], uint32(at-metadataAt))
		le.PutUint32(e[20:], uint32(len(item)))
		le.PutUint32(e[24:], flags)
		copy(f[at:], item)
		n++
		at += len(item)
		le.PutUint16(f[metadataAt+10:], uint16(n))
	}
	params := uint32(0)
	if b.fixed {
		params |= 1
	}
	if b.locator != nil {
		params |= 2
	}
	put("caa16737-fa36-4d43-b3b6-33f0aa44e76b", 4, le.AppendUint32(le.AppendUint32(nil, uint32(b.blockSize)), params))
	put("2fa54224-cd1b-4876-b211-5dbed83bf4b8", 6, le.AppendUint64(nil, uint64(b.size)))
	put("8141bf1d-a96f-4709-ba47-f233a8faab5f", 6, le.AppendUint32(nil, uint32(b.sectorSize)))
	put("cda348c7-445d-4471-9cc9-e9885251c556", 6, le.AppendUint32(nil, 4096))
	put("beca12ab-b2e6-4523-93ef-c309e000c746", 6, guidBytes("12345678-9abc-def0-1234-56789abcdef0"))
	if b.locator != nil {
		at = locatorAt
		put("a8d35f2d-b30b-454d-abf7-d3d84834ab0c", 4, locatorItem(b.locator))
	}
}

// Where the builder's metadata items lie.
const (
	blockSizeAt  = itemsAt
	fileFlagsAt  = itemsAt + 4
	diskSizeAt   = itemsAt + 8
	sectorSizeAt = itemsAt + 16
)

func locatorItem(pairs [][2]string) []byte {
	le := binary.LittleEndian
	item := append(guidBytes("b04aefb7-d19e-4a81-b789-25b8e9445913"), 0, 0)
	item = le.AppendUint16(item, uint16(len(pairs)))
	var text []byte
	for _, p := range pairs {
		key, value := utf16le(p[0]), utf16le(p[1])
		at := 20 + 12*len(pairs) + len(text)
		item = le.AppendUint32(item, uint32(at))
		item = le.AppendUint32(item, uint32(at+len(key)))
		item = le.AppendUint16(item, uint16(len(key)))
		item = le.AppendUint16(item, uint16(len(value)))
		text = append(append(text, key...), value...)
	}
	return append(item, text...)
}

// setBlock sets the BAT entry of payload block i.
func (b *builder) setBlock(f []byte, i int64, state uint64, atMiB int) {
	putEntry(f, i+i/b.ratio(), state, atMiB)
}

func putEntry(f []byte, i int64, state uint64, atMiB int) {
	binary.LittleEndian.PutUint64(f[batAt+8*i:], state|uint64(atMiB)<<20)
}

func putRegion(b []byte, id string, at, n int64, required uint32) {
	copy(b, guidBytes(id))
	binary.LittleEndian.PutUint64(b[16:], uint64(at))
	binary.LittleEndian.PutUint32(b[24:], uint32(n))
	binary.LittleEndian.PutUint32(b[28:], required)
}

// seal sets the checksums of the headers and region tables.
func seal(f []byte) []byte {
	for _, s := range [][2]int{{64 * kib, 4 * kib}, {128 * kib, 4 * kib}, {192 * kib, 64 * kib}, {256 * kib, 64 * kib}} {
		sum(f[s[0]:][:s[1]])
	}
	return f
}

func sum(b []byte) {
	clear(b[4:8])
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func guidBytes(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		panic("not a GUID: " + text)
	}
	slices.Reverse(b[:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return b
}

// guestOf is a disk of n bytes with runs of text, noise and zeros; a block of it,
// the second MiB, is zeros, and its end is noise.
func guestOf(n int) []byte {
	rnd := rand.New(rand.NewPCG(7, uint64(n)))
	g := make([]byte, n)
	for at := 0; at < n; {
		run := min(n-at, 512*(1+rnd.IntN(300)))
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
	if n > 2*mib {
		clear(g[mib : 2*mib])
	}
	noise(rnd, g[max(0, n-512):])
	return g
}

func noise(rnd *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
}

// logWrite is what a log entry writes to the file at off: a page of 4 KiB, or
// zeros where it is nil.
type logWrite struct {
	off  int64
	page []byte
	n    int64 // of zeros
}

// logEntry is a log entry as it is written.
type logEntry struct {
	sequence      uint64
	tail          int
	flushed, last int64
	id            string // "" = logIdentity
	writes        []logWrite
}

func (e logEntry) bytes() []byte {
	le := binary.LittleEndian
	if e.id == "" {
		e.id = logIdentity
	}
	b := make([]byte, (64+32*len(e.writes)+4095)/4096*4096)
	copy(b, "loge")
	le.PutUint32(b[12:], uint32(e.tail))
	le.PutUint64(b[16:], e.sequence)
	le.PutUint32(b[24:], uint32(len(e.writes)))
	copy(b[32:], guidBytes(e.id))
	le.PutUint64(b[48:], uint64(e.flushed))
	le.PutUint64(b[56:], uint64(e.last))
	for i, w := range e.writes {
		d := b[64+32*i:][:32]
		le.PutUint64(d[16:], uint64(w.off))
		le.PutUint64(d[24:], e.sequence)
		if w.page == nil {
			copy(d, "zero")
			le.PutUint64(d[8:], uint64(w.n))
			continue
		}
		copy(d, "desc")
		copy(d[4:], w.page[4092:])
		copy(d[8:], w.page[:8])
		b = le.AppendUint32(append(b, "data"...), uint32(e.sequence>>32))
		b = append(b, w.page[8:4092]...)
		b = le.AppendUint32(b, uint32(e.sequence))
	}
	le.PutUint32(b[8:], uint32(len(b)))
	sum(b)
	return b
}

// putLog writes an entry into the log at at, past its end to its beginning, and is
// where the next one goes.
func putLog(f []byte, at int, entry []byte) int {
	log := f[logAt : logAt+mib]
	copy(log, entry[copy(log[at:], entry):])
	return (at + len(entry)) % mib
}

// dirty makes f's headers say that the log is to be played back.
func dirty(f []byte) []byte {
	for _, at := range []int{64 * kib, 128 * kib} {
		copy(f[at+48:], guidBytes(logIdentity))
	}
	return seal(f)
}
