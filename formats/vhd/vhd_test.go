package vhd_test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vhd"
)

// overlay is what is read where has says of each sector whether it is guest's;
// the others are below's, and zeros past its end.
func overlay(guest, below []byte, has func(int) bool) []byte {
	want := make([]byte, len(guest))
	copy(want, below)
	for s := range len(guest) / sector {
		if has(s) {
			copy(want[s*sector:][:sector], guest[s*sector:])
		}
	}
	return want
}

func engineOf(t testing.TB) *engine.Engine {
	e := engine.New(engine.Options{CacheBytes: 1 << 20, TableBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	return e
}

func openDisk(t testing.TB, src stored.Bytes, parent engine.Parent) *engine.Disk {
	t.Helper()
	d, err := engineOf(t).Open(t.Context(), vhd.Driver(), src, engine.OpenOptions{Parent: parent})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// mustRead checks that the disk reads as want, at once and in odd pieces.
func mustRead(t *testing.T, d *engine.Disk, want []byte) {
	t.Helper()
	got := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the disk does not read as it should")
	}
	for off, n := 0, 1; off < len(want); off, n = off+n, n*7%9001+1 {
		n = min(n, len(want)-off)
		if err := d.ReadAt(t.Context(), got[:n], int64(off)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:n], want[off:off+n]) {
			t.Fatalf("%d bytes at %d do not read as they should", n, off)
		}
	}
}

func TestVHD(t *testing.T) {
	guest := guestOf(200*sector + 16<<10)
	for name, b := range map[string]builder{
		"dynamic":                {},
		"written backwards":      {backward: true},
		"old footer":             {old: true},
		"header behind":          {headerAt: 4096},
		"larger blocks":          {block: 32 << 10, spare: 100},
		"bitmap of many sectors": {block: 4 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			formattest.Suite{
				Driver: vhd.Driver(),
				Image:  func(*testing.T) []byte { return b.sparse(guest, mixture(3)).image },
				References: []formattest.Reference{{
					Name: "parent",
					Image: func(*testing.T) []byte {
						b := b
						b.parent, b.parentName = 'p', `C:\máy ảo\đĩa gốc.vhd`
						return b.sparse(guest, mixture(3)).image
					},
					Ref: formats.Ref{Kind: formats.RefParent, Name: `C:\máy ảo\đĩa gốc.vhd`, Format: "vhd", Identity: "70707070-7070-7070-7070-707070707070"},
				}},
			}.Run(t)
			mustRead(t, openDisk(t, formattest.Memory(b.sparse(guest, mixture(3)).image), nil), overlay(guest, nil, mixture(3)))
		})
	}
}

func TestFixedVHD(t *testing.T) {
	guest := guestOf(200 * sector)
	for name, b := range map[string]builder{"fixed": {}, "old footer": {old: true}, "geometry": {app: "vpc ", geometry: [3]int{2, 4, 25}}} {
		t.Run(name, func(t *testing.T) {
			image := b.fixed(guest)
			d := vhd.Driver()
			if d.Probe(image) || !d.ProbeTail(image[len(image)-formats.TailLen:]) || d.ProbeTail(guest) {
				t.Error("it is recognised by its end only")
			}
			d.Probe = nil // as what the suite asks of images with a head
			formattest.Suite{
				Driver:       d,
				Image:        func(*testing.T) []byte { return image },
				NoReferences: "a fixed disk has no header to name a file in",
			}.Run(t)
			mustRead(t, openDisk(t, formattest.Memory(image), nil), guest)
		})
	}
	for _, content := range [][]byte{nil, []byte("conecti"), make([]byte, 1<<20), append(guestOf(sector), "conectix"...)} {
		formattest.Refuse(t, vhd.Driver(), content, formats.ErrFormat)
	}
}

