package vdi_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"glanced/contrib/testbed"
	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/vdi"
)

func TestContract(t *testing.T) {
	const block = 128 << 10
	ref := formats.Ref{Kind: formats.RefParent, Name: parentText, Format: "vdi", Identity: parentText}
	of := func(kind uint32) func(*testing.T) []byte {
		return func(*testing.T) []byte {
			return (&builder{kind: kind, link: parentUUID}).build(guestOf(block + 512))
		}
	}
	formattest.Suite{
		Driver: vdi.Driver(),
		Image: func(*testing.T) []byte {
			guest := make([]byte, 5*block+512)
			copy(guest[block:], guestOf(2*block))
			copy(guest[5*block:], guestOf(512))
			return (&builder{order: backwards, shortLast: true, entries: map[int]uint32{3: zero}}).build(guest)
		},
		References: []formattest.Reference{
			{Name: "differencing", Image: of(differencing), Ref: ref},
			{Name: "undo", Image: of(undo), Ref: ref, Unresolvable: true},
			{Name: "dynamic with a parent", Image: of(dynamic), Ref: ref, Unresolvable: true},
			{Name: "static with a parent", Image: of(static), Ref: ref, Unresolvable: true},
		},
	}.Run(t)
}

func TestReadsWhatQemuWrites(t *testing.T) {
	formattest.Golden(t, vdi.Driver(), "vdi", []formattest.Variant{
		{},
		{Args: []string{"-S", "0"}, Largest: 1 << 30},
		{Options: "static=on", Largest: 1 << 30},
		{Options: "static=off,nocow=on,extent_size_hint=1M", Largest: 1 << 30},
		{EditName: "zeros discarded", Edit: discardFirstHole},
	})
}

