package vhdx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vhdx"
)

func TestContract(t *testing.T) {
	small := builder{}.of(guestOf(2*mib + 5*512)).image()
	locator := [][2]string{
		{"absolute_win32_path", `\\?\d:\path\parent.vhdx`},
		{"parent_linkage", "{" + parentIdentity + "}"},
		{"relative_path", `..\parent.vhdx`},
		{"something else", "that is not known"},
	}
	child := builder{size: mib, locator: locator}
	formattest.Suite{
		Driver: vhdx.Driver(),
		Image:  func(*testing.T) []byte { return small },
		References: []formattest.Reference{{
			Name:  "parent",
			Image: func(*testing.T) []byte { return child.image() },
			Ref:   formats.Ref{Kind: formats.RefParent, Name: `..\parent.vhdx`, Format: "vhdx", Identity: parentIdentity},
		}},
	}.Run(t)
}

// A disk whose BAT is in the log alone keeps the contract too.
func TestContractWithALog(t *testing.T) {
	dirty, _ := dirtyImage(replays()["past the end of the ring"].put)
	formattest.Suite{
		Driver:       vhdx.Driver(),
		Image:        func(*testing.T) []byte { return dirty },
		NoReferences: "the log has nothing to do with them: see TestContract",
	}.Run(t)
}

func TestReadsADiskOfNoLength(t *testing.T) {
	if got := extentsOf(t, (&builder{}).image()); len(got) != 0 {
		t.Errorf("the map says %+v", got)
	}
}

// The tests' own writer stands in for Windows; that qemu reads the same from what
// it writes shows that it is no format of our own.
func TestReadsAnyGeometry(t *testing.T) {
	for name, b := range map[string]builder{
		"smallest blocks":       {},
		"blocks of 4 MiB":       {blockSize: 4 * mib},
		"fixed":                 {fixed: true},
		"cut off with the disk": {blockSize: 2 * mib, fixed: true, cut: true},
	} {
		for _, n := range []int{512, 3*mib - 512, 5*mib + 3*512} {
			t.Run(fmt.Sprintf("%s, %d bytes", name, n), func(t *testing.T) {
				guest := guestOf(n)
				image := b.of(guest).image()
				sameBytes(t, readAll(t, image, nil), guest)
				path := filepath.Join(t.TempDir(), "disk.vhdx")
				if err := os.WriteFile(path, image, 0o600); err != nil {
					t.Fatal(err)
				}
				formattest.Image{Driver: vhdx.Driver(), Path: path, QemuFormat: "vhdx"}.Compare(t, name)
			})
		}
	}
}

// qemu refuses such disks.
func TestReadsSectorsOf4KiB(t *testing.T) {
	guest := guestOf(5*mib + 3*4096)
	image := (builder{sectorSize: 4096, blockSize: 2 * mib}).of(guest).image()
	sameBytes(t, readAll(t, image, nil), guest)
	info, err := vhdx.Driver().Inspect(t.Context(), formattest.Memory(image))
	if err != nil || info.Variant != "dynamic, 4096-byte sectors" || info.ClusterSize != 2*mib || info.Identity != imageIdentity {
		t.Errorf("Inspect says %+v, %v", info, err)
	}
}

func TestMapsEveryStateOfABlock(t *testing.T) {
	data := guestOf(mib)
	b := builder{size: 7 * mib, blocks: map[int64]block{
		0: {notPresent, nil}, 1: {undefined, data}, 2: {zero, nil}, 3: {unmapped, data}, 4: {fully, data}, 5: {fully, data}, 6: {zero, data},
	}}
	want := []formats.Extent{
		{Off: 0, Len: mib, Kind: formats.Absent},
		{Off: 1 * mib, Len: 3 * mib, Kind: formats.Zero},
		{Off: 4 * mib, Len: mib, Kind: formats.Data, Pos: 6 * mib, N: mib},
		{Off: 5 * mib, Len: mib, Kind: formats.Data, Pos: 5 * mib, N: mib},
		{Off: 6 * mib, Len: mib, Kind: formats.Zero},
	}
	// A differencing disk's undefined and unmapped blocks hide the parent too.
	for _, locator := range [][][2]string{nil, locatorTo(parentIdentity)} {
		b.locator = locator
		if got := extentsOf(t, b.image()); !slices.Equal(got, want) {
			t.Errorf("the map says\n%+v, want\n%+v", got, want)
		}
	}
}

func locatorTo(identity string) [][2]string {
	return [][2]string{{"parent_linkage", "{" + identity + "}"}, {"relative_path", `.\parent.vhdx`}}
}

// differencing is a disk of two chunks in part, and what it reads as on its parent.
func differencing(sectorSize int64) (parent, child *builder, islands map[int64][]byte) {
	size := sectorSize<<23 + 2*mib
	chunk := size - 2*mib // where the second one begins
	below, above := guestOf(mib), bytes.Repeat([]byte("child "), mib/6+1)[:mib]
	first := chunk / mib // block
	parent = &builder{size: size, sectorSize: sectorSize, identity: parentIdentity, blocks: map[int64]block{
		0: {fully, below}, 1: {fully, below}, 2: {fully, below}, 3: {fully, below}, first: {fully, below}, first + 1: {fully, below},
	}}
	child = &builder{size: size, sectorSize: sectorSize, locator: locatorTo(parentIdentity), blocks: map[int64]block{
		0: {fully, above}, 1: {notPresent, nil}, 2: {zero, nil}, 3: {partially, above}, first: {partially, above}, first + 1: {partially, above},
	}}
	mixed := func(begin int64, runs ...int64) []byte {
		b := bytes.Clone(below)
		for i := 0; i < len(runs); i += 2 {
			from, n := runs[i], runs[i+1]
			child.mark(begin/sectorSize+from, n)
			copy(b[from*sectorSize:(from+n)*sectorSize], above[from*sectorSize:])
		}
		return b
	}
	last := mib / sectorSize // sectors of a block
	islands = map[int64][]byte{
		0: above, mib: below, 2 * mib: make([]byte, mib),
		3 * mib:     mixed(3*mib, 0, 1, 3, 4, 8, 8, 17, 40, 100, 16, 200, 16, 240, 1, last-1, 1),
		chunk:       mixed(chunk, 1, last-2),
		chunk + mib: mixed(chunk+mib, 0, 9, last-9, 9),
	}
	return parent, child, islands
}