// The map says of every sector where it is: data in one piece where sectors
// follow each other, across nothing else.
func TestTheSectorBitmapDecides(t *testing.T) {
	guest := guestOf(96 * sector)
	x := builder{}.sparse(guest, func(s int) bool { return s >= 3 && s < 7 || s >= 30 && s < 34 })
	l, err := vhd.Driver().Open(t.Context(), formattest.Memory(x.image), formats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var got []formats.Extent
	if err := l.Map(t.Context(), 0, l.Size(), func(e formats.Extent) bool {
		got = append(got, e)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	data := func(off, n, block int) formats.Extent {
		pos := (x.blocks[block] + 1 + off - 32*block) * sector
		return formats.Extent{Off: int64(off * sector), Len: int64(n * sector), Kind: formats.Data, Pos: int64(pos), N: int64(n * sector)}
	}
	hole := func(off, n int) formats.Extent {
		return formats.Extent{Off: int64(off * sector), Len: int64(n * sector)}
	}
	want := []formats.Extent{hole(0, 3), data(3, 4, 0), hole(7, 23), data(30, 2, 0), data(32, 2, 1), hole(34, 62)}
	if !slices.Equal(got, want) {
		t.Errorf("the map is\n%+v, want\n%+v", got, want)
	}
}

// What the padding of a sector bitmap says is of no sector.
func TestThePaddingOfABitmapSaysNothing(t *testing.T) {
	guest := guestOf(96 * sector)
	for _, has := range []func(int) bool{all, mixture(4), func(s int) bool { return s%32 < 20 }} {
		for _, padding := range []byte{0xff, 0xf0, 0x0f, 0xaa} {
			x := builder{}.sparse(guest, has)
			for _, b := range x.blocks {
				for i := 4; b != 0 && i < sector; i++ {
					x.image[b*sector+i] = padding
				}
			}
			mustRead(t, openDisk(t, formattest.Memory(x.image), nil), overlay(guest, nil, has))
		}
	}
}

// The last block need not be longer than the disk.
func TestTheLastBlockMayEndWithTheDisk(t *testing.T) {
	guest := guestOf(70 * sector)
	x := builder{}.sparse(guest, all)
	beyond := (96 - 70) * sector
	image := append(x.image[:x.end-beyond:x.end-beyond], x.image[x.end:]...)
	mustRead(t, openDisk(t, formattest.Memory(image), nil), guest)
	image = append(x.image[:x.end-beyond-sector:x.end-beyond-sector], x.image[x.end:]...)
	formattest.Refuse(t, vhd.Driver(), image, formats.ErrCorrupt)
}

func TestSizeIsByCreator(t *testing.T) {
	const current = 4 << 20
	small, none, most := [3]int{100, 4, 17}, [3]int{0, 0, 0}, [3]int{65535, 16, 255}
	chs := int64(100 * 4 * 17 * sector)
	for _, c := range []struct {
		app      string
		geometry [3]int
		want     int64
		qemu     bool // every version of qemu agrees
	}{
		{"vpc ", small, chs, true},
		{"vs  ", small, chs, false},
		{"qemu", small, chs, true},
		{"vpc ", most, current, true},
		{"qemu", most, current, true},
		{"win ", small, current, true},
		{"win ", none, current, true},
		{"qem2", small, current, true},
		{"d2v ", small, current, true},
		{"tap\x00", small, current, true},
		{"CTXS", small, current, true},
		{"wa\x00\x00", small, current, false},
		{"vbox", small, current, false},
	} {
		b := builder{app: c.app, geometry: c.geometry}
		guest := make([]byte, current)
		for variant, image := range map[string][]byte{"fixed": b.fixed(guest), "dynamic": b.sparse(guest, all).image} {
			info, err := vhd.Driver().Inspect(t.Context(), formattest.Memory(image))
			if err != nil || info.Refused != nil || info.VirtualSize != c.want || info.Variant != variant {
				t.Errorf("%s made by %q, geometry %v: %+v (%v), want %d bytes", variant, c.app, c.geometry, info, err, c.want)
			}
			if c.qemu {
				compareWithQemu(t, image, fmt.Sprintf("%s made by %q", variant, c.app))
			}
		}
	}
}

// A size that is not whole sectors is cut down to them.
func TestSizeIsWholeSectors(t *testing.T) {
	guest := guestOf(100 * sector)
	b := builder{size: 100*sector - 1}
	mustRead(t, openDisk(t, formattest.Memory(b.fixed(guest)), nil), guest[:99*sector])
	mustRead(t, openDisk(t, formattest.Memory(b.sparse(guest, all).image), nil), guest[:99*sector])
}

// A BAT of several slices, read from the far end first.
func TestReadsTheBATInSlices(t *testing.T) {
	const block = 16 << 10
	guest := make([]byte, 2500*block+5*sector)
	has := func(s int) bool { return s/32%97 == 0 || s/32%1024 < 2 || s/32%1024 == 1023 || s/32 == 2500 }
	for at := range guest {
		if s := at / sector; at%sector < 8 {
			guest[at] = byte(s >> (at % 8))
		}
	}
	src := formattest.Memory(builder{}.sparse(guest, has).image)
	d := openDisk(t, src, nil)
	before := src.BytesRead()
	p := make([]byte, 5*sector)
	if err := d.ReadAt(t.Context(), p, 2500*block); err != nil || !bytes.Equal(p, guest[2500*block:]) {
		t.Errorf("the last block: %v", err)
	}
	if read := src.BytesRead() - before; read > 4*(2501-2048)+sector+int64(len(p)) {
		t.Errorf("one block was read with %d bytes", read)
	}
	mustRead(t, d, overlay(guest, nil, has))
}

// The largest disk there is costs nothing until it is read.
func TestOpeningTheLargestDiskIsCheap(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.vhd")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "vpc", path, "2040G")
	src := formattest.OpenFile(t, path)
	e := engineOf(t)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	d, err := e.Open(t.Context(), vhd.Driver(), src, engine.OpenOptions{})
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.Size() != 2040<<30 {
		t.Errorf("Size is %d", d.Size())
	}
	if spent := after.TotalAlloc - before.TotalAlloc; spent > 256<<10 {
		t.Errorf("opening it allocated %d bytes", spent)
	}
	p := make([]byte, sector)
	if err := d.ReadAt(t.Context(), p, d.Size()-sector); err != nil || !bytes.Equal(p, make([]byte, sector)) {
		t.Errorf("its last sector: %v", err)
	}
}

func BenchmarkMap(b *testing.B) {
	guest := make([]byte, 64<<20)
	for name, has := range map[string]func(int) bool{"whole blocks": all, "mixture": mixture(5)} {
		b.Run(name, func(b *testing.B) {
			d := openDisk(b, formattest.Memory(builder{block: 2 << 20}.sparse(guest, has).image), nil)
			b.SetBytes(d.Size())
			for b.Loop() {
				if err := d.Extents(b.Context(), 0, d.Size(), func(formats.Extent) bool { return true }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
