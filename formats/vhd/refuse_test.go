package vhd_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
	"glanced/formats/vhd"
)

// small is a dynamic disk of five blocks, the second of which is unallocated.
func small() *built {
	return builder{}.sparse(guestOf(160*sector-sector), func(s int) bool { return s/32 != 1 && s%3 > 0 })
}

// child is the same as a differencing disk, without the parent's name.
func child() *built {
	return builder{parent: 'p', locators: map[uint32]string{0x4d616358: "file:///parent.vhd"}}.sparse(guestOf(160*sector), all)
}

func TestRefusesFootersThatDoNotAgree(t *testing.T) {
	guest := guestOf(64 * sector)
	fixed := builder{}.fixed(guest)
	for name, image := range map[string][]byte{
		"checksum at the end":                     func(x *built) []byte { x.image[x.end+64]++; return x.image }(small()),
		"checksum of the copy":                    func(x *built) []byte { x.image[64]++; return x.image }(small()),
		"reserved byte":                           func(x *built) []byte { x.image[x.end+500]++; return x.image }(small()),
		"copy of another size":                    func(x *built) []byte { x.image[55]--; seal(x.image[:sector], 64); return x.image }(small()),
		"copy of another disk":                    func(x *built) []byte { x.image[70]++; seal(x.image[:sector], 64); return x.image }(small()),
		"copy of another kind":                    func(x *built) []byte { x.image[63] = 4; seal(x.image[:sector], 64); return x.image }(small()),
		"copy says fixed":                         func(x *built) []byte { x.image[63] = 2; seal(x.image[:sector], 64); return x.image }(small()),
		"end says fixed":                          func(x *built) []byte { x.image[x.end+63] = 2; seal(x.image[x.end:], 64); return x.image }(small()),
		"no copy":                                 func(x *built) []byte { x.image[0] = 0; return x.image }(small()),
		"no footer":                               func(x *built) []byte { return x.image[:x.end] }(small()),
		"cut off in the footer":                   func(x *built) []byte { return x.image[:len(x.image)-2] }(small()),
		"cut off in a block":                      func(x *built) []byte { return x.image[:x.end-1000] }(small()),
		"bytes added":                             func(x *built) []byte { return append(x.image, 0) }(small()),
		"sector added":                            func(x *built) []byte { return append(x.image, make([]byte, sector)...) }(small()),
		"copy alone":                              small().image[:sector],
		"fixed, guest begins as a dynamic disk":   append(bytes.Clone(small().image), fixed[len(guest):]...),
		"fixed, guest's first sector is a footer": append(bytes.Clone(fixed[len(guest):]), fixed...),
		"fixed, wrong checksum":                   func(b []byte) []byte { b[len(b)-1]++; return b }(bytes.Clone(fixed)),
		"fixed, beginning lost":                   fixed[sector:],
	} {
		t.Run(name, func(t *testing.T) { formattest.Refuse(t, vhd.Driver(), image, formats.ErrCorrupt) })
	}
}

func TestRefusesHostileFooters(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(f []byte)
		want error
	}{
		{"version 2", func(f []byte) { be.PutUint32(f[12:], 0x20000) }, formats.ErrUnsupported},
		{"version 0", func(f []byte) { be.PutUint32(f[12:], 0) }, formats.ErrUnsupported},
		{"unknown feature", func(f []byte) { f[11] |= 4 }, formats.ErrUnsupported},
		{"no type", func(f []byte) { f[63] = 0 }, formats.ErrUnsupported},
		{"deprecated type", func(f []byte) { f[63] = 5 }, formats.ErrUnsupported},
		{"type 259", func(f []byte) { f[62] = 1 }, formats.ErrUnsupported},
		{"size over 2040 GiB", func(f []byte) { be.PutUint64(f[48:], 0xff000001*sector) }, formats.ErrLimit},
		{"size overflows", func(f []byte) { be.PutUint64(f[48:], 1<<64-1) }, formats.ErrLimit},
		{"size larger than the BAT maps", func(f []byte) { be.PutUint64(f[48:], 5*16<<10+sector) }, formats.ErrCorrupt},
		{"geometry of nothing", func(f []byte) { copy(f[28:], "vpc ") }, formats.ErrCorrupt},
		{"geometry larger than the BAT maps", func(f []byte) { copy(f[28:], "vpc "); copy(f[56:], "\xff\xff\xff\x11") }, formats.ErrCorrupt},
		{"geometry over 2040 GiB", func(f []byte) { copy(f[28:], "vpc "); copy(f[56:], "\xff\xff\xff\xff") }, formats.ErrCorrupt},
		{"header in the footer's copy", func(f []byte) { be.PutUint64(f[16:], 0) }, formats.ErrCorrupt},
		{"header not there", func(f []byte) { be.PutUint64(f[16:], 1024) }, formats.ErrCorrupt},
		{"no header", func(f []byte) { be.PutUint64(f[16:], 1<<64-1) }, formats.ErrCorrupt},
		{"header past the end", func(f []byte) { be.PutUint64(f[16:], 1<<40) }, formats.ErrCorrupt},
		{"header's place overflows", func(f []byte) { be.PutUint64(f[16:], 1<<63) }, formats.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) { refuseAtOnce(t, small().footers(c.edit), c.want) })
	}
}

