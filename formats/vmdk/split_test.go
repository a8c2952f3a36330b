package vmdk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/backends/stored"
	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vmdk"
)

// beside opens extents by their plain names in the folder of a descriptor.
func beside(t *testing.T, path string) formats.Files {
	return func(_ context.Context, ref formats.Ref) (stored.Bytes, error) {
		if ref.Kind != formats.RefExtent || ref.Name != filepath.Base(ref.Name) {
			return nil, fmt.Errorf("asked for %+v", ref)
		}
		return formattest.OpenFile(t, filepath.Join(filepath.Dir(path), ref.Name)), nil
	}
}

func TestReadsTheSplitDisksOfQemu(t *testing.T) {
	var vs []formattest.Variant
	for _, options := range []string{
		"subformat=twoGbMaxExtentSparse",
		"subformat=twoGbMaxExtentSparse,zeroed_grain=on",
		"subformat=twoGbMaxExtentSparse,adapter_type=lsilogic,hwversion=7",
		"subformat=twoGbMaxExtentFlat",
		"subformat=twoGbMaxExtentFlat,adapter_type=legacyESX",
		"subformat=monolithicFlat",
		"subformat=monolithicFlat,adapter_type=buslogic,compat6",
	} {
		vs = append(vs, formattest.Variant{Options: options, Files: beside})
	}
	formattest.Golden(t, vmdk.Driver(), "vmdk", vs)
}

// ESX's flat disk is monolithicFlat under another name: qemu, which writes only
// that one, reads both.
func TestReadsTheFlatDiskOfESX(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", path, "5M")
	testbed.Run(t, "qemu-io", "-f", "vmdk", path, "-c", "write -P 1 0 64k", "-c", "write -P 2 3000k 1k", "-c", "write -P 3 5119k 1k")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	esx := strings.NewReplacer(`"monolithicFlat"`, `"vmfs"`, `FLAT "disk-flat.vmdk" 0`, `VMFS "disk-flat.vmdk"`).Replace(string(text))
	if !strings.Contains(esx, "\nRW 10240 VMFS \"disk-flat.vmdk\"\n") || !strings.Contains(esx, `createType="vmfs"`) {
		t.Fatalf("the descriptor is\n%s", esx)
	}
	if err := os.WriteFile(path, []byte(esx), 0o600); err != nil {
		t.Fatal(err)
	}
	formattest.Image{Driver: vmdk.Driver(), Path: path, QemuFormat: "vmdk", Open: engine.OpenOptions{Files: beside(t, path)}}.Compare(t, "vmfs")
	info, err := vmdk.Driver().Inspect(t.Context(), formattest.OpenFile(t, path))
	if err != nil || info.Variant != "vmfs" || info.VirtualSize != 5<<20 || !errors.Is(info.Refused, formats.ErrReference) || errors.Is(info.Refused, formats.ErrUnsupported) {
		t.Errorf("%+v, refused %v, %v", info, info.Refused, err)
	}
}

// Places at the ends of the extents, in a disk that is flat and has holes.
func TestReadsAroundTheEndsOfFlatExtents(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.vmdk")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", path, fmt.Sprint(int64(9<<30+512)))
	args := []string{"-f", "vmdk", path}
	for i, at := range []int64{0, 2<<30 - 1024, 2 << 30, 4<<30 - 512, 4<<30 + 8<<20, 8<<30 - 512, 8 << 30, 9 << 30} {
		args = append(args, "-c", fmt.Sprintf("write -P %d %d 512", i+1, at))
	}
	testbed.Run(t, "qemu-io", args...)
	formattest.Image{Driver: vmdk.Driver(), Path: path, QemuFormat: "vmdk", Open: engine.OpenOptions{Files: beside(t, path)}}.Compare(t, "9 GiB")
	d := openResolved(t, formattest.OpenFile(t, path), engine.OpenOptions{Files: beside(t, path)})
	data := int64(0)
	if err := d.Extents(t.Context(), 0, d.Size(), func(x formats.Extent) bool {
		if x.Kind == formats.Data {
			data += x.Len
		}
		return true
	}); err != nil || data > 1<<20 {
		t.Errorf("%d bytes are said to be data, %v", data, err)
	}
}

// files are the extents of a hand-made disk by their names, and what became of them.
type files struct {
	content map[string][]byte
	given   []*formattest.Mem
	asked   []string
	failAt  int // the n-th request fails; 0 = none
	parent  *engine.Disk
}

// open is how a disk is opened with the files.
func (f *files) open() engine.OpenOptions {
	return engine.OpenOptions{Files: f.extent, Parent: func(context.Context, formats.Ref) (*engine.Disk, error) { return f.parent, nil }}
}