// discardFirstHole makes the first free block one of zeros, as VirtualBox's
// discard and its writes of zeros leave them; qemu reads them, and writes none.
func discardFirstHole(t *testing.T, path string) {
	image, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	head := make([]byte, 512)
	if _, err := image.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	entry := make([]byte, 4)
	for i := range int64(le.Uint32(head[384:])) {
		at := int64(le.Uint32(head[340:])) + 4*i
		if _, err := image.ReadAt(entry, at); err != nil {
			t.Fatal(err)
		}
		if le.Uint32(entry) == free {
			le.PutUint32(entry, zero)
			if _, err := image.WriteAt(entry, at); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

// Blocks that qemu-io writes in any order.
func TestReadsWhatQemuWroteOutOfOrder(t *testing.T) {
	testbed.Need(t, "qemu-io", "qemu-utils")
	for i, options := range []string{"static=off", "static=on"} {
		t.Run(options, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.vdi")
			testbed.Run(t, "qemu-img", "create", "-q", "-f", "vdi", "-o", options, path, "40001k")
			args := []string{"-f", "vdi", path}
			for i, mib := range []int{38, 7, 20, 8, 3, 21, 0, 37} {
				args = append(args, "-c", fmt.Sprintf("write -P %d %dM 1M", i+1, mib))
			}
			args = append(args, "-c", "write -P 99 40000k 1k", "-c", "write -z 7M 1M", "-c", "write -P 98 9999k 2M")
			testbed.Run(t, "qemu-io", args...)
			formattest.Image{Driver: vdi.Driver(), Path: path, QemuFormat: "vdi", Seed: uint64(i)}.Compare(t, options)
		})
	}
}

// Where the tests' own writer makes what qemu reads too (blocks of 1 MiB, nothing
// extra), qemu is asked whether it is no format of our own.
func TestReadsWhatVirtualBoxWrites(t *testing.T) {
	for name, b := range map[string]*builder{
		"data at a whole MiB":   {mapAt: 1 << 20, align: 1 << 20},
		"zeros, out of order":   {zeros: zero, order: shuffled},
		"last block cut off":    {shortLast: true},
		"static":                {kind: static, align: 4096},
		"blocks beyond the end": {more: 5},
		"zero-expand flag":      {edit: func(f []byte) { f[80] = 1 }},
		"fixed flag":            {kind: static, edit: func(f []byte) { f[81] = 1 }},
		"header without LCHS":   {edit: func(f []byte) { le.PutUint32(f[72:], 384) }},
	} {
		t.Run(name, func(t *testing.T) {
			b.blockSize = 1 << 20
			guest := guestOf(7<<20 + 1536)
			image := b.build(guest)
			wantGuest(t, image, guest)
			path := filepath.Join(t.TempDir(), "disk.vdi")
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			formattest.Image{Driver: vdi.Driver(), Path: path, QemuFormat: "vdi"}.Compare(t, name)
		})
	}
}

// qemu reads neither of these.
func TestReadsBlocksOfAnySize(t *testing.T) {
	for _, b := range []*builder{
		{blockSize: 128 << 10},
		{blockSize: 256 << 10, blockExtra: 512, order: shuffled},
		{blockSize: 512 << 10, zeros: zero},
		{blockSize: 1 << 20, blockExtra: 1 << 20, order: backwards},
		{blockSize: 2 << 20, blockExtra: 4096, kind: static, shortLast: true},
		{blockSize: 8 << 20, shortLast: true},
		{blockSize: 128 << 20, shortLast: true},
	} {
		t.Run(fmt.Sprintf("%d+%d", b.blockSize, b.blockExtra), func(t *testing.T) {
			guest := guestOf(9<<20 + 512)
			wantGuest(t, b.build(guest), guest)
		})
	}
}

func TestAPartOfASectorIsReadAsAWholeOne(t *testing.T) {
	guest := guestOf(128<<10 + 1024)
	image := (&builder{edit: func(f []byte) { le.PutUint64(f[368:], 128<<10+513) }}).build(guest)
	wantGuest(t, image, guest)
}

func TestAdjoiningBlocksAreOneExtent(t *testing.T) {
	const block = 128 << 10
	guest := make([]byte, 8*block)
	for i := range guest {
		if n := i / block; n == 1 || n == 2 || n == 5 || n == 6 {
			guest[i] = 'x'
		}
	}
	plain := &builder{entries: map[int]uint32{3: zero}}
	got := mapOf(t, plain.build(guest))
	at := int64(plain.dataAt)
	want := []formats.Extent{
		{Off: 0, Len: block, Kind: formats.Absent},
		{Off: block, Len: 2 * block, Kind: formats.Data, Pos: at, N: 2 * block},
		{Off: 3 * block, Len: block, Kind: formats.Zero},
		{Off: 4 * block, Len: block, Kind: formats.Absent},
		{Off: 5 * block, Len: 2 * block, Kind: formats.Data, Pos: at + 2*block, N: 2 * block},
		{Off: 7 * block, Len: block, Kind: formats.Absent},
	}
	if !slices.Equal(got, want) {
		t.Errorf("the map is\n%+v, want\n%+v", got, want)
	}
	// The extra bytes lie between the blocks, and are no part of the disk.
	extra := mapOf(t, (&builder{blockExtra: 512}).build(guest))
	if len(extra) != 7 || extra[1].N != block || extra[2].Pos != extra[1].Pos+block+512 {
		t.Errorf("with extra bytes the map is\n%+v", extra)
	}
}

func TestADifferencingImageShowsItsParent(t *testing.T) {
	const block = 128 << 10
	below := guestOf(3*block + 1024) // shorter than its child: zeros past its end
	parent := openDisk(t, formattest.Memory((&builder{edit: func(f []byte) { copy(f[392:], parentUUID) }}).build(below)), nil)
	if got := parent.Info().Identity; got != parentText {
		t.Fatalf("the parent's identity is %q, want %q", got, parentText)
	}
	above := make([]byte, 6*block)
	copy(above, below)
	clear(above[block : 2*block])
	copy(above[2*block:], bytes.Repeat([]byte("child"), block/5+1)[:block])
	copy(above[5*block:], "at the end")
	image := (&builder{kind: differencing, link: parentUUID, order: backwards,
		entries: map[int]uint32{0: free, 1: zero, 3: free, 4: free}}).build(above)

	var asked formats.Ref
	resolver := func(_ context.Context, ref formats.Ref) (*engine.Disk, error) {
		asked = ref
		return parent, nil
	}
	d := openDisk(t, formattest.Memory(image), resolver)
	if got := readAll(t, d); !bytes.Equal(got, above) {
		t.Errorf("the byte at %d differs", firstDifference(got, above))
	}
	if info := d.Info(); info.Refused != nil || info.Identity != ownText || asked.Name != parentText {
		t.Errorf("identity %q, refused %v; asked for %+v", info.Identity, info.Refused, asked)
	}

	other := openDisk(t, formattest.Memory((&builder{}).build(below)), nil)
	e := engine.New(engine.Options{})
	defer e.Close()
	_, err := e.Open(t.Context(), vdi.Driver(), formattest.Memory(image), engine.OpenOptions{
		Parent: func(context.Context, formats.Ref) (*engine.Disk, error) { return other, nil }})
	if !errors.Is(err, formats.ErrReference) {
		t.Errorf("above another disk than its parent: %v, want ErrReference", err)
	}
}

// 40,000 blocks have a map of three slices.
func TestFindsBlocksInEverySliceOfTheMap(t *testing.T) {
	const block, blocks = 128 << 10, 40_000
	b := builder{more: blocks - 3}
	image := b.build(bytes.Repeat([]byte("abc"), block))
	table := image[512:][:4*blocks]
	for n, i := range []int{16_383, 16_384, 39_999} {
		copy(table[4*i:], table[4*n:][:4])
		copy(table[4*n:], "\xff\xff\xff\xff")
	}
	le.PutUint64(image[368:], block*blocks)
	var got []formats.Extent
	for _, x := range mapOf(t, image) {
		if x.Kind == formats.Data {
			got = append(got, x)
		}
	}
	at := int64(b.dataAt)
	want := []formats.Extent{
		{Off: 16_383 * block, Len: 2 * block, Kind: formats.Data, Pos: at, N: 2 * block},
		{Off: 39_999 * block, Len: block, Kind: formats.Data, Pos: at + 2*block, N: block},
	}
	if !slices.Equal(got, want) {
		t.Errorf("the data is\n%+v, want\n%+v", got, want)
	}
}

// A disk of 2 TiB has a block map of 8 MiB, of which opening reads nothing, and a
// guest read one slice.
func TestOpeningALargeDiskReadsLittle(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.vdi")
	testbed.Need(t, "qemu-img", "qemu-utils")
	testbed.Run(t, "qemu-img", "create", "-q", "-f", "vdi", path, "2T")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	src := formattest.Memory(image)
	d := openDisk(t, src, nil)
	if n := src.BytesRead(); n > 4096 {
		t.Errorf("opening read %d bytes", n)
	}
	for _, off := range []int64{1 << 40, 1<<40 + 1<<30, d.Size() - 4096} {
		if err := d.ReadAt(t.Context(), make([]byte, 4096), off); err != nil {
			t.Error(err)
		}
	}
	if n := src.BytesRead(); n > 4096+2*64<<10 {
		t.Errorf("three reads in two slices of the map read %d bytes", n)
	}
}