func TestSavedAndTemporaryDisksAreRead(t *testing.T) {
	x := small()
	d := openDisk(t, formattest.Memory(x.footers(func(f []byte) { f[11], f[84] = 3, 1 })), nil)
	mustRead(t, d, overlay(guestOf(160*sector-sector), nil, func(s int) bool { return s/32 != 1 && s%3 > 0 }))
}

// refuseAtOnce checks that image is refused before any table of it is read.
func refuseAtOnce(t *testing.T, image []byte, want error) {
	t.Helper()
	formattest.Refuse(t, vhd.Driver(), image, want)
	info, err := vhd.Driver().Inspect(t.Context(), formattest.Memory(image))
	if err != nil || !errors.Is(info.Refused, want) {
		t.Errorf("Inspect says refused: %v (%v)", info.Refused, err)
	}
}

func TestRefusesHostileHeaders(t *testing.T) {
	put32 := func(at int, v uint32) func(h []byte) { return func(h []byte) { be.PutUint32(h[at:], v) } }
	put64 := func(at int, v uint64) func(h []byte) { return func(h []byte) { be.PutUint64(h[at:], v) } }
	for _, c := range []struct {
		name string
		edit func(h []byte)
		want error
	}{
		{"other cookie", put32(0, 0), formats.ErrCorrupt},
		{"version 2", put32(24, 0x20000), formats.ErrUnsupported},
		{"blocks of nothing", put32(32, 0), formats.ErrCorrupt},
		{"blocks of a byte", put32(32, 1), formats.ErrCorrupt},
		{"blocks of 24 KiB", put32(32, 24<<10), formats.ErrCorrupt},
		{"blocks of a sector", put32(32, sector), formats.ErrLimit},
		{"blocks of 8 KiB", put32(32, 8<<10), formats.ErrLimit},
		{"blocks of 2 GiB", put32(32, 1<<31), formats.ErrLimit},
		{"blocks of almost 4 GiB", put32(32, 1<<32-1), formats.ErrCorrupt},
		{"no entries", put32(28, 0), formats.ErrCorrupt},
		{"an entry too few", put32(28, 4), formats.ErrCorrupt},
		{"as many entries as can be", put32(28, 1<<32-1), formats.ErrCorrupt},
		{"BAT in the copy of the footer", put64(16, 0), formats.ErrCorrupt},
		{"BAT in the header", put64(16, 600), formats.ErrCorrupt},
		{"BAT runs into the header", put64(16, sector-4), formats.ErrCorrupt},
		{"BAT past the end", put64(16, 1<<40), formats.ErrCorrupt},
		{"BAT's place overflows", put64(16, 1<<63), formats.ErrCorrupt},
		{"BAT's end overflows", put64(16, 1<<64-4), formats.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) { refuseAtOnce(t, small().headers(c.edit), c.want) })
	}
	t.Run("checksum", func(t *testing.T) {
		x := small()
		x.image[x.header+36]++
		formattest.Refuse(t, vhd.Driver(), x.image, formats.ErrCorrupt)
	})
	t.Run("BAT runs into the footer", func(t *testing.T) {
		x := small()
		refuseAtOnce(t, x.headers(put64(16, uint64(x.end-4))), formats.ErrCorrupt)
	})
	t.Run("in the footer's reserved bytes", func(t *testing.T) {
		x := builder{headerAt: 128}.sparse(make([]byte, sector), func(int) bool { return false })
		refuseAtOnce(t, x.footers(func(f []byte) { copy(f[128:], x.image[128:sector]) }), formats.ErrCorrupt)
	})
}

func TestRefusesHostileEntries(t *testing.T) {
	blockSectors := small().blockLen / sector
	for _, c := range []struct {
		name  string
		alone bool // no other block is in the file
		entry func(x *built) int
	}{
		{"the copy of the footer", true, func(x *built) int { return 0 }},
		{"the header", true, func(x *built) int { return x.header / sector }},
		{"the BAT", true, func(x *built) int { return x.bat / sector }},
		{"the footer", true, func(x *built) int { return x.end / sector }},
		{"runs into the footer", true, func(x *built) int { return x.end/sector - blockSectors + 1 }},
		{"past the end", true, func(x *built) int { return len(x.image) / sector }},
		{"far past the end", true, func(x *built) int { return 1<<32 - 2 }},
		{"another block", false, func(x *built) int { return x.blocks[3] }},
		{"the end of another block", false, func(x *built) int { return x.blocks[0] + 1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := small()
			for i := range x.blocks {
				if c.alone {
					x.entry(i, 1<<32-1)
				}
			}
			formattest.Refuse(t, vhd.Driver(), x.entry(2, c.entry(x)), formats.ErrCorrupt)
		})
	}
	t.Run("runs into the BAT", func(t *testing.T) {
		x := builder{}.sparse(guestOf(32*sector), all)
		far := x.end // the BAT moves behind the block, which then ends one sector in it
		x.image = append(append(x.image[:far:far], x.image[x.bat:x.bat+sector]...), x.image[far:]...)
		x.bat, x.end = far, far+sector
		x.headers(func(h []byte) { be.PutUint64(h[16:], uint64(far)) })
		formattest.Refuse(t, vhd.Driver(), x.entry(0, x.blocks[0]+1), formats.ErrCorrupt)
	})
}

