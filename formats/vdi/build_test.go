package vdi_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vdi"
)

var le = binary.LittleEndian

const (
	free = 0xffffffff
	zero = 0xfffffffe

	dynamic, static, undo, differencing = 1, 2, 3, 4
)

// Two UUIDs as VirtualBox stores them, and as it shows them.
var (
	ownUUID    = []byte("\x78\x56\x34\x12\xcd\xab\x01\xef\x80\x01\x02\x03\x04\x05\x06\x07")
	parentUUID = []byte("\x01\x00\x00\x00\x02\x00\x03\x00\x84\x05\x06\x07\x08\x09\x0a\x0b")
)

const (
	ownText    = "12345678-abcd-ef01-8001-020304050607"
	parentText = "00000001-0002-0003-8405-060708090a0b"
)

// builder writes vdi files as VirtualBox does, and wrongly where a test asks for
// it. The zero value is an image of 128 KiB blocks, the smallest there are.
type builder struct {
	kind       uint32 // 0 = dynamic
	blockSize  int
	blockExtra int
	mapAt      int               // offset of the block map, 0 = 512
	align      int               // of the data, 0 = 512
	more       int               // blocks that the header has beyond those of the disk
	link       []byte            // the parent's UUID
	zeros      uint32            // entry of a block of zeros, 0 = free; static images store them
	entries    map[int]uint32    // of the block map, set whatever the guest has
	order      func(n []int)     // changes the order in which blocks are stored; nil = ascending
	shortLast  bool              // the last block of the disk is stored only as far as the disk goes
	dataAt     int               // where the data was put
	edit       func(head []byte) // of the finished image
}

// build is an image of guest.
func (b *builder) build(guest []byte) []byte {
	if b.kind == 0 {
		b.kind = dynamic
	}
	if b.blockSize == 0 {
		b.blockSize = 128 << 10
	}
	b.mapAt, b.align = max(b.mapAt, 512), max(b.align, 512)
	n := (len(guest) + b.blockSize - 1) / b.blockSize
	b.dataAt = (b.mapAt + 4*(n+b.more) + b.align - 1) / b.align * b.align
	f := make([]byte, b.dataAt)
	copy(f, "<<< Oracle VM VirtualBox Disk Image >>>\n")
	le.PutUint32(f[64:], 0xbeda107f)
	le.PutUint32(f[68:], 0x00010001)
	le.PutUint32(f[72:], 400)
	le.PutUint32(f[76:], b.kind)
	le.PutUint32(f[340:], uint32(b.mapAt))
	le.PutUint32(f[344:], uint32(b.dataAt))
	le.PutUint32(f[360:], 512)
	le.PutUint64(f[368:], uint64(len(guest)))
	le.PutUint32(f[376:], uint32(b.blockSize))
	le.PutUint32(f[380:], uint32(b.blockExtra))
	le.PutUint32(f[384:], uint32(n+b.more))
	copy(f[392:], ownUUID)
	copy(f[408:], "modified, modify")
	copy(f[424:], b.link)
	le.PutUint32(f[468:], 512)

	table := f[b.mapAt:][:4*(n+b.more)]
	copy(table, bytes.Repeat([]byte{0xff}, len(table)))
	var stored []int
	for i := range n {
		block := guest[i*b.blockSize : min((i+1)*b.blockSize, len(guest))]
		e, fixed := b.entries[i]
		switch {
		case fixed:
			le.PutUint32(table[4*i:], e)
		case b.kind == static || len(bytes.Trim(block, "\x00")) > 0:
			stored = append(stored, i)
		case b.zeros != 0:
			le.PutUint32(table[4*i:], b.zeros)
		}
	}
	if b.order != nil {
		b.order(stored)
	}
	le.PutUint32(f[388:], uint32(len(stored)))
	for at, i := range stored {
		le.PutUint32(f[b.mapAt+4*i:], uint32(at))
		f = append(f, bytes.Repeat([]byte("extra   "), b.blockExtra/8)...)
		block := guest[i*b.blockSize : min((i+1)*b.blockSize, len(guest))]
		f = append(f, block...)
		if !b.shortLast || at < len(stored)-1 {
			f = append(f, make([]byte, b.blockSize-len(block))...)
		}
	}
	if b.edit != nil {
		b.edit(f)
	}
	return f
}

// guestOf is a disk of n bytes with noise in some of its sectors, the first and
// the last among them, and runs without any.
func guestOf(n int) []byte {
	rnd := rand.New(rand.NewPCG(11, uint64(n)))
	g := make([]byte, n)
	fill := func(from, to int) {
		for i := max(from, 0); i < min(to, n); i++ {
			g[i] = byte(rnd.Uint32())
		}
	}
	fill(0, 512)
	for at := 0; at < n; at += 300<<10 + rnd.IntN(600<<10) {
		fill(at, at+rnd.IntN(70<<10))
	}
	fill(n-512, n)
	return g
}

func openDisk(t testing.TB, src stored.Bytes, parent engine.Parent) *engine.Disk {
	t.Helper()
	e := engine.New(engine.Options{TableBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	d, err := e.Open(t.Context(), vdi.Driver(), src, engine.OpenOptions{Parent: parent})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func readAll(t testing.TB, d *engine.Disk) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// wantGuest fails unless image reads as guest.
func wantGuest(t *testing.T, image, guest []byte) {
	t.Helper()
	if got := readAll(t, openDisk(t, formattest.Memory(image), nil)); !bytes.Equal(got, guest) {
		t.Errorf("of %d bytes read and %d bytes written, the one at %d differs", len(got), len(guest), firstDifference(got, guest))
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// mapOf is the whole map of image.
func mapOf(t *testing.T, image []byte) []formats.Extent {
	t.Helper()
	l, err := vdi.Driver().Open(t.Context(), formattest.Memory(image), formats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all []formats.Extent
	if err := l.Map(t.Context(), 0, l.Size(), func(x formats.Extent) bool {
		all = append(all, x)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func backwards(n []int) { slices.Reverse(n) }

func shuffled(n []int) {
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(n), func(i, j int) { n[i], n[j] = n[j], n[i] })
}

// qemuImage is qemu's image of a disk of one sector, cut off after that.
func qemuImage(t testing.TB, options string) []byte {
	t.Helper()
	testbed.Need(t, "qemu-io", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.vdi")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "vdi", "-o", options, path, "512")
	testbed.Run(t, "qemu-io", "-f", "vdi", "-c", "write -P 1 0 512", path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return image[:min(len(image), 1024+512)]
}
