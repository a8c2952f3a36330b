package parallels_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/formattest/hostile"
	"glanced/formats/parallels"
)

type edit = func(f []byte) []byte

func set32(at int, v uint32) edit {
	return func(f []byte) []byte { le.PutUint32(f[at:], v); return f }
}

func set64(at int, v uint64) edit {
	return func(f []byte) []byte { le.PutUint64(f[at:], v); return f }
}

// clustersOf makes the disk of a v1 victim one short cluster, of this many sectors.
func clustersOf(sectors uint32) edit {
	return func(f []byte) []byte {
		le.PutUint32(f[28:], sectors)
		le.PutUint64(f[36:], 8)
		return f
	}
}

// bothHostile lists what malicious or damaged images of either version do, each
// as a change of a valid one, with the kind of error that must come of it.
var bothHostile = []struct {
	name string
	edit edit
	want error
}{
	{"another magic", func(f []byte) []byte { f[15] ^= 1; return f }, formats.ErrFormat},
	{"the magic cut off", func(f []byte) []byte { return f[:15] }, formats.ErrFormat},
	{"the header cut off", func(f []byte) []byte { return f[:63] }, formats.ErrCorrupt},
	{"the BAT cut off", func(f []byte) []byte { return f[:67] }, formats.ErrCorrupt},
	{"header version 0", set32(16, 0), formats.ErrUnsupported},
	{"header version 3", set32(16, 3), formats.ErrUnsupported},
	{"clusters of no sectors", set32(28, 0), formats.ErrCorrupt},
	{"clusters of 2 GiB", set32(28, 1<<22), formats.ErrCorrupt},
	{"the largest clusters", set32(28, 1<<32-1), formats.ErrCorrupt},
	{"no BAT", set32(32, 0), formats.ErrCorrupt},
	{"a BAT shorter than the disk", set32(32, 3), formats.ErrCorrupt},
	{"a BAT longer than the file", set32(32, 1<<20), formats.ErrCorrupt},
	{"the longest BAT", set32(32, 1<<32-1), formats.ErrCorrupt},
	{"more disk than the BAT maps", set64(36, 1204*8+1), formats.ErrCorrupt},
	{"in use", set32(44, 0x746f6e59), formats.ErrCorrupt},
	{"data over the BAT", set32(48, 8), formats.ErrCorrupt},
	{"data past the end", set32(48, 1<<32-8), formats.ErrCorrupt},
	{"version conversion under way", set32(52, 2), formats.ErrUnsupported},
	{"an unknown flag", set32(52, 4), formats.ErrUnsupported},
	{"the last unknown flag", set32(52, 1<<31), formats.ErrUnsupported},
	{"marked as empty", set32(52, 1), formats.ErrCorrupt},

	{"an extension past the end", set64(56, 1<<20), formats.ErrCorrupt},
	{"an extension at the end of the numbers", set64(56, 1<<64-1), formats.ErrCorrupt},
	{"an extension whose place overflows", set64(56, 1<<55), formats.ErrCorrupt},
	{"an extension over the header", set64(56, 1), formats.ErrCorrupt},
	{"an extension that is a data cluster", set64(56, 161*8), formats.ErrCorrupt},

	{"the largest entry", set32(64, 1<<32-1), formats.ErrCorrupt},
	{"the last cluster cut off", func(f []byte) []byte { return f[:len(f)-1] }, formats.ErrCorrupt},
	{"a whole cluster cut off", func(f []byte) []byte { return f[:max(0, len(f)-8*sector)] }, formats.ErrCorrupt},
}

// ownHostile lists the same for one version.
var ownHostile = []struct {
	name string
	v2   bool
	edit edit
	want error
}{
	{"v1 cluster in the header", false, set32(64, 1), formats.ErrCorrupt},
	{"v1 cluster in the BAT", false, set32(64, 9), formats.ErrCorrupt},
	{"v1 cluster before the data", false, set32(64, 160*8), formats.ErrCorrupt},
	{"v1 cluster between two", false, set32(64, 161*8+1), formats.ErrCorrupt},
	{"v1 cluster past the end", false, set32(64, 200*8), formats.ErrCorrupt},
	{"v1 cluster partly past the end", false, set32(64, 163*8), formats.ErrCorrupt},
	{"v1 clusters too large by a sector", false, clustersOf(4186128), formats.ErrCorrupt},
	{"v2 cluster in the BAT", true, set32(64, 1), formats.ErrCorrupt},
	{"v2 cluster before the data", true, set32(64, 160), formats.ErrCorrupt},
	{"v2 cluster past the end", true, set32(64, 200), formats.ErrCorrupt},
	{"v2 cluster partly past the end", true, set32(64, 163), formats.ErrCorrupt},
	{"v2 data at no place", true, set32(48, 0), formats.ErrCorrupt},
	{"v2 data at no whole cluster", true, set32(48, 161*8+1), formats.ErrCorrupt},
	{"v2 size of 64 bits", true, set64(36, 1<<32|25), formats.ErrCorrupt},
	{"v2 largest size", true, set64(36, 1<<64-1), formats.ErrCorrupt},
	{"v2 largest size that fits into bytes", true, set64(36, 1<<54), formats.ErrCorrupt},
}

// victim is a small valid image of four clusters of 4 KiB, of which the second is
// a hole and the last is cut off, with room for more BAT, and its data at 644 KiB.
func victim(v2 bool) []byte {
	guest := guestOf(25 * sector)
	clear(guest[8*sector : 16*sector])
	guest[17*sector] = 1
	return (&builder{v2: v2, inUse: closed, tracks: 8, more: 1200, dataOff: 161 * 8, shortLast: true}).build(guest)
}