var errNotGiven = errors.New("not given")

func (f *files) extent(_ context.Context, ref formats.Ref) (stored.Bytes, error) {
	f.asked = append(f.asked, ref.Name)
	if len(f.asked) == f.failAt {
		return nil, errNotGiven
	}
	b, ok := f.content[ref.Name]
	if ref.Kind != formats.RefExtent || !ok {
		return nil, fmt.Errorf("asked for %+v", ref)
	}
	src := formattest.Memory(b)
	f.given = append(f.given, src)
	return src, nil
}

// closed is how many of the sources given are closed.
func (f *files) closed(t *testing.T) (n int) {
	t.Helper()
	for _, src := range f.given {
		if errors.Is(src.ReadAt(context.Background(), nil, 0), formats.ErrClosed) {
			n++
		}
	}
	return n
}

// splitText is a descriptor file of these extent lines.
func splitText(createType string, lines ...string) []byte {
	return []byte("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"" + createType + "\"\n\n" +
		strings.Join(lines, "\n") + "\n\nddb.adapterType = \"ide\"\n")
}

// pieceOf is a hosted sparse extent without a descriptor; room leaves the place of
// one, as qemu does.
func pieceOf(guest []byte, b builder, room bool) []byte {
	f := b.sparse(guest)
	clear(f[sector : sector*(1+b.descSectors)])
	if !room {
		clear(f[28:44])
	}
	return f
}

// splitDisk is a sparse disk in three files and a hole, and what it holds.
func splitDisk() (text []byte, f *files, guest []byte) {
	guest = guestOf(400 * sector)
	f = &files{content: map[string][]byte{
		"d-s001.vmdk": pieceOf(guest[:100*sector], builder{version: 1, grainSize: 8, tableLen: 3}, true),
		"d-s002.vmdk": pieceOf(guest[100*sector:101*sector], builder{version: 1, grainSize: 16}, false),
		"d-s004.vmdk": pieceOf(guest[301*sector:], builder{version: 2, grainSize: 8, zeroGrains: true}, false),
	}}
	clear(guest[101*sector : 301*sector])
	text = splitText("twoGbMaxExtentSparse", `RW 100 SPARSE "d-s001.vmdk"`, `RDONLY 1 SPARSE "d-s002.vmdk"`, `RW 200 ZERO`, `RW 99 SPARSE "d-s004.vmdk"`)
	return text, f, guest
}

// flatDisk is a flat disk in two files, of which the second holds two pieces.
func flatDisk() (text []byte, f *files, guest []byte) {
	guest = guestOf(50 * sector)
	second := slices.Concat(make([]byte, 3*sector), guest[40*sector:], guest[10*sector:20*sector])
	f = &files{content: map[string][]byte{"a": guest[:10*sector], "b b": second}}
	clear(guest[20*sector : 40*sector])
	text = splitText("twoGbMaxExtentFlat", `RW 10 FLAT "a" 0`, `RW 10 FLAT "b b" 13`, `RDONLY 20 ZERO`, `RW 10 FLAT "b b" 3`)
	return text, f, guest
}

