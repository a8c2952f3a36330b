package parallels_test

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"glanced/backends/stored"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/parallels"
)

var le = binary.LittleEndian

const (
	sector = 512

	closed             = 0x312e3276 // by software that knows the Format Extension
	closedByDesktop    = 0x37316470 // "pd17", as Parallels Desktop leaves it
	necessary, transit = 1, 2
	dirtyBitmap        = 0x20385fae252cb34a
)

// builder writes images as Parallels does, and wrongly where a test asks for it.
// The zero value is a v1 image with clusters of 63 sectors, as the oldest are.
type builder struct {
	v2        bool
	tracks    int         // sectors of a cluster; 0 = 63
	dataOff   int         // sectors; 0 = right after the BAT (v2: the next whole cluster)
	inUse     uint32      // of the header
	flags     uint32      // of the header
	more      int         // BAT entries beyond those of the disk
	order     func([]int) // changes the order in which clusters are stored; nil = ascending
	shortLast bool        // the last cluster stored is cut off where the disk ends
	features  []byte      // of a Format Extension; nil = there is none
	dataAt    int         // byte where the data area was put
	extAt     int         // byte where the Format Extension was put
}

// build is an image of guest, which is whole sectors.
func (b *builder) build(guest []byte) []byte {
	if b.tracks == 0 {
		b.tracks = 63
	}
	cluster := b.tracks * sector
	n := (len(guest) + cluster - 1) / cluster
	batEnd := 64 + 4*(n+b.more)
	magic, unit, align := "WithoutFreeSpace", sector, sector
	if b.v2 {
		magic, unit, align = "WithouFreSpacExt", cluster, cluster
	}
	b.dataAt = b.dataOff * sector
	if b.dataOff == 0 {
		b.dataAt = (batEnd + align - 1) / align * align
	}
	f := make([]byte, max(b.dataAt, batEnd))
	copy(f, magic)
	le.PutUint32(f[16:], 2)
	le.PutUint32(f[20:], 16)
	le.PutUint32(f[28:], uint32(b.tracks))
	le.PutUint32(f[32:], uint32(n+b.more))
	le.PutUint64(f[36:], uint64(len(guest)/sector))
	le.PutUint32(f[44:], b.inUse)
	if b.v2 || b.dataOff != 0 {
		le.PutUint32(f[48:], uint32(b.dataAt/sector))
	}
	le.PutUint32(f[52:], b.flags)

	if b.features != nil {
		b.extAt = len(f)
		ext := make([]byte, cluster)
		le.PutUint64(ext, 0xab234cef23dcea87)
		copy(ext[24:], b.features)
		sum := md5.Sum(ext[24:])
		copy(ext[8:], sum[:])
		le.PutUint64(f[56:], uint64(b.extAt/sector))
		f = append(f, ext...)
	}
	var stored []int
	for i := range n {
		if len(bytes.Trim(guest[i*cluster:min((i+1)*cluster, len(guest))], "\x00")) > 0 {
			stored = append(stored, i)
		}
	}
	if b.order != nil {
		b.order(stored)
	}
	for at, i := range stored {
		le.PutUint32(f[64+4*i:], uint32(len(f)/unit))
		data := guest[i*cluster : min((i+1)*cluster, len(guest))]
		f = append(f, data...)
		if !b.shortLast || at < len(stored)-1 {
			f = append(f, make([]byte, cluster-len(data))...)
		}
	}
	return f
}

// feature is a section of the Format Extension.
func feature(magic, flags uint64, data []byte) []byte {
	b := le.AppendUint64(nil, magic)
	b = le.AppendUint64(b, flags)
	b = le.AppendUint32(b, uint32(len(data)))
	b = append(le.AppendUint32(b, 0), data...)
	return append(b, make([]byte, -len(b)&7)...)
}

// bitmap is the data of a dirty bitmap of a disk of this many sectors, all of it
// clean. Its id counts up from first.
func bitmap(sectors int, first byte) []byte {
	b := le.AppendUint64(nil, uint64(sectors))
	for i := range byte(16) {
		b = append(b, first+i)
	}
	b = le.AppendUint32(b, 8) // sectors for each bit
	b = le.AppendUint32(b, 1) // entries of the table
	return le.AppendUint64(b, 0)
}

// guestOf is a disk of n bytes with noise in some of its sectors, the first and
// the last among them, and runs without any.
func guestOf(n int) []byte {
	rnd := rand.New(rand.NewPCG(13, uint64(n)))
	g := make([]byte, n)
	fill := func(from, to int) {
		for i := max(from, 0); i < min(to, n); i++ {
			g[i] = byte(rnd.Uint32())
		}
	}
	fill(0, sector)
	for at := 0; at < n; at += 100<<10 + rnd.IntN(300<<10) {
		fill(at, at+rnd.IntN(70<<10))
	}
	fill(n-sector, n)
	return g
}

func openDisk(t testing.TB, src stored.Bytes) *engine.Disk {
	t.Helper()
	e := engine.New(engine.Options{TableBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	d, err := e.Open(t.Context(), parallels.Driver(), src, engine.OpenOptions{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// wantGuest fails unless image reads as guest.
func wantGuest(t *testing.T, image, guest []byte) {
	t.Helper()
	d := openDisk(t, formattest.Memory(image))
	got := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, guest) {
		return
	}
	at := 0
	for at < min(len(got), len(guest)) && got[at] == guest[at] {
		at++
	}
	t.Errorf("of %d bytes read and %d bytes written, the one at %d differs", len(got), len(guest), at)
}

// write puts image into a file.
func write(t testing.TB, image []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.hdd")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func backwards(n []int) { slices.Reverse(n) }

func shuffled(n []int) {
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(n), func(i, j int) { n[i], n[j] = n[j], n[i] })
}
