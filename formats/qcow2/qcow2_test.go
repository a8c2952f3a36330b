package qcow2_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"glanced/formats"
	"glanced/formats/engine"
	"glanced/formats/formattest"
	"glanced/formats/qcow2"
)

func TestContract(t *testing.T) {
	formattest.Suite{
		Driver: qcow2.Driver(),
		Image: func(t *testing.T) []byte {
			img := newImage(t)
			img.snapshotTable("before", "after")
			return img.bytes()
		},
		References: []formattest.Reference{
			{
				Name: "backing file",
				Image: func(t *testing.T) []byte {
					img := newImage(t)
					img.extend(0xe2792aca, []byte("qcow2"))
					img.name("/etc/passwd")
					return img.bytes()
				},
				Ref: formats.Ref{Kind: formats.RefBacking, Name: "/etc/passwd", Format: "qcow2"},
			},
			{
				Name: "backing file of a version 2 image",
				Image: func(t *testing.T) []byte {
					img := newImage(t)
					img.version = 2
					img.set(l2At+3*8, 0)
					img.set(l2At+4*8, 0)
					img.name(`json:{"driver":"nbd"}` + "\xff")
					return img.bytes()
				},
				Ref: formats.Ref{Kind: formats.RefBacking, Name: `json:{"driver":"nbd"}` + "\uFFFD"},
			},
			{
				Name: "data file",
				Image: func(t *testing.T) []byte {
					img := newImage(t)
					img.features = 1 << 2
					img.extend(0x44415441, []byte("/dev/sda"))
					return img.bytes()
				},
				Ref: formats.Ref{Kind: formats.RefDataFile, Name: "/dev/sda", Format: "raw"},
			},
		},
	}.Run(t)
}

// open opens a hand-made image.
func open(t *testing.T, b []byte) (formats.Layout, error) {
	l, err := qcow2.Driver().Open(t.Context(), formattest.Memory(b), formats.Options{})
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return l, err
}