func TestRefusesHostileImages(t *testing.T) {
	for name, v2 := range map[string]bool{"v1": false, "v2": true} {
		formattest.Refuse(t, parallels.Driver(), victim(v2), nil)
		for _, h := range bothHostile {
			t.Run(name+" "+h.name, func(t *testing.T) {
				formattest.Refuse(t, parallels.Driver(), h.edit(victim(v2)), h.want)
			})
		}
	}
	for _, h := range ownHostile {
		t.Run(h.name, func(t *testing.T) {
			formattest.Refuse(t, parallels.Driver(), h.edit(victim(h.v2)), h.want)
		})
	}
}

func TestRefusesHostileExtensions(t *testing.T) {
	for name, edit := range map[string]func(f []byte, ext int){
		"another magic":          func(f []byte, ext int) { f[ext] ^= 1 },
		"a wrong checksum":       func(f []byte, ext int) { f[ext+8] ^= 1 },
		"a changed last byte":    func(f []byte, ext int) { f[ext+8*sector-1] ^= 1 },
		"a data cluster over it": func(f []byte, ext int) { le.PutUint32(f[64:], uint32(ext/(8*sector))) },
	} {
		t.Run(name, func(t *testing.T) {
			b := builder{v2: true, inUse: closed, tracks: 8, features: []byte{}}
			image := b.build(guestOf(100 * sector))
			edit(image, b.extAt)
			formattest.Refuse(t, parallels.Driver(), image, formats.ErrCorrupt)
		})
	}
	t.Run("a data cluster over a part of it", func(t *testing.T) {
		b := builder{inUse: closed, tracks: 8, dataOff: 9, features: []byte{}}
		image := b.build(guestOf(100 * sector))
		copy(image[b.extAt+sector:], image[b.extAt:][:8*sector]) // now at no whole cluster
		le.PutUint64(image[56:], 10)
		formattest.Refuse(t, parallels.Driver(), image, formats.ErrCorrupt)
		clear(image[64:][:4*13]) // no cluster is used: it is all right
		formattest.Refuse(t, parallels.Driver(), image, nil)
	})
	t.Run("clusters too large to check", func(t *testing.T) {
		image := (&builder{tracks: 32<<10 + 1, features: []byte{}}).build(nil)
		formattest.Refuse(t, parallels.Driver(), image, formats.ErrLimit)
	})
}

// What is odd, and harmless.
func TestReadsOddImages(t *testing.T) {
	for name, edit := range map[string]edit{
		"aliased clusters":          set32(64+4, 161*8),
		"largest clusters":          clustersOf(4186127),
		"no disk":                   set64(36, 0),
		"a mark unknown":            set32(44, 1),
		"the in-use mark backwards": set32(44, 0x596e6f74),
		"a mark of all ones":        set32(44, 1<<32-1),
		"a longer file":             func(f []byte) []byte { return append(f, make([]byte, 1000)...) },
		"no data":                   func(f []byte) []byte { clear(f[64:80]); return f[:64+4*1204] },
	} {
		t.Run(name, func(t *testing.T) {
			formattest.Refuse(t, parallels.Driver(), edit(victim(false)), nil)
		})
	}
}

// A BAT of one cluster over and over: a large disk in a small file. Its walk is
// bounded by the BAT, which is in the file.
func TestWalksOfAliasedClustersAreBounded(t *testing.T) {
	const entries = 1 << 20
	b := builder{tracks: 8, more: entries - 1}
	image := b.build(guestOf(8 * sector))
	for i := range entries {
		le.PutUint32(image[64+4*i:], uint32(b.dataAt/sector))
	}
	le.PutUint64(image[36:], entries*8)
	formattest.Refuse(t, parallels.Driver(), image, nil)
}

func FuzzOpenParallels(f *testing.F) {
	guest := guestOf(25 * sector)
	var seeds [][]byte
	for _, v2 := range []bool{false, true} {
		small := (&builder{v2: v2, tracks: 2, shortLast: true, order: backwards}).build(guest)
		seeds = append(seeds, small,
			(&builder{v2: v2, inUse: closed, tracks: 1, features: feature(dirtyBitmap, 0, bitmap(25, 0))}).build(guest),
			(&builder{v2: v2, tracks: 2, features: feature(1, transit, bitmap(25, 0))}).build(guest),
			(&builder{v2: v2, inUse: closedByDesktop, tracks: 2}).build(guest),
			(&builder{v2: v2, flags: 1}).build(make([]byte, 100*sector)),
			(&builder{v2: v2, tracks: 3, more: 40_000}).build(guest))
		for _, h := range bothHostile {
			seeds = append(seeds, h.edit(bytes.Clone(small)))
		}
		for _, h := range ownHostile {
			seeds = append(seeds, h.edit(bytes.Clone(small)))
		}
	}
	for _, options := range []string{"cluster_size=512", "cluster_size=32256"} {
		seeds = append(seeds, qemuImage(f, options))
	}
	formattest.FuzzOpen(f, parallels.Driver(), append(seeds, hostile.Seeds("ploop")...)...)
}

// qemuImage is a small image by qemu, with a little data in it.
func qemuImage(t testing.TB, options string) []byte {
	t.Helper()
	testbed.Need(t, "qemu-io", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.hdd")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "parallels", "-o", options, path, "50k")
	testbed.Run(t, "qemu-io", "-f", "parallels", "-c", "write -P 1 40k 1k", "-c", "write -P 2 0 512", path)
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return image
}
