package vmdk_test

import (
	"encoding/binary"
	"slices"
	"testing"

	"glanced/backends/stored"
	"glanced/formats"
	"glanced/formats/formattest"
	"glanced/formats/vmdk"
)

func openLayout(t testing.TB, src stored.Bytes) formats.Layout {
	t.Helper()
	l, err := vmdk.Driver().Open(t.Context(), src, formats.Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func mapOf(t testing.TB, l formats.Layout) []formats.Extent {
	t.Helper()
	var all []formats.Extent
	if err := l.Map(t.Context(), 0, l.Size(), func(x formats.Extent) bool {
		all = append(all, x)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestAdjoiningGrainsAreOneExtent(t *testing.T) {
	const grain = 64 << 10
	guest := make([]byte, 9*grain)
	for i := range guest {
		if n := i / grain; n >= 2 && n != 5 {
			guest[i] = 'x'
		}
	}
	b := builder{tableLen: 4} // so that runs cross tables
	l := openLayout(t, formattest.Memory(b.sparse(guest)))
	first := int64(b.firstGrain) * sector
	want := []formats.Extent{
		{Off: 0, Len: 2 * grain, Kind: formats.Absent},
		{Off: 2 * grain, Len: 3 * grain, Kind: formats.Data, Pos: first, N: 3 * grain},
		{Off: 5 * grain, Len: grain, Kind: formats.Absent},
		{Off: 6 * grain, Len: 3 * grain, Kind: formats.Data, Pos: first + 3*grain, N: 3 * grain},
	}
	// Grain 5 is absent, and takes no room: what is around it adjoins in the
	// file, and must not be joined.
	if got := mapOf(t, l); !slices.Equal(got, want) {
		t.Errorf("the map is\n%+v, want\n%+v", got, want)
	}
}

func TestZeroedGrainsAreZeroOnlyWhereTheFlagSaysSo(t *testing.T) {
	guest := make([]byte, 256<<10)
	copy(guest[192<<10:], "data")
	b := builder{zeroGrains: true}
	image := b.stream(guest)
	got := mapOf(t, openLayout(t, formattest.Memory(image)))
	if len(got) != 2 || got[0].Kind != formats.Zero || got[0].Len != 192<<10 {
		t.Errorf("the map is %+v", got)
	}
	foot := len(image) - 2*sector
	image[8] &^= 1 << 2
	image[foot+8] &^= 1 << 2
	formattest.Refuse(t, vmdk.Driver(), image, formats.ErrCorrupt)
}

// The bound on a compressed grain's bytes is found without reading the grain,
// holds all of it, and wastes little.
func TestBoundsOfCompressedGrains(t *testing.T) {
	b := builder{}
	image := b.stream(guestOf(33<<20 + sector))
	src := formattest.Memory(image)
	l := openLayout(t, src)
	before := src.BytesRead()
	all := mapOf(t, l)
	if read, most := src.BytesRead()-before, int64(len(b.tables)*(2048+64)); read > most {
		t.Errorf("mapping read %d bytes, the tables have %d", read, most)
	}
	compressed := 0
	for _, x := range all {
		if x.Kind != formats.Compressed {
			continue
		}
		compressed++
		if lba := binary.LittleEndian.Uint64(image[x.Pos:]); lba != uint64(x.Off/sector) {
			t.Fatalf("%+v: the marker is of guest sector %d", x, lba)
		}
		n := 12 + int64(binary.LittleEndian.Uint32(image[x.Pos+8:]))
		// Up to the next sector, and a marker may follow before the next table.
		if x.N < n || x.N > n+2*sector {
			t.Errorf("%+v: the grain takes %d bytes", x, n)
		}
	}
	if compressed < 50 {
		t.Errorf("only %d compressed grains", compressed)
	}
}

// Grains in descending order: the next entry says nothing of where a grain ends.
func TestBoundsOfGrainsWrittenBackwards(t *testing.T) {
	b := builder{frontGD: true}
	guest := guestOf(1 << 20)
	image := b.stream(guest)
	table := image[b.tables[0]*sector:][:2048]
	var at []uint32
	for i := range 16 {
		at = append(at, binary.LittleEndian.Uint32(table[4*i:]))
	}
	// The same grains for the guest's other end: grain i is now where 15-i was.
	want := make([]byte, len(guest))
	for i := range 16 {
		binary.LittleEndian.PutUint32(table[4*i:], at[15-i])
		copy(want[i<<16:], guest[(15-i)<<16:][:1<<16])
		if p := int(at[i]) * sector; p > 0 {
			binary.LittleEndian.PutUint64(image[p:], uint64((15-i)*128))
		}
	}
	if i := firstDifference(readAll(t, formattest.Memory(image)), want); i >= 0 {
		t.Errorf("the byte at %d differs", i)
	}
}

func BenchmarkMap(b *testing.B) {
	guest := guestOf(32 << 20)
	for name, image := range map[string][]byte{"sparse": (&builder{}).sparse(guest), "stream": (&builder{}).stream(guest)} {
		b.Run(name, func(b *testing.B) {
			l := openLayout(b, formattest.Memory(image))
			b.SetBytes(l.Size())
			for b.Loop() {
				if err := l.Map(b.Context(), 0, l.Size(), func(formats.Extent) bool { return true }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