func mustMap(t *testing.T, b []byte) []formats.Extent {
	t.Helper()
	l, err := open(t, b)
	if err != nil {
		t.Fatal(err)
	}
	var all []formats.Extent
	if err := l.Map(t.Context(), 0, l.Size(), func(x formats.Extent) bool {
		all = append(all, x)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMapSaysWhereEachClusterLies(t *testing.T) {
	img := newImage(t)
	got := mustMap(t, img.bytes())
	want := []formats.Extent{
		{Off: 0, Len: 2 * cluster, Kind: formats.Data, Pos: dataAt, N: 2 * cluster},
		{Off: 2 * cluster, Len: cluster, Kind: formats.Absent},
		{Off: 3 * cluster, Len: 2 * cluster, Kind: formats.Zero},
		{Off: 5 * cluster, Len: cluster, Kind: formats.Compressed, Pos: packAt + 100, N: 512 - 100, Codec: formats.Deflate, Full: cluster},
		{Off: 6 * cluster, Len: 3<<20 - 6*cluster, Kind: formats.Absent},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

func TestOnlyClustersThatAdjoinInTheFileAreJoined(t *testing.T) {
	img := newImage(t)
	img.set(l2At, dataAt+cluster|copied)
	img.set(l2At+8, dataAt|copied)
	want := []formats.Extent{
		{Off: 0, Len: cluster, Kind: formats.Data, Pos: dataAt + cluster, N: cluster},
		{Off: cluster, Len: cluster, Kind: formats.Data, Pos: dataAt, N: cluster},
	}
	if got := mustMap(t, img.bytes())[:2]; !slices.Equal(got, want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
}

// An image may end within its last data cluster, as lazily written ones do.
func TestShortLastClusterReadsAsZerosPastTheEnd(t *testing.T) {
	img := newImage(t)
	at := uint64(len(img.b))
	img.set(l2At+6*8, at|copied)
	img.b = append(img.b, make([]byte, 1000)...)
	got := mustMap(t, img.bytes())
	for _, want := range []formats.Extent{
		{Off: 6 * cluster, Len: 1000, Kind: formats.Data, Pos: int64(at), N: 1000},
		{Off: 6*cluster + 1000, Len: cluster - 1000, Kind: formats.Zero},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("got\n%+v, want one of them to be\n%+v", got, want)
		}
	}
}

func TestCompressedClusterMayClaimMoreThanTheFileHolds(t *testing.T) {
	img := newImage(t)
	img.set(l2At+5*8, packAt+100|15<<(62-(clusterBits-8))|compressed)
	i := slices.IndexFunc(mustMap(t, img.bytes()), func(x formats.Extent) bool {
		return x.Kind == formats.Compressed && x.N == cluster-100
	})
	if i < 0 {
		t.Error("the compressed bytes are not clipped to the end of the file")
	}
}

// The disk ends within a compressed cluster, which still decodes to a whole one.
func TestLastCompressedClusterDecodesWhole(t *testing.T) {
	img := newImage(t)
	img.size = 5*cluster + 512
	all := mustMap(t, img.bytes())
	if x := all[len(all)-1]; x.Kind != formats.Compressed || x.Len != 512 || x.Full != cluster {
		t.Errorf("the last extent is %+v, want 512 bytes of a cluster of %d", x, cluster)
	}
}

func TestDirtyAndUnknownCompatibleFeaturesAreTolerated(t *testing.T) {
	img := newImage(t)
	img.features = 1 // dirty
	b := img.bytes()
	for i := 80; i < 96; i++ { // compatible and autoclear features
		b[i] = 0xff
	}
	if _, err := open(t, b); err != nil {
		t.Error(err)
	}
}

func TestHeaderLengthSaysWhereExtensionsBegin(t *testing.T) {
	for _, length := range []uint32{104, 112, 136} {
		img := newImage(t)
		img.headerLength = length
		if length == 136 {
			img.extensions = make([]byte, 24)
		}
		img.extend(0x12345678, []byte("odd")) // unknown, and padded to 8 bytes
		img.extend(0xe2792aca, []byte("raw"))
		img.name("base")
		info, err := qcow2.Driver().Inspect(t.Context(), formattest.Memory(img.bytes()))
		if err != nil {
			t.Fatal(err)
		}
		want := []formats.Ref{{Kind: formats.RefBacking, Name: "base", Format: "raw"}}
		if !slices.Equal(info.Refs, want) {
			t.Errorf("header of %d bytes: got %+v, want %+v", length, info.Refs, want)
		}
	}
}

func TestSnapshotsAreListed(t *testing.T) {
	img := newImage(t)
	img.snapshotTable("before", "", "三")
	info, err := qcow2.Driver().Inspect(t.Context(), formattest.Memory(img.bytes()))
	if err != nil || info.Refused != nil {
		t.Fatal(err, info.Refused)
	}
	var names []string
	for _, s := range info.Snapshots {
		names = append(names, s.ID+" "+s.Name)
	}
	if want := []string{"1 before", "2 ", "3 三"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
}

// QEMU pads a snapshot to 8 bytes only where something is written after it: a
// compressed image whose snapshot came last ends without.
func TestTheLastSnapshotMayEndWithTheFile(t *testing.T) {
	for _, name := range []string{"s", "s1", "seven b", "eight by"} {
		img := newImage(t)
		img.snapshotTable("before", name)
		file := img.bytes()
		for file[len(file)-1] == 0 {
			file = file[:len(file)-1]
		}
		info, err := qcow2.Driver().Inspect(t.Context(), formattest.Memory(file))
		if err != nil || info.Refused != nil || len(info.Snapshots) != 2 || info.Snapshots[1].Name != name {
			t.Errorf("%q: %+v, %v, %v", name, info.Snapshots, info.Refused, err)
		}
		info, err = qcow2.Driver().Inspect(t.Context(), formattest.Memory(file[:len(file)-1]))
		if err != nil || info.Refused == nil {
			t.Errorf("%q, its end missing: %v, %v", name, info.Refused, err)
		}
	}
}

func TestUnknownFeaturesAreNamed(t *testing.T) {
	img := newImage(t)
	img.features = 1<<7 | 1<<63
	name := make([]byte, 48)
	name[1] = 7
	copy(name[2:], "shared sectors")
	img.extend(0x6803f857, name)
	_, err := open(t, img.bytes())
	if err == nil || !strings.Contains(err.Error(), `bit 7 ("shared sectors"), bit 63`) {
		t.Errorf("got %v, want the features' names", err)
	}
}

// The L1 table is read when it is asked for: a large disk costs no more to open.
func TestOpeningALargeDiskReadsLittle(t *testing.T) {
	img := newImage(t)
	img.clusterBits, img.size = 16, 2<<40
	img.l1Size, img.l1Off = 4096, 1<<16
	img.b = make([]byte, 2<<16)
	src := formattest.Memory(img.bytes())
	l, err := qcow2.Driver().Open(t.Context(), src, formats.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if n := src.BytesRead(); n > 128<<10 {
		t.Errorf("Open reads %d bytes", n)
	}
	calls := 0
	if err := l.Map(t.Context(), 0, l.Size(), func(formats.Extent) bool { calls++; return true }); err != nil || calls != 1 {
		t.Errorf("Map of an empty disk: %d extents, %v", calls, err)
	}
}

func TestReadsThroughTheEngine(t *testing.T) {
	img := newImage(t)
	e := engine.New(engine.Options{CacheBytes: 1 << 20, TableBytes: 1 << 20})
	defer e.Close()
	d, err := e.Open(t.Context(), qcow2.Driver(), formattest.Memory(img.bytes()), engine.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	got := make([]byte, 7*cluster)
	if err := d.ReadAt(t.Context(), got, 0); err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("some text. "), 2*cluster/11+1)[:2*cluster]
	want := slices.Concat(text, make([]byte, 3*cluster), text[:cluster], make([]byte, cluster))
	if !bytes.Equal(got, want) {
		t.Error("the disk reads as something else than what was put in")
	}
}