func TestReadsADifferencingDiskThroughItsParent(t *testing.T) {
	for _, sectorSize := range []int64{512, 4096} {
		t.Run(fmt.Sprint(sectorSize), func(t *testing.T) {
			parent, child, islands := differencing(sectorSize)
			disk := openDisk(t, child.image(), parentOf(t, parent.image()))
			for off, want := range islands {
				got := make([]byte, len(want))
				if err := disk.ReadAt(t.Context(), got, off); err != nil {
					t.Fatal(err)
				}
				if i := firstDifference(got, want); i >= 0 {
					t.Errorf("of the MiB at %d, the byte at %d differs", off, i)
				}
				for _, part := range [][2]int64{{511, 2}, {3*sectorSize - 1, 2*sectorSize + 2}, {mib - 700, 700}, {5 * sectorSize, 1}} {
					got := make([]byte, part[1])
					if err := disk.ReadAt(t.Context(), got, off+part[0]); err != nil {
						t.Fatal(err)
					}
					sameBytes(t, got, want[part[0]:][:part[1]])
				}
			}
		})
	}
}

func TestAsksForTheParentThatTheDiskWasMadeOn(t *testing.T) {
	const other = "99999999-8888-7777-6666-555555555555"
	upper := "{83ED0EC3-24C8-49A6-A959-5E4BF1288BFB}" // 2.6.2.6.3 writes it so, and says lower-case
	path := [2]string{"volume_path", `\\?\Volume{26a21bda-a627-11d7-9931-806e6f6e6963}\parent.vhdx`}
	for name, c := range map[string]struct {
		locator  [][2]string
		identity string // of the parent that is given
		fits     bool
	}{
		"the one":                 {[][2]string{{"parent_linkage", upper}, path}, parentIdentity, true},
		"another":                 {[][2]string{{"parent_linkage", upper}, path}, other, false},
		"the one before a merge":  {[][2]string{{"parent_linkage", upper}, {"parent_linkage2", "{" + other + "}"}, path}, parentIdentity, true},
		"the one after the merge": {[][2]string{{"parent_linkage2", "{" + other + "}"}, {"parent_linkage", upper}, path}, other, true},
		"neither":                 {[][2]string{{"parent_linkage", upper}, {"parent_linkage2", "{" + other + "}"}, path}, imageIdentity, false},
		"no second":               {[][2]string{{"parent_linkage", upper}, {"parent_linkage2", "{00000000-0000-0000-0000-000000000000}"}, path}, other, false},
	} {
		t.Run(name, func(t *testing.T) {
			child := builder{size: mib, locator: c.locator}
			parent := builder{identity: c.identity}.of(guestOf(mib))
			e := engine.New(engine.Options{})
			defer e.Close()
			l, err := e.Open(t.Context(), vhdx.Driver(), formattest.Memory(child.image()), engine.OpenOptions{Parent: parentOf(t, parent.image())})
			if c.fits != (err == nil) || !c.fits && !errors.Is(err, formats.ErrReference) {
				t.Errorf("Open: %v", err)
			}
			if err == nil {
				l.Close()
			}
		})
	}
}

// parentOf resolves every reference to the disk in image.
func parentOf(t *testing.T, image []byte) engine.Parent {
	disk := openDisk(t, image, nil)
	return func(context.Context, formats.Ref) (*engine.Disk, error) { return disk, nil }
}

func openDisk(t testing.TB, image []byte, r engine.Parent) *engine.Disk {
	t.Helper()
	e := engine.New(engine.Options{CacheBytes: 1 << 20, TableBytes: 1 << 20})
	t.Cleanup(func() { e.Close() })
	d, err := e.Open(t.Context(), vhdx.Driver(), formattest.Memory(image), engine.OpenOptions{Parent: r})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func readAll(t testing.TB, image []byte, r engine.Parent) []byte {
	t.Helper()
	d := openDisk(t, image, r)
	p := make([]byte, d.Size())
	if err := d.ReadAt(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// extentsOf is the map of the file's own layer.
func extentsOf(t testing.TB, image []byte) []formats.Extent {
	t.Helper()
	l, err := vhdx.Driver().Open(t.Context(), formattest.Memory(image), formats.Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	defer l.Close()
	var all []formats.Extent
	if err := l.Map(t.Context(), 0, l.Size(), func(x formats.Extent) bool {
		all = append(all, x)
		return true
	}); err != nil {
		t.Fatalf("Map: %v", err)
	}
	return all
}

func sameBytes(t testing.TB, got, want []byte) {
	t.Helper()
	if i := firstDifference(got, want); i >= 0 {
		t.Errorf("of %d bytes (%d expected), the one at %d differs", len(got), len(want), i)
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}
