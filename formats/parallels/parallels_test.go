package parallels_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/parallels"
)

func TestContract(t *testing.T) {
	for name, b := range map[string]builder{
		"v1": {tracks: 63, order: backwards, shortLast: true},
		"v2": {v2: true, tracks: 8, order: shuffled, features: feature(dirtyBitmap, 0, bitmap(200, 0))},
	} {
		t.Run(name, func(t *testing.T) {
			formattest.Suite{
				Driver: parallels.Driver(),
				Image: func(*testing.T) []byte {
					b, guest := b, make([]byte, 200*sector)
					copy(guest[70*sector:], guestOf(100*sector))
					copy(guest[199*sector:], "the last sector")
					return b.build(guest)
				},
				NoReferences: "the header has no place for a name: images of a chain are listed in a file beside them",
			}.Run(t)
		})
	}
}

func TestReadsWhatQemuWrites(t *testing.T) {
	formattest.Golden(t, parallels.Driver(), "parallels", []formattest.Variant{
		{},
		{Args: []string{"-S", "0"}, Largest: 1 << 30},
		{Options: "cluster_size=512", Largest: 1 << 30},
		{Options: "cluster_size=4096"},
		{Options: "cluster_size=32256"},  // 63 sectors
		{Options: "cluster_size=258048"}, // 252 KiB
		{Options: "cluster_size=16M"},
		{Options: "nocow=on,extent_size_hint=1M,cluster_size=64k", Largest: 1 << 30},
	})
}

// Clusters that qemu-io writes in any order, with its preallocation.
func TestReadsWhatQemuWroteOutOfOrder(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	for i, options := range []string{"cluster_size=64k", "cluster_size=32256", "cluster_size=1M"} {
		t.Run(options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.hdd")
			testbed.Run(t, "qemu-img", "create", "-q", "-f", "parallels", "-o", options, path, "40001k")
			args := []string{"-f", "parallels", path}
			for i, k := range []int{38000, 7000, 20000, 8000, 3, 21000, 0, 37000} {
				args = append(args, "-c", fmt.Sprintf("write -P %d %dk 200k", i+1, k))
			}
			args = append(args, "-c", "write -P 99 40000k 1k", "-c", "write -z 7000k 100k", "-c", "write -P 98 9999k 2M")
			testbed.Run(t, "qemu-io", args...)
			formattest.Image{Driver: parallels.Driver(), Path: path, QemuFormat: "parallels", Seed: uint64(i)}.Compare(t, options)
		})
	}
}

// The tests' own writer stands in for Parallels'; that qemu reads the same from
// what it writes shows that it is no format of our own.
func TestReadsWhatParallelsWrites(t *testing.T) {
	for name, b := range map[string]*builder{
		"v1":                          {},
		"v1, out of order":            {order: shuffled},
		"v1, data at a sector":        {dataOff: 17, tracks: 504},
		"v1, data at a cluster":       {dataOff: 512, tracks: 512},
		"v1, last cluster cut off":    {shortLast: true},
		"v1, one sector a cluster":    {tracks: 1},
		"v1, closed by new tools":     {inUse: closed},
		"v1, more entries":            {more: 100},
		"v1, by Parallels Desktop":    {tracks: 2048, dataOff: 2048, inUse: closedByDesktop},
		"v2, by Parallels Desktop":    {v2: true, tracks: 2048, inUse: closedByDesktop},
		"v2, the same with a bitmap":  {v2: true, tracks: 2048, inUse: closedByDesktop, features: feature(dirtyBitmap, 0, bitmap(8003, 1))},
		"v2":                          {v2: true, tracks: 2048, inUse: closed},
		"v2, odd clusters":            {v2: true, tracks: 63, order: backwards},
		"v2, data further on":         {v2: true, tracks: 64, dataOff: 640},
		"v2, last cluster cut off":    {v2: true, tracks: 128, shortLast: true},
		"v2, with a bitmap":           {v2: true, tracks: 2048, inUse: closed, features: feature(dirtyBitmap, 0, bitmap(8003, 1))},
		"v2, with an empty extension": {v2: true, tracks: 2048, inUse: closed, features: []byte{}},
	} {
		t.Run(name, func(t *testing.T) {
			guest := guestOf(8003 * sector)
			image := b.build(guest)
			wantGuest(t, image, guest)
			formattest.Image{Driver: parallels.Driver(), Path: write(t, image), QemuFormat: "parallels"}.Compare(t, name)
		})
	}
}

// v1 has 32 bits for the size; the other half was padding.
func TestTheSizeOfV1Is32Bits(t *testing.T) {
	guest := guestOf(126 * sector)
	image := (&builder{}).build(guest)
	copy(image[40:], "junk")
	wantGuest(t, image, guest)
	image = (&builder{v2: true}).build(guest)
	copy(image[40:], "junk")
	formattest.Refuse(t, parallels.Driver(), image, formats.ErrCorrupt)
}