func openResolved(t testing.TB, src stored.Bytes, o engine.OpenOptions) *engine.Disk {
	t.Helper()
	e := engine.New(engine.Options{CacheBytes: 1 << 20, TableBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	d, err := e.Open(t.Context(), vmdk.Driver(), src, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestReadsSplitDisksOfEveryExtentType(t *testing.T) {
	for name, make3 := range map[string]func() ([]byte, *files, []byte){"sparse": splitDisk, "flat": flatDisk} {
		t.Run(name, func(t *testing.T) {
			text, f, guest := make3()
			d := openResolved(t, formattest.Memory(text), f.open())
			if info := d.Info(); info.Refused != nil || info.Identity != "12345678" || info.VirtualSize != int64(len(guest)) {
				t.Errorf("%+v, refused %v", info, info.Refused)
			}
			got := make([]byte, len(guest))
			rnd := rand.New(rand.NewPCG(1, 2))
			for i := range 500 {
				off, n := 0, len(guest) // all of it first, and then parts
				if i > 0 {
					off = rnd.IntN(len(guest))
					n = rnd.IntN(len(guest) - off)
				}
				if err := d.ReadAt(t.Context(), got[:n], int64(off)); err != nil {
					t.Fatal(err)
				}
				if i := firstDifference(got[:n], guest[off:off+n]); i >= 0 {
					t.Fatalf("of %d bytes at %d, byte %d differs", n, off, i)
				}
			}
			if n := f.closed(t); n != 0 {
				t.Errorf("%d sources were closed while the disk is open", n)
			}
			d.Close()
			if n := f.closed(t); n != len(f.given) || n < 2 {
				t.Errorf("%d of %d sources are closed after the disk", n, len(f.given))
			}
		})
	}
}

// The layout alone: what it leaves to its user, and that a hole is none of the parent's.
func TestSplitMapCountsItsSources(t *testing.T) {
	text, f, guest := flatDisk()
	l, err := vmdk.Driver().Open(t.Context(), formattest.Memory(text), formats.Options{Files: f.extent})
	if err != nil {
		t.Fatal(err)
	}
	want := []formats.Extent{
		{Off: 0, Len: 10 * sector, Kind: formats.Data, Src: 1, N: 10 * sector},
		{Off: 10 * sector, Len: 10 * sector, Kind: formats.Data, Src: 2, Pos: 13 * sector, N: 10 * sector},
		{Off: 20 * sector, Len: 20 * sector, Kind: formats.Zero},
		{Off: 40 * sector, Len: 10 * sector, Kind: formats.Data, Src: 2, Pos: 3 * sector, N: 10 * sector},
	}
	if got := mapOf(t, l); !slices.Equal(got, want) {
		t.Errorf("the map is\n%+v, want\n%+v", got, want)
	}
	if l.Size() != int64(len(guest)) || len(l.(formats.Sourcer).Sources()) != 2 {
		t.Errorf("%d bytes from %d sources", l.Size(), len(l.(formats.Sourcer).Sources()))
	}
	if l.Close(); f.closed(t) != 0 {
		t.Error("the layout closed sources that are its user's")
	}
}

func TestAFailedOpenClosesTheExtentsItWasGiven(t *testing.T) {
	for _, n := range []int{1, 2, 3} {
		text, f, _ := splitDisk()
		f.failAt = n
		_, err := vmdk.Driver().Open(t.Context(), formattest.Memory(text), formats.Options{Files: f.extent})
		if !errors.Is(err, errNotGiven) || len(f.given) != n-1 || f.closed(t) != n-1 {
			t.Errorf("with extent %d missing: %v, %d of %d are closed", n, err, f.closed(t), len(f.given))
		}
	}
}

func TestReadsASplitDeltaThroughItsParent(t *testing.T) {
	text, f, guest := splitDisk()
	parent := openResolved(t, formattest.Memory(text), f.open())
	above := make([]byte, len(guest))
	copy(above[96*sector:], bytes.Repeat([]byte("delta!!!"), 64*8))
	delta := &files{parent: parent, content: map[string][]byte{
		"x1": pieceOf(above[:104*sector], builder{version: 1, grainSize: 8}, false),
		"x2": pieceOf(above[104*sector:399*sector], builder{version: 1, grainSize: 8}, false),
	}}
	want := slices.Clone(guest)
	copy(want[96*sector:104*sector], above[96*sector:])
	clear(want[399*sector:]) // a hole hides the parent
	over := func(cid string) []byte {
		text := splitText("twoGbMaxExtentSparse", `RW 104 SPARSE "x1"`, `RW 295 SPARSE "x2"`, `RW 1 ZERO`)
		return bytes.Replace(text, []byte("parentCID=ffffffff"), []byte("parentCID="+cid+"\nparentFileNameHint=\"base.vmdk\""), 1)
	}
	d := openResolved(t, formattest.Memory(over("12345678")), delta.open())
	got := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	if i := firstDifference(got, want); i >= 0 {
		t.Errorf("byte %d differs", i)
	}

	delta.given, delta.asked = nil, nil
	e := engine.New(engine.Options{})
	defer e.Close()
	_, err := e.Open(t.Context(), vmdk.Driver(), formattest.Memory(over("12345679")), delta.open())
	if !errors.Is(err, formats.ErrReference) || !strings.Contains(err.Error(), "12345679") || delta.closed(t) != 2 {
		t.Errorf("upon another parent: %v, %d extents closed", err, delta.closed(t))
	}
}

// A parent that was written after the delta was made has a new CID.
func TestRefusesADeltaOfAnotherParent(t *testing.T) {
	parent := openDisk(t, formattest.Memory((&builder{}).stream(guestOf(64<<10))))
	e := engine.New(engine.Options{})
	defer e.Close()
	for cid, want := range map[string]error{"3a1f0c2e": nil, "3A1F0C2E": nil, "3a1f0c2f": formats.ErrReference, "0": formats.ErrReference} {
		image := edited("parentCID=ffffffff", "parentCID="+cid)
		f := files{parent: parent}
		l, err := e.Open(t.Context(), vmdk.Driver(), formattest.Memory(image), f.open())
		if !errors.Is(err, want) {
			t.Errorf("a delta of CID %s: %v, want %v", cid, err, want)
		}
		if err == nil {
			l.Close()
		}
	}
}