// A block named twice by entries that are never read at once is found all the
// same, every time it is asked for, and what is sound is still read.
func TestRefusesABlockUsedTwiceFarApart(t *testing.T) {
	const block = 16 << 10
	guest := make([]byte, 2100*block)
	copy(guest, guestOf(4*block))
	has := func(s int) bool { return s/32 < 4 || s/32 >= 2090 }
	x := builder{}.sparse(guest, has)
	src := formattest.Memory(x.entry(2095, x.blocks[1]))
	formattest.Refuse(t, vhd.Driver(), x.image, formats.ErrCorrupt)
	d := openDisk(t, src, nil)
	p := make([]byte, 4*block)
	said := ""
	for range 3 {
		if err := d.ReadAt(t.Context(), p, 0); err != nil || !bytes.Equal(p, guest[:len(p)]) {
			t.Errorf("the sound part: %v", err)
		}
		err := d.ReadAt(t.Context(), p, 2080*block)
		if !errors.Is(err, formats.ErrCorrupt) {
			t.Fatalf("the part with the block used twice: %v", err)
		}
		if said != "" && err.Error() != said {
			t.Errorf("it said %q, and then %q", said, err)
		}
		said = err.Error()
	}
}

func TestRefusesHostileParents(t *testing.T) {
	for name, edit := range map[string]func(h []byte){
		"no unique id":                      func(h []byte) { clear(h[40:56]) },
		"its own unique id":                 func(h []byte) { copy(h[40:], "iiiiiiiiiiiiiiii") },
		"name past the end":                 func(h []byte) { be.PutUint64(h[576+16:], 1<<40) },
		"name's place overflows":            func(h []byte) { be.PutUint64(h[576+16:], 1<<64-1) },
		"name as long as it can be":         func(h []byte) { be.PutUint32(h[576+8:], 1<<32-1) },
		"BAT too short, though a parent is": func(h []byte) { be.PutUint32(h[28:], 1) },
	} {
		t.Run(name, func(t *testing.T) { formattest.Refuse(t, vhd.Driver(), child().headers(edit), formats.ErrCorrupt) })
	}
	t.Run("not given", func(t *testing.T) { formattest.Refuse(t, vhd.Driver(), child().image, formats.ErrReference) })
}

// sealing is the driver, of images whose checksums are put right and whose
// footer at the end is made the one at the beginning: a fuzzer does not find
// them, and what lies behind them would never be reached.
func sealing(d formats.Driver) formats.Driver {
	s := d
	s.Inspect = func(ctx context.Context, src stored.Bytes) (formats.Info, error) {
		return d.Inspect(ctx, sealed(ctx, src))
	}
	s.Open = func(ctx context.Context, src stored.Bytes, o formats.Options) (formats.Layout, error) {
		return d.Open(ctx, sealed(ctx, src), o)
	}
	return s
}

func sealed(ctx context.Context, src stored.Bytes) stored.Bytes {
	b := make([]byte, src.Size())
	if err := src.ReadAt(ctx, b, 0); err != nil || len(b) < 2*sector || string(b[:8]) != "conectix" {
		return src
	}
	seal(b[:sector], 64)
	copy(b[len(b)-sector:], b[:sector])
	if at := be.Uint64(b[16:]); at < uint64(len(b)) && uint64(len(b))-at >= 1024 && at >= sector {
		seal(b[at:][:1024], 36)
	}
	return formattest.Memory(b)
}

func FuzzOpenVHD(f *testing.F) {
	seeds := [][]byte{small().image, child().image, builder{}.fixed(guestOf(8 * sector)), builder{old: true}.fixed(guestOf(sector))}
	seeds = append(seeds, hostile.Seeds("vhd")...)
	seeds = append(seeds, formattest.QemuSeeds(f, "vpc", 64<<10, "subformat=dynamic", "subformat=fixed", "subformat=fixed,force_size=on")...)
	formattest.FuzzOpen(f, vhd.Driver(), seeds...)
}

func FuzzOpenSealedVHD(f *testing.F) {
	few := func(s int) bool { return s/32%2 == 0 }
	formattest.FuzzOpen(f, sealing(vhd.Driver()), append(hostile.Seeds("vhd"), small().image, child().image,
		builder{spare: 50, app: "vpc ", geometry: [3]int{1, 5, 17}}.sparse(guestOf(96*sector), few).image)...)
}