func TestAdjoiningClustersAreOneExtent(t *testing.T) {
	const cluster = 63 * sector
	guest := make([]byte, 6*cluster)
	for i := range guest {
		if n := i / cluster; n == 1 || n == 2 || n == 4 {
			guest[i] = 'x'
		}
	}
	for _, b := range []*builder{{}, {v2: true}} {
		l, err := parallels.Driver().Open(t.Context(), formattest.Memory(b.build(guest)), formats.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		var got []formats.Extent
		if err := l.Map(t.Context(), 0, l.Size(), func(x formats.Extent) bool { got = append(got, x); return true }); err != nil {
			t.Fatal(err)
		}
		at := int64(b.dataAt)
		want := []formats.Extent{
			{Off: 0, Len: cluster, Kind: formats.Absent},
			{Off: cluster, Len: 2 * cluster, Kind: formats.Data, Pos: at, N: 2 * cluster},
			{Off: 3 * cluster, Len: cluster, Kind: formats.Absent},
			{Off: 4 * cluster, Len: cluster, Kind: formats.Data, Pos: at + 2*cluster, N: cluster},
			{Off: 5 * cluster, Len: cluster, Kind: formats.Absent},
		}
		if !slices.Equal(got, want) {
			t.Errorf("the map is\n%+v, want\n%+v", got, want)
		}
	}
}

// What a writer left open is refused with a hint; the tool that it names helps.
func TestADirtyImageIsReadAfterItsRepair(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	guest := guestOf(1000 * sector)
	path := write(t, (&builder{v2: true, tracks: 64, inUse: 0x746f6e59}).build(guest))
	info, err := parallels.Driver().Inspect(t.Context(), formattest.OpenFile(t, path))
	if err != nil {
		t.Fatal(err)
	}
	if !errors.Is(info.Refused, formats.ErrCorrupt) || !strings.Contains(info.Refused.Error(), "qemu-img check -f parallels -r all") {
		t.Fatalf("refused: %v", info.Refused)
	}
	if info.VirtualSize != int64(len(guest)) {
		t.Errorf("virtual size %d, want %d", info.VirtualSize, len(guest))
	}
	testbed.Run(t, "qemu-img", "check", "-q", "-f", "parallels", "-r", "all", path)
	repaired, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wantGuest(t, repaired, guest)
}

func TestAnEmptyImageHasNoData(t *testing.T) {
	wantGuest(t, (&builder{flags: 1}).build(make([]byte, 200*sector)), make([]byte, 200*sector))
	formattest.Refuse(t, parallels.Driver(), (&builder{flags: 1}).build(guestOf(200*sector)), formats.ErrCorrupt)
}

func TestFeaturesOfTheFormatExtension(t *testing.T) {
	unknown, small := uint64(0xf00d), []byte("some data")
	guest := guestOf(200 * sector)
	for _, c := range []struct {
		name     string
		features []byte
		bitmaps  []string
		want     error
	}{
		{"none", []byte{}, nil, nil},
		{"two bitmaps", slices.Concat(feature(dirtyBitmap, 0, bitmap(200, 0)), feature(dirtyBitmap, necessary, bitmap(200, 0xf0))),
			[]string{"00010203-0405-0607-0809-0a0b0c0d0e0f", "f0f1f2f3-f4f5-f6f7-f8f9-fafbfcfdfeff"}, nil},
		{"optional and unknown", slices.Concat(feature(unknown, transit, small), feature(unknown+1, 0, small), feature(dirtyBitmap, 0, bitmap(200, 0))),
			[]string{"00010203-0405-0607-0809-0a0b0c0d0e0f"}, nil},
		{"necessary and unknown", slices.Concat(feature(unknown, transit, small), feature(unknown, necessary|transit, nil)), nil, formats.ErrUnsupported},
		{"a short bitmap", feature(dirtyBitmap, 0, make([]byte, 31)), nil, formats.ErrCorrupt},
		{"a section past the end", feature(unknown, 0, make([]byte, 63*sector)), nil, formats.ErrCorrupt},
		{"a section up to the end", feature(unknown, 0, make([]byte, 63*sector-48)), nil, formats.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := (&builder{inUse: closed, features: c.features}).build(guest)
			if c.want != nil {
				formattest.Refuse(t, parallels.Driver(), image, c.want)
				return
			}
			wantGuest(t, image, guest)
			if got := openDisk(t, formattest.Memory(image)).Info().Bitmaps; !slices.Equal(got, c.bitmaps) {
				t.Errorf("bitmaps %q, want %q", got, c.bitmaps)
			}
		})
	}
}

// Software that knows no Format Extension leaves a zero, and may have written over
// it; where it has not, the extension still says what it says.
func TestAnExtensionThatOldSoftwareWroteOverIsIgnored(t *testing.T) {
	guest := guestOf(200 * sector)
	b := builder{features: feature(0xf00d, necessary, nil)}
	formattest.Refuse(t, parallels.Driver(), b.build(guest), formats.ErrUnsupported)
	for name, edit := range map[string]edit{
		"written over":  func(f []byte) []byte { clear(f[b.extAt:][:63*sector]); return f },
		"cut off":       set64(56, 1<<30),
		"never a place": set64(56, 0xffffffffffffffff),
	} {
		t.Run(name, func(t *testing.T) {
			wantGuest(t, edit(b.build(guest)), guest)
		})
	}
}

// A disk of 2 TiB has a BAT of 8 MiB, of which opening reads nothing, and a guest
// read one slice.
func TestOpeningALargeDiskReadsLittle(t *testing.T) {
	testbed.Need(t, "qemu-img", "qemu-utils")
	path := filepath.Join(t.TempDir(), "disk.hdd")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "parallels", path, "2T")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	src := formattest.Memory(image)
	d := openDisk(t, src)
	if n := src.BytesRead(); n > 4096 {
		t.Errorf("opening read %d bytes", n)
	}
	for _, off := range []int64{1 << 40, 1<<40 + 1<<30, d.Size() - 4096} {
		if err := d.ReadAt(t.Context(), make([]byte, 4096), off); err != nil {
			t.Error(err)
		}
	}
	if n := src.BytesRead(); n > 4096+2*64<<10 {
		t.Errorf("three reads in two slices of the BAT read %d bytes", n)
	}
}
